//! What a receiver gets to see.

use reqwest::StatusCode;
use serde_json::json;

use super::{Hook, pushed_id, verifies};
use crate::support::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_signed_and_says_what_the_message_is() {
    let webhook = json!({"headers": {"X-Token": "abc"}});
    let hook = Hook::start(webhook, json!({})).await;
    hook.receiver.next(Reply::status(500));
    let message = json!({
        "body": {"order": 42},
        "headers": {"shop": "eu", "X-Odd!": "grüße"},
        "key": "customer-7",
        "correlation_id": "c-1",
        "reply_to": "answers",
    });
    let answer = crate::support::Answer::of(
        hook.request(reqwest::Method::POST, "/v1/queues/orders/messages")
            .header("content-type", "application/json")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .body(message.to_string()),
    )
    .await;
    let id = answer.expect(StatusCode::CREATED)["messages"][0]["id"].clone();
    let requests = hook.receiver.wait_for(2).await;
    for (attempt, request) in (1..).zip(&requests) {
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, "/hook");
        assert_eq!(request.body, br#"{"order":42}"#);
        assert!(verifies(&hook.secret, request), "{request:?}");
        assert_eq!(pushed_id(request), id);
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-token", "abc"),
            ("postrider-queue", "orders"),
            ("postrider-attempt", &attempt.to_string()),
            ("postrider-header-shop", "eu"),
            ("postrider-header-x-odd!", "grüße"),
            ("postrider-key", "customer-7"),
            ("postrider-correlation-id", "c-1"),
            ("postrider-reply-to", "answers"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ] {
            assert_eq!(request.header(name), Some(value), "{name}");
        }
        assert_eq!(request.header("postrider-topic"), None);
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("postrider/"), "{agent}");
    }
    hook.drained().await;
    assert_eq!(hook.receiver.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_arrive_as_they_were_published_and_a_topic_is_named() {
    let hook = Hook::start(json!({}), json!({})).await;
    hook.topic("shop", json!({})).await;
    let subscription = json!({"queue": "orders", "filter": {"routing_key": "order.#"}});
    hook.subscription("shop", "all", subscription).await;
    let message = json!({
        "body_base64": "AH8A", "content_type": "image/png", "routing_key": "order.eu.made",
    });
    hook.publish_topic("shop", message).await;
    let request = &hook.receiver.wait_for(1).await[0];
    assert_eq!(request.body, [0, 127, 0]);
    assert!(verifies(&hook.secret, request));
    assert_eq!(request.header("content-type"), Some("image/png"));
    assert_eq!(request.header("postrider-topic"), Some("shop"));
    assert_eq!(
        request.header("postrider-routing-key"),
        Some("order.eu.made")
    );
    hook.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_says_which_version_of_the_schema_its_message_was_checked_with() {
    let hook = Hook::start(json!({}), json!({})).await;
    let schema = "/v1/queues/orders/schema";
    // Nothing is pushed before the last change: they carry what was, not what is.
    hook.post("/v1/queues/orders/webhook/pause", json!({}))
        .await
        .expect(StatusCode::OK);
    hook.publish("orders", json!({"body": 0})).await;
    for (version, kind) in [(1, "integer"), (2, "number")] {
        let put = hook.put(schema, json!({"schema": {"type": kind}})).await;
        assert_eq!(put.json()["version"], version, "{}", put.text);
        hook.publish("orders", json!({"body": version})).await;
    }
    hook.delete(schema).await.expect(StatusCode::NO_CONTENT);
    hook.publish("orders", json!({"body": 3})).await;
    hook.post("/v1/queues/orders/webhook/resume", json!({}))
        .await
        .expect(StatusCode::OK);
    for request in hook.receiver.wait_for(4).await {
        let expected = match request.body.as_slice() {
            b"1" => Some("1"),
            b"2" => Some("2"),
            _ => None,
        };
        assert_eq!(
            request.header("postrider-schema-version"),
            expected,
            "{request:?}"
        );
    }
    hook.drained().await;
}
