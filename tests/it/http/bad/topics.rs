//! What topics and subscriptions refuse: nothing changes, and the answer is
//! documented.

use serde_json::json;

use super::check::check;
use super::table::{Row, post, send};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
/// No content type.
const NONE: &str = "";

/// A content type and a body.
type Body = (&'static str, &'static [u8]);

/// Method, path and body; status and code.
const CASES: &[(&str, &str, Body, u16, &str)] = &[
    ("PUT", "/v1/topics/a%20b", (NONE, b""), 422, "invalid"),
    ("PUT", "/v1/topics/a..b", (NONE, b""), 422, "invalid"),
    ("PUT", "/v1/topics/system.mine", (NONE, b""), 422, "invalid"),
    (
        "PATCH",
        "/v1/topics/system.events",
        (JSON, b"{}"),
        422,
        "invalid",
    ),
    (
        "DELETE",
        "/v1/topics/system.events",
        (NONE, b""),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"retention_seconds": -1}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"retention_seconds": 31536001}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"max_message_bytes": 0}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"max_message_bytes": 8388609}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"dedup_window_seconds": 0}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        (JSON, br#"{"schema": {}}"#),
        422,
        "invalid",
    ),
    ("PUT", "/v1/topics/a", (JSON, b"[]"), 422, "invalid"),
    ("PUT", "/v1/topics/a", (JSON, b"{"), 400, "malformed-json"),
    (
        "PUT",
        "/v1/topics/a",
        (NONE, b"{}"),
        415,
        "unsupported-media-type",
    ),
    ("PUT", "/v1/topics/a?x=1", (NONE, b""), 400, "invalid-query"),
    (
        "PATCH",
        "/v1/topics/none",
        (JSON, b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop",
        (TEXT, b"{}"),
        415,
        "unsupported-media-type",
    ),
    (
        "PATCH",
        "/v1/topics/shop",
        (JSON, br#"{"x": 1}"#),
        422,
        "invalid",
    ),
    (
        "GET",
        "/v1/topics/none",
        (NONE, b""),
        404,
        "topic-not-found",
    ),
    (
        "GET",
        "/v1/topics?limit=0",
        (NONE, b""),
        400,
        "invalid-query",
    ),
    (
        "GET",
        "/v1/topics?cursor=x",
        (NONE, b""),
        400,
        "invalid-cursor",
    ),
    (
        "DELETE",
        "/v1/topics/none",
        (NONE, b""),
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/none/messages",
        (JSON, br#"{"body": 1}"#),
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (NONE, b"1"),
        415,
        "unsupported-media-type",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (JSON, br#"{"body": 12345678901}"#),
        413,
        "message-too-large",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (JSON, br#"{"body": 1, "priority": 10}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (JSON, br#"{"body": 1, "mandatory": 1}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (JSON, br#"{"body": 1, "routing_key": 1}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        (JSON, br#"{"messages": [{"body": 1}], "routing_key": "a"}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/none/explain",
        (JSON, br#"{"body": 1}"#),
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/shop/explain",
        (JSON, b"{}"),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/explain",
        (JSON, br#"{"body": 12345678901}"#),
        413,
        "message-too-large",
    ),
    (
        "POST",
        "/v1/queues/work/messages",
        (JSON, br#"{"body": 1, "routing_key": "a"}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/queues/work/messages",
        (JSON, br#"{"body": 1, "mandatory": true}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/none/subscriptions/s",
        (JSON, b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        (JSON, br#"{"queue": "none"}"#),
        404,
        "queue-not-found",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        (JSON, br#"{"queue": "a b"}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        (JSON, br#"{"filter": []}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        (JSON, br#"{"filter": {"x": 1}}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        (JSON, br#"{"webhooks": {}}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/taken",
        (JSON, b"{}"),
        409,
        "queue-exists",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/none",
        (JSON, b"{}"),
        404,
        "subscription-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/none/subscriptions/s",
        (JSON, b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/s",
        (JSON, br#"{"queue": "none"}"#),
        404,
        "queue-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/s",
        (JSON, br#"{"queue": null}"#),
        422,
        "invalid",
    ),
    (
        "GET",
        "/v1/topics/shop/subscriptions/none",
        (NONE, b""),
        404,
        "subscription-not-found",
    ),
    (
        "GET",
        "/v1/topics/none/subscriptions",
        (NONE, b""),
        404,
        "topic-not-found",
    ),
    (
        "DELETE",
        "/v1/topics/shop/subscriptions/none",
        (NONE, b""),
        404,
        "subscription-not-found",
    ),
    (
        "DELETE",
        "/v1/queues/work",
        (NONE, b""),
        409,
        "queue-in-use",
    ),
];

/// Whether what is stored decides: whether it is there, what it takes, what it is
/// fed by.
fn is_about_what_is_stored(method: &str, path: &str, status: u16) -> bool {
    match status {
        404 | 409 | 413 => true,
        422 => {
            method == "POST"
                || (method, path) == ("PATCH", "/v1/topics/shop")
                || (method, path) == ("PATCH", "/v1/topics/shop/subscriptions/s")
        }
        _ => false,
    }
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = CASES
        .iter()
        .map(|(method, path, (content_type, body), status, code)| {
            let row = send(method, *path);
            let row = match *content_type {
                NONE => row.untyped(*body),
                content_type => row.typed(content_type, *body),
            };
            let row = row.refused(*status, code);
            if is_about_what_is_stored(method, path, *status) {
                row.needs_postgres()
            } else {
                row
            }
        })
        .collect();
    let long_key = json!({"body": 1, "routing_key": "x".repeat(256)}).to_string();
    let long_name = format!("/v1/topics/{}/subscriptions/sub-123", "t".repeat(75));
    let messages = "/v1/topics/shop/messages";
    rows.extend([
        post(messages, long_key)
            .refused(422, "invalid")
            .needs_postgres(),
        post(messages, r#"{"messages": []}"#)
            .refused(422, "invalid")
            .needs_postgres(),
        send("PUT", long_name)
            .json("{}")
            .refused(422, "invalid")
            .needs_postgres(),
        send("PUT", "/v1/topics/shop/subscriptions/s")
            .json(r#"{"filter": {"routing_keys": "a"}}"#)
            .invalid("/filter/routing_keys"),
    ]);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_topics_is_documented_and_changes_nothing() {
    check(|_| rows()).await;
}
