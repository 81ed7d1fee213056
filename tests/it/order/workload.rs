//! Many publishers and consumers over two gateways and one that is killed: no
//! message of a key is delivered while an earlier one is unsettled, and none is lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking::Checker;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ordered;
use crate::store::message_id;
use crate::support::{App, Gateway, Process};

const PUBLISHERS: usize = 64;
const EACH: usize = 8;
const KEYS: usize = 24;
const CONSUMERS: usize = 64;

mod parking {
    use std::sync::Mutex;

    use super::{BTreeMap, HashMap};

    /// What has been delivered of each key, and whether its ack was sent.
    #[derive(Default)]
    pub(super) struct Checker(Mutex<HashMap<String, BTreeMap<i64, bool>>>);

    impl Checker {
        /// A message came: every earlier one of its key is settled, or its ack is on
        /// its way, or it came `together` with it.
        pub(super) fn delivered(&self, key: &str, id: i64, together: &[i64]) {
            let mut keys = self.0.lock().unwrap();
            let seen = keys.entry(key.to_owned()).or_default();
            let unsettled: Vec<i64> = seen
                .range(..id)
                .filter(|(earlier, acking)| !**acking && !together.contains(earlier))
                .map(|(earlier, _)| *earlier)
                .collect();
            assert!(
                unsettled.is_empty(),
                "{key}: {id} came before {unsettled:?}"
            );
            let later: Vec<i64> = seen
                .range(id + 1..)
                .filter(|(_, acking)| **acking)
                .map(|(later, _)| *later)
                .collect();
            assert!(later.is_empty(), "{key}: {id} came after {later:?}");
            seen.entry(id).or_default();
        }

        pub(super) fn acking(&self, key: &str, id: i64) {
            let mut keys = self.0.lock().unwrap();
            keys.get_mut(key).unwrap().insert(id, true);
        }

        pub(super) fn acked(&self) -> usize {
            let keys = self.0.lock().unwrap();
            keys.values()
                .flatten()
                .filter(|(_, acking)| **acking)
                .count()
        }
    }
}

/// Cheap, and not the same each time.
fn chance(seed: &mut u64, percent: u64) -> bool {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) % 100 < percent
}

async fn consume(
    gateway: &Gateway,
    checker: &Checker,
    published: &AtomicUsize,
    done: &AtomicUsize,
    mut seed: u64,
) {
    loop {
        let most = if chance(&mut seed, 50) { 1 } else { 3 };
        let request = json!({"max_messages": most, "wait_seconds": 0.5, "lease_seconds": 5});
        let messages = gateway.receive("q", request).await;
        let together: Vec<i64> = messages
            .iter()
            .map(|message| message_id(message["id"].as_str().unwrap()))
            .collect();
        for (message, id) in messages.iter().zip(&together) {
            checker.delivered(message["key"].as_str().unwrap(), *id, &together);
        }
        // What comes behind one that fails is not ours any more.
        let mut failed = HashSet::new();
        for message in &messages {
            if failed.contains(&message["key"]) {
                continue;
            }
            let key = message["key"].as_str().unwrap();
            let id = message_id(message["id"].as_str().unwrap());
            let receipt = [&message["receipt"]];
            if chance(&mut seed, 10) {
                failed.insert(message["key"].clone());
                gateway.settle("nack", "q", &receipt, json!({})).await;
            } else if chance(&mut seed, 4) {
                // Its lease ends soon.
                failed.insert(message["key"].clone());
                let end = json!({"lease_seconds": 0.05});
                gateway.settle("extend", "q", &receipt, end).await;
            } else {
                checker.acking(key, id);
                let answer = gateway.settle("ack", "q", &receipt, json!({})).await;
                answer.expect(StatusCode::OK);
            }
        }
        let all = published.load(Ordering::SeqCst);
        if done.load(Ordering::SeqCst) == PUBLISHERS && checker.acked() >= all {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_under_nacks_lease_ends_and_a_killed_gateway() {
    let app = Arc::new(App::start().await);
    let other = Arc::new(app.another().await);
    let mut settings = ordered();
    settings["max_attempts"] = json!(1000);
    app.queue("q", settings).await;
    let victim = Process::start(&["--database-url", &app.database.url()]);
    let victim_url = victim.url.clone();
    let checker = Arc::<Checker>::default();
    let (published, done) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut tasks = JoinSet::new();
    for n in 0..PUBLISHERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let (published, done) = (Arc::clone(&published), Arc::clone(&done));
        let victim_url = victim_url.clone();
        tasks.spawn(async move {
            for m in 0..EACH {
                let message = json!({"body": n, "key": format!("k{}", (n * 7 + m) % KEYS)});
                if n % 8 == 0 {
                    // Its answer may be lost; then nobody counts on the message.
                    let request = crate::support::http_client()
                        .post(format!("{victim_url}/v1/queues/q/messages"))
                        .header("content-type", "application/json")
                        .body(message.to_string());
                    let sent = request.send().await;
                    let stored = sent.is_ok_and(|answer| answer.status() == StatusCode::CREATED);
                    published.fetch_add(usize::from(stored), Ordering::SeqCst);
                } else {
                    let gateway: &Gateway = if n % 2 == 0 { &app } else { &other };
                    gateway.publish("q", message).await;
                    published.fetch_add(1, Ordering::SeqCst);
                }
            }
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    for n in 0..CONSUMERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let (checker, published, done) = (
            Arc::clone(&checker),
            Arc::clone(&published),
            Arc::clone(&done),
        );
        tasks.spawn(async move {
            let gateway: &Gateway = if n % 2 == 0 { &app } else { &other };
            consume(gateway, &checker, &published, &done, n as u64).await;
        });
    }
    // In the middle of it.
    while checker.acked() < PUBLISHERS {
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    victim.kill();
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    // What the killed gateway stored without an answer may be left.
    let mut left: Vec<Value> = app.receive("q", json!({"max_messages": 100})).await;
    while !left.is_empty() {
        for message in &left {
            super::ack(&app, "q", message).await;
        }
        left = app.receive("q", json!({"max_messages": 100})).await;
    }
    app.assert_conserved(&app.database, "q").await;
}
