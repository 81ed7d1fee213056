//! Many publishers and consumers over two gateways and one that is killed: no
//! message of a key is delivered while an earlier one is unsettled, and none is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ordered;
use crate::store::message_id;
use crate::support::{Answer, App, Deadline, Gateway, Process};

const PUBLISHERS: usize = 64;
const EACH: usize = 8;
const KEYS: usize = 24;
const CONSUMERS: usize = 64;

/// What has been published, delivered and acked.
#[derive(Default)]
struct Checker {
    /// By key and message, whether its ack was sent.
    delivered: Mutex<HashMap<String, BTreeMap<i64, bool>>>,
    /// Those whose publishers were told so.
    published: Mutex<BTreeSet<i64>>,
    /// Those whose consumers were told so.
    acked: Mutex<BTreeSet<i64>>,
    /// Publishers that have come to their end.
    done: AtomicUsize,
}

impl Checker {
    /// A message came: every earlier one of its key is settled, or its ack is on
    /// its way, or it came `together` with it.
    fn delivered(&self, key: &str, id: i64, together: &[i64]) {
        let mut keys = self.delivered.lock().unwrap();
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

    fn acking(&self, key: &str, id: i64) {
        let mut keys = self.delivered.lock().unwrap();
        keys.get_mut(key).unwrap().insert(id, true);
    }

    fn acked(&self, id: i64) {
        assert!(self.acked.lock().unwrap().insert(id), "{id} came again");
    }

    fn published(&self, id: &str) {
        let is_new = self.published.lock().unwrap().insert(message_id(id));
        assert!(is_new, "{id} was answered twice");
    }

    /// Published and not acked.
    fn missing(&self) -> Vec<i64> {
        let acked = self.acked.lock().unwrap();
        let published = self.published.lock().unwrap();
        published.difference(&acked).copied().collect()
    }

    fn is_over(&self) -> bool {
        self.done.load(Ordering::SeqCst) == PUBLISHERS && self.missing().is_empty()
    }
}

/// Cheap, and not the same each time.
fn chance(seed: &mut u64, percent: u64) -> bool {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) % 100 < percent
}

/// Sends until the gateway has not too much in hand for it, as any client does.
async fn insist(gateway: &Gateway, verb: &str, json: &Value) -> Answer {
    loop {
        let answer = gateway.post(&format!("/v1/queues/q/{verb}"), json).await;
        if answer.status != StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        answer.expect_problem(503, "overloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn consume(gateway: &Gateway, checker: &Checker, mut seed: u64) {
    let deadline = Deadline::start();
    while !checker.is_over() {
        deadline.check(|| format!("{:?} were never acked", checker.missing()));
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
                let ack = json!({"receipts": receipt});
                let answer = insist(gateway, "ack", &ack).await;
                answer.expect(StatusCode::OK);
                checker.acked(id);
            }
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
    let mut tasks = JoinSet::new();
    for n in 0..PUBLISHERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let checker = Arc::clone(&checker);
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
                    let Ok(answer) = request.send().await else {
                        continue;
                    };
                    if answer.status() != StatusCode::CREATED {
                        continue;
                    }
                    if let Ok(text) = answer.text().await {
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        checker.published(answer["messages"][0]["id"].as_str().unwrap());
                    }
                } else {
                    let gateway: &Gateway = if n % 2 == 0 { &app } else { &other };
                    let answer = insist(gateway, "messages", &message).await;
                    let stored = answer.expect(StatusCode::CREATED);
                    checker.published(stored["messages"][0]["id"].as_str().unwrap());
                }
            }
            checker.done.fetch_add(1, Ordering::SeqCst);
        });
    }
    for n in 0..CONSUMERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let checker = Arc::clone(&checker);
        tasks.spawn(async move {
            let gateway: &Gateway = if n % 2 == 0 { &app } else { &other };
            consume(gateway, &checker, n as u64).await;
        });
    }
    // In the middle of it.
    let (deadline, acked) = (Deadline::start(), || checker.acked.lock().unwrap().len());
    while acked() < PUBLISHERS {
        deadline.check(|| format!("{} were acked, not {PUBLISHERS}", acked()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    victim.kill();
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    assert_eq!(checker.missing(), [] as [i64; 0]);
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
