//! What topics and subscriptions refuse: nothing changes, and the answer is
//! documented.

use serde_json::json;

use super::refusal::{Body, fingerprint, refused};
use crate::support::App;

/// Method, path and body; status and code.
const CASES: &[(&str, &str, Body<'static>, u16, &str)] = &[
    ("PUT", "/v1/topics/a%20b", Body::None, 422, "invalid"),
    ("PUT", "/v1/topics/a..b", Body::None, 422, "invalid"),
    ("PUT", "/v1/topics/system.mine", Body::None, 422, "invalid"),
    (
        "PATCH",
        "/v1/topics/system.events",
        Body::Json(b"{}"),
        422,
        "invalid",
    ),
    (
        "DELETE",
        "/v1/topics/system.events",
        Body::None,
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"retention_seconds": -1}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"retention_seconds": 31536001}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"max_message_bytes": 0}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"max_message_bytes": 8388609}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"dedup_window_seconds": 0}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(br#"{"schema": {}}"#),
        422,
        "invalid",
    ),
    ("PUT", "/v1/topics/a", Body::Json(b"[]"), 422, "invalid"),
    (
        "PUT",
        "/v1/topics/a",
        Body::Json(b"{"),
        400,
        "malformed-json",
    ),
    (
        "PUT",
        "/v1/topics/a",
        Body::Untyped(b"{}"),
        415,
        "unsupported-media-type",
    ),
    ("PUT", "/v1/topics/a?x=1", Body::None, 400, "invalid-query"),
    (
        "PATCH",
        "/v1/topics/none",
        Body::Json(b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop",
        Body::Typed("text/plain", b"{}"),
        415,
        "unsupported-media-type",
    ),
    (
        "PATCH",
        "/v1/topics/shop",
        Body::Json(br#"{"x": 1}"#),
        422,
        "invalid",
    ),
    ("GET", "/v1/topics/none", Body::None, 404, "topic-not-found"),
    (
        "GET",
        "/v1/topics?limit=0",
        Body::None,
        400,
        "invalid-query",
    ),
    (
        "GET",
        "/v1/topics?cursor=x",
        Body::None,
        400,
        "invalid-cursor",
    ),
    (
        "DELETE",
        "/v1/topics/none",
        Body::None,
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/none/messages",
        Body::Json(br#"{"body": 1}"#),
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Untyped(b"1"),
        415,
        "unsupported-media-type",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Json(br#"{"body": 12345678901}"#),
        413,
        "message-too-large",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Json(br#"{"body": 1, "priority": 10}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Json(br#"{"body": 1, "mandatory": 1}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Json(br#"{"body": 1, "routing_key": 1}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/messages",
        Body::Json(br#"{"messages": [{"body": 1}], "routing_key": "a"}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/none/explain",
        Body::Json(br#"{"body": 1}"#),
        404,
        "topic-not-found",
    ),
    (
        "POST",
        "/v1/topics/shop/explain",
        Body::Json(b"{}"),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/topics/shop/explain",
        Body::Json(br#"{"body": 12345678901}"#),
        413,
        "message-too-large",
    ),
    (
        "POST",
        "/v1/queues/work/messages",
        Body::Json(br#"{"body": 1, "routing_key": "a"}"#),
        422,
        "invalid",
    ),
    (
        "POST",
        "/v1/queues/work/messages",
        Body::Json(br#"{"body": 1, "mandatory": true}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/none/subscriptions/s",
        Body::Json(b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        Body::Json(br#"{"queue": "none"}"#),
        404,
        "queue-not-found",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        Body::Json(br#"{"queue": "a b"}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        Body::Json(br#"{"filter": []}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        Body::Json(br#"{"filter": {"x": 1}}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/n",
        Body::Json(br#"{"webhooks": {}}"#),
        422,
        "invalid",
    ),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/taken",
        Body::Json(b"{}"),
        409,
        "queue-exists",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/none",
        Body::Json(b"{}"),
        404,
        "subscription-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/none/subscriptions/s",
        Body::Json(b"{}"),
        404,
        "topic-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/s",
        Body::Json(br#"{"queue": "none"}"#),
        404,
        "queue-not-found",
    ),
    (
        "PATCH",
        "/v1/topics/shop/subscriptions/s",
        Body::Json(br#"{"queue": null}"#),
        422,
        "invalid",
    ),
    (
        "GET",
        "/v1/topics/shop/subscriptions/none",
        Body::None,
        404,
        "subscription-not-found",
    ),
    (
        "GET",
        "/v1/topics/none/subscriptions",
        Body::None,
        404,
        "topic-not-found",
    ),
    (
        "DELETE",
        "/v1/topics/shop/subscriptions/none",
        Body::None,
        404,
        "subscription-not-found",
    ),
    ("DELETE", "/v1/queues/work", Body::None, 409, "queue-in-use"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_documented_and_changes_nothing() {
    let app = App::start().await;
    app.topic("shop", json!({"max_message_bytes": 10})).await;
    app.topic(&"t".repeat(75), json!({})).await;
    app.queue("work", json!({})).await;
    app.queue("shop.taken", json!({})).await;
    app.subscription("shop", "s", json!({"queue": "work"}))
        .await;
    let before = fingerprint(&app.database).await;
    let long = "x".repeat(256);
    let long_key = json!({"body": 1, "routing_key": long}).to_string();
    let long_name = format!("/v1/topics/{}/subscriptions/sub-123", "t".repeat(75));
    let messages = "/v1/topics/shop/messages";
    let none = br#"{"messages": []}"#;
    for (method, path, body) in [
        ("POST", messages, Body::Json(long_key.as_bytes())),
        ("POST", messages, Body::Json(none)),
        ("PUT", &long_name, Body::Json(b"{}")),
    ] {
        refused(&app, (method, path, body), 422, "invalid").await;
    }
    for (method, path, body, status, code) in CASES {
        refused(&app, (method, path, *body), *status, code).await;
    }
    assert_eq!(fingerprint(&app.database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_filter_is_refused_where_it_is_wrong() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    let refused = refused(
        &app,
        (
            "PUT",
            "/v1/topics/shop/subscriptions/s",
            Body::Json(br#"{"filter": {"routing_keys": "a"}}"#),
        ),
        422,
        "invalid",
    )
    .await;
    assert_eq!(refused["errors"][0]["pointer"], "/filter/routing_keys");
}
