//! Requests and replies that cannot be.

use serde_json::{Value, json};

use super::check::{There, check};
use super::table::{Row, post, send};

const REQUESTS: &str = "/v1/queues/orders/requests";
const REPLY: &str = "/v1/queues/orders/reply";

/// Requests, and where they are wrong.
fn requests() -> Vec<Row> {
    let mut cases: Vec<(Value, &str)> = Vec::new();
    for timeout in [
        json!(0),
        json!(-1),
        json!(0.0001),
        json!(3600.001),
        json!(1e300),
        json!("5"),
    ] {
        cases.push((
            json!({"body": 1, "timeout_seconds": timeout}),
            "/timeout_seconds",
        ));
    }
    for (field, value) in [
        ("delay_seconds", json!(1)),
        ("deliver_at", json!("2026-01-01T00:00:00Z")),
        ("ttl_seconds", json!(1)),
        ("dedup_id", json!("a")),
        ("correlation_id", json!("a")),
        ("reply_to", json!("a")),
        ("routing_key", json!("a")),
        ("mandatory", json!(true)),
        ("priority", json!(10)),
        ("key", json!("")),
        ("content_type", json!("text/plain")),
    ] {
        cases.push((json!({"body": 1, field: value}), field));
    }
    cases.push((json!({"timeout_seconds": 1}), "/body"));
    cases.push((json!({"messages": [{"body": 1}, {"body": 2}]}), "/messages"));
    cases
        .into_iter()
        .map(|(message, pointer)| {
            let pointer = format!("/{}", pointer.trim_start_matches('/'));
            post(REQUESTS, message.to_string())
                .invalid(pointer)
                .needs_postgres()
        })
        .collect()
}

/// A time-out where nothing is waited for, and what is no body of a request.
fn elsewhere() -> Vec<Row> {
    let timeout = r#"{"body": 1, "timeout_seconds": 1}"#;
    let batch = r#"{"messages": [{"body": 1}, {"body": 1, "timeout_seconds": 1}]}"#;
    vec![
        post(super::MESSAGES, timeout)
            .invalid("/timeout_seconds")
            .needs_postgres(),
        post(super::MESSAGES, batch)
            .invalid("/messages/1/timeout_seconds")
            .needs_postgres(),
        post("/v1/topics/shop/messages", timeout)
            .invalid("/timeout_seconds")
            .needs_postgres(),
        send("POST", REQUESTS).refused(415, "unsupported-media-type"),
        send("POST", REQUESTS)
            .typed("text/plain", "x")
            .header("postrider-timeout-seconds", "soon")
            .invalid("postrider-timeout-seconds")
            .needs_postgres(),
        send("POST", REQUESTS)
            .typed("text/plain", "x")
            .header("postrider-timeout-seconds", "0")
            .invalid("postrider-timeout-seconds")
            .needs_postgres(),
        send("POST", format!("{REQUESTS}?wait=1"))
            .json(r#"{"body": 1}"#)
            .refused(400, "invalid-query"),
    ]
}

/// Replies, and where they are wrong.
fn replies(there: &There) -> Vec<Row> {
    let good = &there.receipt;
    let reply = |body: Value| post(REPLY, body.to_string());
    let mut rows = vec![
        reply(json!({"receipt": good})).invalid("/body"),
        reply(json!({"receipt": good, "body": 1, "body_base64": ""})).invalid("/body_base64"),
        reply(json!({"receipt": good, "body": 1, "content_type": "a/b"})).invalid("/content_type"),
        reply(json!({"receipt": good, "body_base64": "?"})).invalid("/body_base64"),
        reply(json!({"receipt": good, "body": 1, "key": "k"})).invalid("/key"),
        reply(json!({"receipt": 1, "body": 1})).invalid("/receipt"),
        reply(json!({"receipts": [good], "body": 1})).invalid("/receipts"),
        send("POST", REPLY)
            .typed("text/plain", "x")
            .refused(415, "unsupported-media-type"),
        post(REPLY, "{").refused(400, "malformed-json"),
    ];
    let large = "x".repeat(1 << 20);
    for row in [
        reply(json!({"receipt": good, "body": 1, "headers": {"a b": "c"}})).invalid("/headers/a b"),
        reply(json!({"receipt": good, "body_base64": "", "content_type": ""}))
            .invalid("/content_type"),
        reply(json!({"receipt": good, "body": large}))
            .refused(413, "message-too-large")
            .at("/body"),
        reply(json!({"receipt": "garbage", "body": 1})).refused(422, "receipt-malformed"),
        reply(json!({"receipt": there.expired, "body": 1})).refused(404, "receipt-not-found"),
        // Of a message that is no request, whatever became of the lease.
        reply(json!({"receipt": good, "body": 1})).refused(422, "reply-not-asked"),
        reply(json!({"receipt": there.older, "body": 1})).refused(422, "reply-not-asked"),
    ] {
        rows.push(row.needs_postgres());
    }
    rows
}

/// What is the id of no request.
fn ids() -> Vec<Row> {
    let long = format!("req_{}", "A".repeat(3000));
    let mut rows = Vec::new();
    for id in [
        "req_",
        "req_AQ",
        "x",
        "%20",
        "msg_0000000000001",
        "a%2Fb",
        &long,
    ] {
        let row = send("GET", format!("/v1/replies/{id}"));
        rows.push(row.refused(404, "reply-not-found"));
    }
    for wait in ["-1", "60.001", "1e300", "nan"] {
        let row = send("GET", format!("/v1/replies/req_AQ?wait_seconds={wait}"));
        rows.push(row.invalid("wait_seconds"));
    }
    for query in ["wait_seconds=soon", "wait=1", "wait_seconds="] {
        let row = send("GET", format!("/v1/replies/req_AQ?{query}"));
        rows.push(row.refused(400, "invalid-query"));
    }
    rows.push(send("GET", "/v1/replies/%ff").refused(400, "invalid-path"));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_replies_that_cannot_be_are_refused() {
    check(|there| [requests(), elsewhere(), replies(there), ids()].concat()).await;
}
