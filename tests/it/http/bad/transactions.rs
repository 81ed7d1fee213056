//! Transactions and idempotency keys that are no good.

use serde_json::{Value, json};

use super::MESSAGES;
use super::check::{There, check};
use super::table::{Row, post};

const PATH: &str = "/v1/transactions";

fn transact(steps: &Value) -> Row {
    post(PATH, steps.to_string())
}

fn keys() -> Vec<Row> {
    let mut rows = Vec::new();
    let steps = r#"{"publishes": [{"queue": "orders", "message": {"body": 1}}]}"#;
    for (path, body) in [
        (MESSAGES, r#"{"body": 1}"#),
        ("/v1/topics/shop/messages", r#"{"body": 1}"#),
        (
            "/v1/queues/orders/dead-letters/redrive",
            r#"{"filter": {}}"#,
        ),
        (
            "/v1/queues/pushed/webhook/resend",
            r#"{"message_ids": ["x"]}"#,
        ),
        (PATH, steps),
    ] {
        for key in [
            "",
            "a b",
            "\"a",
            "\"a\"b\"",
            "\"a\\b\"",
            "\"\"",
            &"k".repeat(256),
        ] {
            let row = post(path, body).header("idempotency-key", key);
            rows.push(row.refused(400, "invalid-idempotency-key"));
        }
        // What is wrong with the request is said of it with a key, too.
        let row = post(path, "{").header("idempotency-key", "a");
        rows.push(row.refused(400, "malformed-json").or_unavailable());
    }
    rows
}

fn parts(there: &There) -> Vec<Row> {
    let lease = |queue: &str, receipt: &str| json!({"queue": queue, "receipt": receipt});
    let publish = json!({"queue": "orders", "message": {"body": 1}});
    let with = |part: Value| json!({"publishes": [publish, part]});
    vec![
        transact(&json!({})).invalid(""),
        transact(&json!({"publishes": vec![publish.clone(); 1001]})).invalid(""),
        transact(&json!({"more": []})).invalid("/more"),
        transact(&json!({"acks": {}})).invalid("/acks"),
        transact(&json!({"acks": [lease("orders", "x")]}))
            .refused(422, "receipt-malformed")
            .at("/acks/0/receipt"),
        transact(&json!({"acks": [lease("..", &there.receipt)]})).invalid("/acks/0/queue"),
        transact(&json!({"acks": [lease("other", &there.receipt)], "publishes": [publish]}))
            .refused(404, "receipt-not-found")
            .at("/acks/0/receipt")
            .needs_postgres(),
        transact(&json!({"acks": [lease("orders", &there.older)], "publishes": [publish]}))
            .refused(409, "lease-lost")
            .at("/acks/0")
            .needs_postgres(),
        transact(&json!({"nacks": [lease("slow", &there.expired)], "publishes": [publish]}))
            .refused(409, "lease-expired")
            .at("/nacks/0")
            .needs_postgres(),
        transact(&json!({"claims": [{"key": "k", "token": "x"}]})).invalid("/claims/0/token"),
        transact(
            &json!({"claims": [{"key": "k", "token": "clm_0000000000001"}],
            "publishes": [publish]}),
        )
        .refused(409, "claim-lost")
        .at("/claims/0")
        .needs_postgres(),
        transact(&with(json!({"queue": "nowhere", "message": {"body": 1}})))
            .refused(404, "queue-not-found")
            .at("/publishes/1/queue")
            .needs_postgres(),
        transact(&with(json!({"topic": "nowhere", "message": {"body": 1}})))
            .refused(404, "topic-not-found")
            .at("/publishes/1/topic")
            .needs_postgres(),
        transact(&with(
            json!({"topic": "shop", "message": {"body": "eleven letters"}}),
        ))
        .refused(413, "message-too-large")
        .at("/publishes/1/message/body")
        .needs_postgres(),
        transact(&with(
            json!({"queue": "orders", "message": {"body": 1, "key": "\0"}}),
        ))
        .invalid("/publishes/1/message/key")
        .needs_postgres(),
        transact(&with(json!({"queue": "orders", "message": {}})))
            .invalid("/publishes/1/message/body"),
        transact(&with(json!({"queue": "orders"}))).invalid("/publishes/1"),
        transact(&with(json!({"message": {"body": 1}}))).invalid("/publishes/1"),
    ]
}

/// Numbers outside their range, and what stands beside them.
fn numbers(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    let publish = json!({"queue": "orders", "message": {"body": 1}});
    let long = "x".repeat(1001);
    for (field, values) in [
        (
            "delay_seconds",
            json!([-1, -0.001, 31_536_000.001, 1e300, "5", true, []]),
        ),
        ("reason", json!(["a\0b", long, 1])),
        ("dead_letter", json!([1, "true", null])),
    ] {
        for value in values.as_array().unwrap() {
            let nack = json!({"queue": "orders", "receipt": there.receipt, field: value});
            let steps = json!({"nacks": [nack], "publishes": [publish]});
            rows.push(transact(&steps).invalid(format!("/nacks/0/{field}")));
        }
    }
    let both = json!({"queue": "orders", "receipt": there.receipt, "delay_seconds": 1,
        "dead_letter": true});
    rows.push(transact(&json!({"nacks": [both]})).invalid("/nacks/0/delay_seconds"));
    for (field, values) in [
        ("priority", json!([-1, 10, 1.5, 99_999, 1e300, "5", null])),
        ("delay_seconds", json!([-1, 31_536_000.001, 1e300, "5"])),
        ("ttl_seconds", json!([-1, 0, 0.0001, 31_536_001, -1e300])),
        ("deliver_at", json!(["2999-01-01T00:00:00Z", 1_700_000_000])),
    ] {
        for value in values.as_array().unwrap() {
            for (kind, name) in [("queue", "orders"), ("topic", "shop")] {
                let message = json!({"body": 1, field: value});
                let steps = json!({"publishes": [publish, {kind: name, "message": message}]});
                let row = transact(&steps).invalid(format!("/publishes/1/message/{field}"));
                // What is no such number is refused unasked, what is one but out of
                // range once it is known where it goes.
                rows.push(row.or_unavailable());
            }
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_stores_nothing() {
    check(|_| keys()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_cannot_be_done_change_nothing() {
    check(|there| [parts(there), numbers(there)].concat()).await;
}
