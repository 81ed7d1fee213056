//! What is not there.

use serde_json::json;

use super::check::{There, check};
use super::table::{Row, post, send};

/// Every call on something in a queue: method, path below it, body.
const CALLS: [(&str, &str, &str); 31] = [
    ("GET", "", ""),
    ("PATCH", "", "{}"),
    ("DELETE", "", ""),
    ("POST", "/purge", "{}"),
    ("GET", "/blocked-keys", ""),
    ("POST", "/unblock", r#"{"keys": ["k"]}"#),
    ("POST", "/messages", r#"{"body": 1}"#),
    ("GET", "/messages", ""),
    ("GET", "/messages/msg_0000000000001", ""),
    ("DELETE", "/messages/msg_0000000000001", ""),
    ("POST", "/requests", r#"{"body": 1}"#),
    ("POST", "/reply", r#"{"receipt": "r", "body": 1}"#),
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

/// A dead letter that was put back is none any more.
fn put_back(there: &There) -> Vec<Row> {
    let letters = "/v1/queues/revived/dead-letters";
    let ids = json!({"ids": [there.revived]}).to_string();
    let one = format!("{letters}/{}", there.revived);
    [
        post(format!("{letters}/redrive"), ids),
        send("GET", &one),
        send("DELETE", &one),
    ]
    .map(|row| row.refused(404, "dead-letter-not-found").needs_postgres())
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_cannot_be_is_refused() {
    check(|there| [unknown(), no_ids(), put_back(there)].concat()).await;
}
