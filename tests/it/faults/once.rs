//! Publishes with an idempotency key, each sent by many until it is known to be done,
//! while answers are lost, gateways die and Postgres crashes: each has its effect once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::load::make_queue;
use crate::store::number;
use crate::support::{
    Chaos, Database, Deadline, Folder, Gateway, Held, Process, Weather, config, eventually,
    http_client, kill_postgres,
};

/// Publishers, each of which sends every key until it has a 2xx.
struct Publishers {
    keys: usize,
    /// Where the gateways are now.
    urls: Mutex<Vec<String>>,
    done: AtomicUsize,
    replayed: AtomicUsize,
    /// By key.
    ids: Mutex<HashMap<usize, HashSet<String>>>,
    statuses: Mutex<HashMap<u16, usize>>,
}

impl Publishers {
    fn new(keys: usize, urls: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            keys,
            urls: Mutex::new(urls.iter().map(|&url| url.to_owned()).collect()),
            done: AtomicUsize::new(0),
            replayed: AtomicUsize::new(0),
            ids: Mutex::default(),
            statuses: Mutex::default(),
        })
    }

    fn start(self: &Arc<Self>, publishers: usize) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for publisher in 0..publishers {
            let this = Arc::clone(self);
            all.spawn(async move {
                let client = http_client();
                for key in 0..this.keys {
                    let mut tries = publisher;
                    while !this.send(&client, key, tries).await {
                        tries += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    this.done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        all
    }

    /// Sends a key once. Whether the answer was a 2xx.
    async fn send(&self, client: &reqwest::Client, key: usize, tries: usize) -> bool {
        let url = {
            let urls = self.urls.lock().unwrap();
            urls[tries % urls.len()].clone()
        };
        let request = client
            .post(format!("{url}/v1/queues/work/messages"))
            .header("content-type", "application/json")
            .header("idempotency-key", format!("key-{key}"))
            .body(json!({ "body": key }).to_string());
        // Some do not wait for their answer, at first.
        let patience = if tries % 7 == 3 { 4 } else { 20_000 };
        let Ok(Ok(response)) =
            tokio::time::timeout(Duration::from_millis(patience), request.send()).await
        else {
            return false;
        };
        let status = response.status();
        *self
            .statuses
            .lock()
            .unwrap()
            .entry(status.as_u16())
            .or_default() += 1;
        let replayed = response.headers().contains_key("idempotency-replayed");
        let Ok(text) = response.text().await else {
            return false;
        };
        match status {
            StatusCode::CREATED => {}
            StatusCode::SERVICE_UNAVAILABLE => return false,
            StatusCode::CONFLICT => {
                assert!(text.contains("idempotency-key-in-use"), "{text}");
                return false;
            }
            other => panic!("{other} {text}"),
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        let id = answer["messages"][0]["id"].as_str().unwrap().to_owned();
        let mut ids = self.ids.lock().unwrap();
        ids.entry(key).or_default().insert(id);
        self.replayed
            .fetch_add(usize::from(replayed), Ordering::SeqCst);
        true
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until so many have a 2xx.
    async fn until(&self, done: usize) {
        eventually("they get on", async || self.done() >= done).await;
    }

    async fn end(&self, publishers: &mut JoinSet<()>) {
        while let Some(ended) = publishers.join_next().await {
            ended.unwrap();
        }
    }

    /// One id for each key, and nothing else in the queue.
    fn check(&self, messages: &[Value]) {
        let statuses = self.statuses.lock().unwrap().clone();
        let ids = self.ids.lock().unwrap();
        assert_eq!(ids.len(), self.keys);
        for (key, ids) in ids.iter() {
            assert_eq!(ids.len(), 1, "{key}: {ids:?} {statuses:?}");
        }
        assert!(self.replayed.load(Ordering::SeqCst) > 0, "{statuses:?}");
        let received: HashMap<&str, &Value> = messages
            .iter()
            .map(|message| (message["id"].as_str().unwrap(), &message["body"]))
            .collect();
        assert_eq!(received.len(), messages.len());
        for (key, ids) in ids.iter() {
            let id = ids.iter().next().unwrap();
            let body = received.get(id.as_str());
            assert_eq!(body, Some(&&json!(key)), "{key} as {id}: {statuses:?}");
        }
        assert_eq!(messages.len(), self.keys, "{statuses:?}");
    }
}

/// Everything in the queue.
async fn drain(url: &str) -> Vec<Value> {
    let client = http_client();
    let deadline = Deadline::start();
    let mut all = Vec::new();
    loop {
        let response = client
            .post(format!("{url}/v1/queues/work/receive"))
            .timeout(Duration::from_secs(30))
            .header("content-type", "application/json")
            .body(r#"{"max_messages": 1000, "lease_seconds": 3600, "wait_seconds": 1}"#)
            .send()
            .await
            .unwrap();
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            // The last of the cut connections.
            deadline.check(|| format!("503 for ever, with {} received", all.len()));
            continue;
        }
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        let messages = answer["messages"].as_array().unwrap().clone();
        if messages.is_empty() {
            return all;
        }
        all.extend(messages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_by_twenty_publishers_each_over_lost_answers_are_a_thousand_messages() {
    const KEYS: usize = 1000;
    const PUBLISHERS: usize = 20;
    let database = Database::migrated().await;
    let chaos = Chaos::over(&database).await;
    let one = Gateway::start(&config(chaos.url())).await;
    let two = Gateway::start(&config(chaos.url())).await;
    one.queue("work", json!({})).await;
    let (first, second) = (one.url(""), two.url(""));
    let publishers = Publishers::new(KEYS, &[&first, &second]);
    let mut all = publishers.start(PUBLISHERS);
    // What Postgres answers is lost: in the middle, at once, or without a word.
    let weathers = [
        Weather::Halfway(0),
        Weather::Halfway(40),
        Weather::NoAnswers,
        Weather::Halfway(3),
        Weather::Refusing,
        Weather::NoAnswers,
    ];
    for (n, weather) in weathers.into_iter().cycle().take(18).enumerate() {
        publishers.until((n + 1) * KEYS).await;
        let before = chaos.connections();
        chaos.weather(weather);
        match weather {
            // Statements that get no answer are given up after a while.
            Weather::NoAnswers => chaos.silence_old(),
            Weather::Refusing => chaos.reset(),
            _ => {}
        }
        eventually("it is noticed", async || chaos.connections() > before).await;
        chaos.weather(Weather::Fair);
    }
    publishers.end(&mut all).await;
    publishers.check(&drain(&first).await);
    let stored = number(&database, "SELECT count(*) FROM postrider.messages").await;
    assert_eq!(stored, i64::try_from(KEYS).unwrap());
    one.assert_conserved(&database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_a_gateway_in_the_middle_leaves_no_key_behind() {
    const KEYS: usize = 300;
    let database = Database::migrated().await;
    let url = database.url();
    let start = || Process::start(&["--database-url", &url]);
    let (stays, mut dies) = (start(), start());
    make_queue(&stays.url).await;
    let publishers = Publishers::new(KEYS, &[&stays.url, &dies.url]);
    let mut all = publishers.start(8);
    for round in 1..=4 {
        publishers.until(round * KEYS).await;
        dies.kill();
        dies = start();
        publishers.urls.lock().unwrap()[1].clone_from(&dies.url);
    }
    publishers.end(&mut all).await;
    publishers.check(&drain(&stays.url).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_in_the_middle_leaves_no_key_behind() {
    const KEYS: usize = 300;
    let folder = Folder::new("once");
    let data_dir = folder.path().join("data");
    let process = Process::start(&["--data-dir", data_dir.to_str().unwrap()]);
    make_queue(&process.url).await;
    let publishers = Publishers::new(KEYS, &[&process.url]);
    let mut all = publishers.start(8);
    for round in 1..=3 {
        publishers.until(round * KEYS).await;
        kill_postgres(&data_dir);
    }
    publishers.end(&mut all).await;
    publishers.check(&drain(&process.url).await);
}

/// In the middle of its transaction, with the key's lock: Postgres ends it after ten
/// seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_in_the_middle_keeps_a_key_for_seconds_and_stores_nothing() {
    let database = Database::migrated().await;
    let url = database.url();
    let start = || Process::start(&["--database-url", &url]);
    let (hangs, works) = (start(), start());
    make_queue(&hangs.url).await;
    let publish = |gateway: &Process| {
        http_client()
            .post(format!("{}/v1/queues/work/messages", gateway.url))
            .header("content-type", "application/json")
            .header("idempotency-key", "k")
            .body(r#"{"body": 1}"#)
            .send()
    };
    // Its answer cannot be kept yet, so that is where it is.
    let held = Held::table(&database, "idempotency", "EXCLUSIVE").await;
    let mut first = JoinSet::new();
    first.spawn(publish(&hangs));
    database.until_stuck("-- keep_answers", 1).await;
    hangs.hang();
    held.let_go().await;
    let refused = publish(&works).await.unwrap();
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let mut stored = None;
    eventually("the key is free again", async || {
        let answer = publish(&works).await.unwrap();
        let is_stored = answer.status() == StatusCode::CREATED;
        if is_stored {
            assert!(!answer.headers().contains_key("idempotency-replayed"));
            stored = Some(answer.text().await.unwrap());
        }
        is_stored
    })
    .await;
    hangs.signal(Signal::CONT);
    let late = first.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    let again = publish(&hangs).await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.text().await.ok(), stored);
    let messages = "SELECT count(*) FROM postrider.messages";
    assert_eq!(number(&database, messages).await, 1);
}
