//! Publishes while something breaks, and what must be true of them afterwards.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::support::http_client;

/// What a load of publishes brought about.
#[derive(Default)]
pub(super) struct Load {
    pub(super) next: AtomicU64,
    pub(super) stop: AtomicBool,
    /// Body by id, for each 201.
    pub(super) stored: Mutex<HashMap<String, u64>>,
    pub(super) statuses: Mutex<HashMap<u16, usize>>,
}

impl Load {
    /// Publishes from eight clients until told to stop. A gateway that is away
    /// is tried again.
    pub(super) fn start(self: &Arc<Self>, url: &str) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (load, url) = (Arc::clone(self), format!("{url}/v1/queues/work/messages"));
            clients.spawn(async move {
                let client = http_client();
                while !load.stop.load(Ordering::SeqCst) {
                    let body = load.next.fetch_add(1, Ordering::SeqCst);
                    let request = client
                        .post(&url)
                        .header("content-type", "application/json")
                        .body(json!({"body": body}).to_string())
                        .timeout(Duration::from_secs(20));
                    let Ok(response) = request.send().await else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let status = response.status();
                    *load
                        .statuses
                        .lock()
                        .await
                        .entry(status.as_u16())
                        .or_default() += 1;
                    if status == StatusCode::CREATED
                        && let Ok(text) = response.text().await
                    {
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        let id = answer["messages"][0]["id"].as_str().unwrap().to_owned();
                        load.stored.lock().await.insert(id, body);
                    } else if status == StatusCode::SERVICE_UNAVAILABLE {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        }
        clients
    }

    pub(super) async fn stored(&self) -> usize {
        self.stored.lock().await.len()
    }

    pub(super) async fn end(&self, mut clients: JoinSet<()>) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(result) = clients.join_next().await {
            result.unwrap();
        }
    }

    /// Every publish was stored, or refused for the time being.
    pub(super) async fn assert_stored_or_refused(&self) {
        let statuses = self.statuses.lock().await;
        assert!(
            statuses.keys().all(|status| matches!(status, 201 | 503)),
            "{statuses:?}"
        );
    }

    /// Receives everything and holds it against what was published: nothing
    /// that was acknowledged is lost, nothing comes that was never sent, and
    /// nothing comes twice.
    pub(super) async fn check(&self, url: &str) {
        let client = http_client();
        let call = async |verb: &str, body: Value| -> Value {
            loop {
                let response = client
                    .post(format!("{url}/v1/queues/work/{verb}"))
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
                    .await
                    .unwrap();
                // A connection that the last fault killed, noticed only now.
                if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                    assert_eq!(response.status(), StatusCode::OK);
                    return serde_json::from_str(&response.text().await.unwrap()).unwrap();
                }
            }
        };
        let mut received = HashMap::new();
        loop {
            let answer = call("receive", json!({"max_messages": 1000, "wait_seconds": 1})).await;
            let messages = answer["messages"].as_array().unwrap();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                let id = message["id"].as_str().unwrap().to_owned();
                let before = received.insert(id, message["body"].as_u64().unwrap());
                assert_eq!(before, None, "twice: {message}");
            }
            let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
            call("ack", json!({"receipts": receipts})).await;
        }
        let sent = self.next.load(Ordering::SeqCst);
        for (id, body) in self.stored.lock().await.iter() {
            assert_eq!(received.get(id), Some(body), "lost: {id}");
        }
        let bodies: HashSet<u64> = received.values().copied().collect();
        assert_eq!(bodies.len(), received.len(), "one publish was stored twice");
        assert!(bodies.iter().all(|body| *body < sent), "never published");
    }
}

pub(super) async fn make_queue(url: &str) {
    let response = http_client()
        .put(format!("{url}/v1/queues/work"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

pub(super) async fn status_of(url: &str) -> u16 {
    match http_client()
        .get(url)
        .timeout(Duration::from_secs(10))
        .send()
        .await
    {
        Ok(response) => response.status().as_u16(),
        Err(_) => 0,
    }
}
