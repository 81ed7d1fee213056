//! Ordered and fair queues: what may be received when, through every way that a
//! message goes, and what is left when a gateway ends in the middle.

mod basics;
mod blocked;
mod fair;
mod held;
mod races;
mod runs;
mod ways;
mod workload;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::execute;
use crate::support::{Database, Gateway};

/// The settings of an ordered queue that does not rest after failures.
pub(super) fn ordered() -> Value {
    json!({"ordered": true, "backoff": {"initial_seconds": 0, "max_seconds": 0}})
}

/// Publishes bodies with one key, in order.
pub(super) async fn publish_all(gateway: &Gateway, queue: &str, key: &str, bodies: &[i64]) {
    for body in bodies {
        gateway
            .publish(queue, json!({"body": body, "key": key}))
            .await;
    }
}

/// Receives what is there now, one by one: of each key one.
pub(super) async fn receive_now(gateway: &Gateway, queue: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let messages = gateway.receive(queue, json!({})).await;
        if messages.is_empty() {
            return all;
        }
        all.extend(messages);
    }
}

/// The bodies of messages.
pub(super) fn bodies(messages: &[Value]) -> Vec<i64> {
    messages
        .iter()
        .map(|message| message["body"].as_i64().unwrap())
        .collect()
}

/// Acks a message.
pub(super) async fn ack(gateway: &Gateway, queue: &str, message: &Value) {
    gateway
        .settle("ack", queue, &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
}

/// Nacks a message, with these fields.
pub(super) async fn nack(gateway: &Gateway, queue: &str, message: &Value, more: Value) {
    gateway
        .settle("nack", queue, &[&message["receipt"]], more)
        .await
        .expect(StatusCode::OK);
}

/// Ends the rests and delays that are under way. Not below now: gateways look from
/// where they have been.
pub(super) async fn end_delays(database: &Database) {
    let now = "UPDATE postrider.parked SET wake_at = now() WHERE token = 0";
    assert!(execute(database, now).await > 0, "nothing rests");
}

/// Receives the next message, which has to be this one, and acks it.
pub(super) async fn ack_next(gateway: &Gateway, queue: &str, body: i64) {
    let message = gateway.receive_one(queue).await;
    assert_eq!(message["body"], body, "{message}");
    ack(gateway, queue, &message).await;
}
