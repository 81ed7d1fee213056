//! `kill -9` in the middle of a fan-out to webhooks.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Process, Received, Receiver, Reply, eventually, http_client};

const MESSAGES: usize = 400;
const MOST: usize = 8;

async fn call(method: reqwest::Method, url: String, body: Value) -> Value {
    let request = http_client()
        .request(method, &url)
        .header("content-type", "application/json")
        .body(body.to_string());
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_the_middle_of_a_fan_out_delivers_all_and_little_of_it_twice() {
    use reqwest::Method;
    let database = Database::migrated().await;
    let database_url = database.url();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/secret.key");
    let start = || {
        Process::start(&[
            "--database-url",
            &database_url,
            "--secret-key-file",
            key,
            "--webhook-allow",
            "127.0.0.0/8",
        ])
    };
    let first = start();
    let receiver = Receiver::start().await;
    receiver.usually(Reply::status(204).after(Duration::from_millis(60)));
    // Each fails now and then.
    for path in ["/a", "/b"] {
        for _ in 0..20 {
            receiver.next_on(path, Reply::status(500));
        }
    }
    let url = first.url.clone();
    call(Method::PUT, format!("{url}/v1/topics/news"), json!({})).await;
    for name in ["a", "b"] {
        // Leases shorter than the test, and attempts for the kills.
        let queue = json!({
            "max_attempts": 30, "backoff": {"initial_seconds": 0.1, "max_seconds": 0.1},
        });
        call(Method::PUT, format!("{url}/v1/queues/{name}"), queue).await;
        let webhook = json!({
            "url": receiver.url(&format!("/{name}")), "timeout_seconds": 1,
            "max_in_flight": MOST,
            "circuit_breaker": {"failure_rate": 1, "window": 1000, "min_calls": 1000},
        });
        let path = format!("{url}/v1/queues/{name}/webhook");
        call(Method::PUT, path, webhook).await;
        let path = format!("{url}/v1/topics/news/subscriptions/{name}");
        call(Method::PUT, path, json!({"queue": name})).await;
    }
    let mut ids = Vec::new();
    for some in 0..MESSAGES / 100 {
        let messages: Vec<Value> = (0..100).map(|n| json!({"body": some * 100 + n})).collect();
        let path = format!("{url}/v1/topics/news/messages");
        let stored = call(Method::POST, path, json!({"messages": messages})).await;
        let stored = stored["messages"].as_array().unwrap();
        ids.extend(stored.iter().map(|m| m["id"].as_str().unwrap().to_owned()));
    }
    receiver.wait_for(MESSAGES / 4).await;
    // Both lanes are the first's, or one is just being handed over.
    let second = start();
    first.kill();
    let before = receiver.requests().len();
    assert!(before < 2 * MESSAGES, "it was in the middle of it");

    let url = second.url.clone();
    for name in ["a", "b"] {
        eventually("the queue is empty", async || {
            let path = format!("{url}/v1/queues/{name}");
            let counts = call(Method::GET, path, Value::Null).await;
            ["ready", "leased", "delayed"]
                .iter()
                .all(|c| counts[c] == 0)
        })
        .await;
    }
    for name in ["a", "b"] {
        let path = format!("/{name}");
        let mut pushes: HashMap<String, usize> = HashMap::new();
        let requests: Vec<Received> = receiver.requests();
        let mine = requests.iter().filter(|r| r.path == path);
        for request in mine {
            let id = request.header("webhook-id").unwrap().to_owned();
            *pushes.entry(id).or_default() += 1;
        }
        let dead = call(
            Method::GET,
            format!("{url}/v1/queues/{name}/dead-letters"),
            Value::Null,
        )
        .await;
        assert_eq!(dead["dead_letters"], json!([]));
        for id in &ids {
            assert!(pushes.contains_key(id), "{id} was never pushed to {name}");
        }
        assert_eq!(pushes.len(), MESSAGES);
        // 20 were failures; the kill makes twice what was on its way, and what
        // was delivered but not acked yet was that too.
        let again = pushes.values().sum::<usize>() - MESSAGES;
        assert!(
            (20..=20 + MOST).contains(&again),
            "{again} pushes more than messages to {name}"
        );
    }
    assert!(receiver.most_at_once() <= 4 * MOST);
}
