//! One byte or one message too much, and batches in which one is bad.

use serde_json::{Value, json};

use super::MESSAGES;
use super::check::check;
use super::table::{Row, post, send};

/// It takes 10 bytes.
const TOPIC: &str = "/v1/topics/shop/messages";

/// Bodies one byte over the limit, as bytes and as JSON, alone and in a batch.
fn too_long() -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, limit) in [(MESSAGES, 1 << 20), (TOPIC, 10)] {
        let bytes = "x".repeat(limit + 1);
        // With its quotes.
        let text = json!("x".repeat(limit - 1));
        for content_type in ["text/plain", "application/octet-stream"] {
            let row = send("POST", path).typed(content_type, bytes.clone());
            rows.push(row.at("/body"));
        }
        rows.push(post(path, json!({"body": text}).to_string()).at("/body"));
        let batch = json!({"messages": [{"body": 1}, {"body": text}, {"body": 1}]});
        rows.push(post(path, batch.to_string()).at("/messages/1/body"));
    }
    rows.into_iter()
        .map(|row| row.refused(413, "message-too-large").needs_postgres())
        .collect()
}

/// Batches of too few and too many, and such in which one is bad.
fn batches() -> Vec<Row> {
    let many = |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"body": n})).collect() };
    let among = |one: Value| json!([{"body": 1}, one, {"body": 1}]);
    let mut rows = Vec::new();
    for path in [MESSAGES, TOPIC] {
        for (messages, pointer) in [
            (json!([]), "/messages"),
            (json!(many(1001)), "/messages"),
            (among(json!({})), "/messages/1/body"),
            (
                among(json!({"body": 1, "priority": 10})),
                "/messages/1/priority",
            ),
            (
                among(json!({"body": 1, "headers": {"a": "\n"}})),
                "/messages/1/headers/a",
            ),
            (among(json!({"body": 1, "key": ""})), "/messages/1/key"),
            (among(json!({"body": 1, "colour": 1})), "/messages/1/colour"),
            (among(json!(1)), "/messages/1"),
            (
                among(json!({"messages": [{"body": 1}]})),
                "/messages/1/messages",
            ),
        ] {
            let batch = json!({"messages": messages}).to_string();
            rows.push(post(path, batch).invalid(pointer).needs_postgres());
        }
    }
    let unroutable = json!({"messages": among(json!({"body": 1, "routing_key": "\u{0}"}))});
    let row = post(TOPIC, unroutable.to_string()).invalid("/messages/1/routing_key");
    rows.push(row.needs_postgres());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_too_many_is_refused_whole() {
    check(|_| [too_long(), batches()].concat()).await;
}
