//! What is not there, and names that nothing can have.

use super::check::check;
use super::table::{Row, post, send};

/// Every call on something in a queue: method, path below it, body.
const CALLS: [(&str, &str, &str); 27] = [
    ("GET", "", ""),
    ("PATCH", "", "{}"),
    ("DELETE", "", ""),
    ("POST", "/purge", "{}"),
    ("POST", "/messages", r#"{"body": 1}"#),
    ("GET", "/messages", ""),
    ("GET", "/messages/msg_0000000000001", ""),
    ("DELETE", "/messages/msg_0000000000001", ""),
    ("POST", "/receive", r#"{"wait_seconds": 60}"#),
    ("POST", "/ack", r#"{"receipts": ["r"]}"#),
    ("POST", "/nack", r#"{"receipts": ["r"]}"#),
    ("POST", "/extend", r#"{"receipts": ["r"]}"#),
    ("GET", "/dead-letters", ""),
    ("GET", "/dead-letters/msg_0000000000001", ""),
    ("DELETE", "/dead-letters/msg_0000000000001", ""),
    ("POST", "/dead-letters/redrive", r#"{"filter": {}}"#),
    ("POST", "/dead-letters/purge", "{}"),
    ("GET", "/webhook", ""),
    ("PUT", "/webhook", r#"{"url": "http://127.0.0.1:9/"}"#),
    ("PATCH", "/webhook", "{}"),
    ("DELETE", "/webhook", ""),
    ("GET", "/webhook/attempts", ""),
    ("POST", "/webhook/pause", ""),
    ("POST", "/webhook/resume", ""),
    ("POST", "/webhook/rotate-secret", ""),
    ("POST", "/webhook/test", "{}"),
    (
        "POST",
        "/webhook/resend",
        r#"{"message_ids": ["msg_0000000000001"]}"#,
    ),
];

fn call(method: &str, path: String, body: &str) -> Row {
    let row = send(method, path);
    if body.is_empty() { row } else { row.json(body) }
}

/// Queues and webhooks that are not there.
fn unknown() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, body) in CALLS {
        // The second belongs to the gateway, and is not there either.
        for queue in ["nope", "system.events"] {
            let row = call(method, format!("/v1/queues/{queue}{path}"), body);
            rows.push(row.refused(404, "queue-not-found").needs_postgres());
        }
        if path.starts_with("/webhook") && method != "PUT" {
            let row = call(method, format!("/v1/queues/orders{path}"), body);
            rows.push(row.refused(404, "webhook-not-found").needs_postgres());
        }
    }
    let elsewhere = r#"{"filter": {}, "to_queue": "nope"}"#;
    let redrive = post("/v1/queues/orders/dead-letters/redrive", elsewhere);
    rows.push(redrive.refused(404, "queue-not-found").needs_postgres());
    rows
}

/// Names that nothing can have.
fn no_names() -> Vec<Row> {
    let long = "x".repeat(81);
    let mut rows = Vec::new();
    for name in [
        "%20",
        "a%20b",
        "a%2Fb",
        "a%0Ab",
        "a%7Fb",
        "a%E2%80%AEb",
        "a%E2%80%8Fb",
        "a..b",
        "a%5Cb",
        "-a",
        "%C3%BC",
        "a%3Fb",
        "a;b",
        "a:b",
        "a*",
        "a%25",
        "%2E%2E%2Fx",
        ".hidden",
        &long,
    ] {
        let path = format!("/v1/queues/{name}");
        for row in [
            send("PUT", &path).json("{}"),
            send("GET", &path),
            post(format!("{path}/messages"), r#"{"body": 1}"#),
            send("GET", format!("{path}/messages/msg_0000000000001")),
        ] {
            rows.push(row.invalid("queue"));
        }
        let topic = format!("/v1/topics/{name}");
        rows.push(send("PUT", &topic).json("{}").invalid("topic"));
        let subscription = format!("/v1/topics/shop/subscriptions/{name}");
        rows.push(send("PUT", subscription).json("{}").invalid("subscription"));
    }
    rows.push(send("GET", "/v1/queues//messages").invalid("queue"));
    rows
}

/// Messages that are not there, or cannot be.
fn no_ids() -> Vec<Row> {
    let long = "x".repeat(5000);
    let mut rows = Vec::new();
    for id in [
        "msg_0000000000000",
        "msg_7zzzzzzzzzzzz",
        "msg_zzzzzzzzzzzzz",
        "MSG_0000000000001",
        "msg_1",
        "1",
        "msg_000000000000u",
        "%20",
        "msg_000000000000%31x",
        "a%2Fb",
        &long,
    ] {
        // Only of one that could be an id somebody has to be asked.
        let is_id = matches!(id, "msg_0000000000000" | "msg_7zzzzzzzzzzzz");
        for (folder, code) in [
            ("messages", "message-not-found"),
            ("dead-letters", "dead-letter-not-found"),
        ] {
            for method in ["GET", "DELETE"] {
                let row = send(method, format!("/v1/queues/orders/{folder}/{id}"));
                let row = row.refused(404, code);
                rows.push(if is_id { row.needs_postgres() } else { row });
            }
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_cannot_be_is_refused() {
    check(|_| [unknown(), no_names(), no_ids()].concat()).await;
}
