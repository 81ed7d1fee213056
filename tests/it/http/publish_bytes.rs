//! `POST /v1/queues/{queue}/messages`: bodies that are not JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::json;

use super::counts::expect_counts;
use super::publish::publish_with;
use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_base64_come_back_with_their_content_type() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let cases = [
        (bytes.as_slice(), Some("image/png; q=1"), "image/png; q=1"),
        (b"", None, "application/octet-stream"),
        (
            b"{\"not\": \"parsed\"}",
            Some("application/json"),
            "application/json",
        ),
    ];
    for (bytes, content_type, expected) in cases {
        let mut message = json!({"body_base64": STANDARD.encode(bytes)});
        if let Some(content_type) = content_type {
            message["content_type"] = json!(content_type);
        }
        app.publish("orders", message.clone()).await;
        let received = app.receive_one("orders").await;
        assert_eq!(received["body_base64"], message["body_base64"]);
        assert_eq!(received["content_type"], expected);
        assert!(received.get("body").is_none(), "{received}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_content_type_stores_the_bytes_with_properties_from_headers() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let body: Vec<u8> = (0..=255).rev().collect();
    let headers = [
        ("content-type", "application/x-protobuf; v=2"),
        ("postrider-key", "customer-7"),
        ("postrider-priority", "9"),
        ("postrider-ttl-seconds", "60.5"),
        ("postrider-delay-seconds", "0"),
        ("postrider-dedup-id", "d-1"),
        ("postrider-correlation-id", "c-1"),
        ("postrider-reply-to", "answers"),
        ("postrider-header-shop", "eu"),
        ("Postrider-Header-X-Trace", "a, b"),
        ("authorization", "not kept"),
    ];
    let answer = publish_with(&app, &headers, body.clone()).await;
    let published = answer.expect(StatusCode::CREATED)["messages"][0].clone();
    let received = app.receive_one("orders").await;
    assert_eq!(received["id"], published["id"]);
    assert_eq!(received["body_base64"], STANDARD.encode(&body));
    assert_eq!(received["content_type"], "application/x-protobuf; v=2");
    assert_eq!(received["key"], "customer-7");
    assert_eq!(received["priority"], 9);
    assert_eq!(received["correlation_id"], "c-1");
    assert_eq!(received["reply_to"], "answers");
    assert_eq!(
        received["headers"],
        json!({"shop": "eu", "x-trace": "a, b"})
    );

    let again = publish_with(&app, &headers, b"other".to_vec()).await;
    let again = again.expect(StatusCode::CREATED)["messages"][0].clone();
    assert_eq!(again, json!({"id": published["id"], "duplicate": true}));

    // An empty body is a body too; JSON with another name is bytes.
    for (content_type, body) in [("text/plain", ""), ("application/vnd.api+json", "{")] {
        let answer = publish_with(&app, &[("content-type", content_type)], body.into()).await;
        answer.expect(StatusCode::CREATED);
        let received = app.receive_one("orders").await;
        assert_eq!(received["body_base64"], STANDARD.encode(body));
        assert_eq!(received["content_type"], content_type);
    }

    let later = [
        ("content-type", "text/plain"),
        ("postrider-deliver-at", "2020-02-30T00:00:00Z"),
    ];
    publish_with(&app, &later, Vec::new())
        .await
        .expect_problem(422, "invalid");
    let later = [
        ("content-type", "text/plain"),
        ("postrider-delay-seconds", "600"),
    ];
    publish_with(&app, &later, Vec::new())
        .await
        .expect(StatusCode::CREATED);
    expect_counts(&app, "orders", &json!({"delayed": 1})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_no_properties_are_refused_by_name() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for (name, value) in [
        ("postrider-colour", "red"),
        ("postrider-priority", "high"),
        ("postrider-priority", "10"),
        ("postrider-delay-seconds", "-1"),
        ("postrider-delay-seconds", "NaN"),
        ("postrider-delay-seconds", "soon"),
        ("postrider-ttl-seconds", "inf"),
        ("postrider-ttl-seconds", "0"),
        ("postrider-deliver-at", "tomorrow"),
        ("postrider-key", ""),
        ("postrider-key", "é"),
        ("postrider-header-", "x"),
    ] {
        let headers = [("content-type", "text/plain"), (name, value)];
        let answer = publish_with(&app, &headers, b"x".to_vec()).await;
        let problem = answer.expect_problem(422, "invalid");
        let pointer = problem["errors"][0]["pointer"].as_str().unwrap();
        let property = name.strip_prefix("postrider-").unwrap().replace('-', "_");
        let same = pointer
            .replace('-', "_")
            .contains(property.trim_end_matches('_'));
        assert!(same || property == "header_", "{name}: {pointer}");
    }
    for name in [
        "postrider-key",
        "postrider-header-shop",
        "postrider-priority",
    ] {
        let headers = [("content-type", "text/plain"), (name, "1"), (name, "2")];
        let answer = publish_with(&app, &headers, b"x".to_vec()).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], name);
    }
    assert_eq!(app.counts("orders").await["ready"], 0);
}
