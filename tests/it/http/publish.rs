//! `POST /v1/queues/{queue}/messages`: what a message carries.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Gateway};

const MESSAGES: &str = "/v1/queues/orders/messages";

/// Publishes with headers of the request.
pub(super) async fn publish_with(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Answer {
    let mut request = gateway.request(Method::POST, MESSAGES).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_stored_with_every_property_it_has() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let message = json!({
        "body": {"order": 42}, "headers": {"shop": "eu", "X-Unit": "grüße"},
        "key": "customer-7 é", "priority": 3, "ttl_seconds": 3600, "dedup_id": "d-1",
        "correlation_id": "c-1", "reply_to": "answers",
    });
    let id = app.publish("orders", message.clone()).await;
    assert!(id.starts_with("msg_") && id.len() == 17, "{id}");

    let received = app.receive_one("orders").await;
    for field in [
        "body",
        "headers",
        "key",
        "priority",
        "correlation_id",
        "reply_to",
    ] {
        assert_eq!(received[field], message[field], "{field}");
    }
    assert_eq!(received["id"], id.as_str());
    assert_eq!(received["attempt"], 1);
    assert_eq!(received["content_type"], "application/json");
    assert_eq!(received["traceparent"], Value::Null);
    let time = |field: &str| -> chrono::DateTime<chrono::Utc> {
        received[field].as_str().unwrap().parse().unwrap()
    };
    assert!(time("enqueued_at") < time("lease_expires_at"));
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_left_out_are_null_or_their_defaults() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.publish(
        "orders",
        json!({"body": null, "headers": null, "key": null}),
    )
    .await;
    let received = app.receive_one("orders").await;
    assert_eq!(received["headers"], json!({}));
    assert_eq!(received["priority"], 0);
    for field in [
        "body",
        "key",
        "correlation_id",
        "reply_to",
        "traceparent",
        "tracestate",
    ] {
        assert_eq!(received[field], Value::Null, "{field}");
        assert!(received.as_object().unwrap().contains_key(field), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_batch_are_in_its_order_and_sort_as_text() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let mut all = Vec::new();
    for size in [1, 1000, 3] {
        let messages: Vec<Value> = (0..size).map(|n| json!({"body": n})).collect();
        let answer = app.post(MESSAGES, json!({"messages": messages})).await;
        let published = answer.expect(StatusCode::CREATED)["messages"].clone();
        assert_eq!(published.as_array().unwrap().len(), size);
        for message in published.as_array().unwrap() {
            assert_eq!(message["duplicate"], false);
            all.push(message["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(all.is_sorted(), "ids sort by publish order");
    let mut received = Vec::new();
    while received.len() < all.len() {
        let some = app.receive("orders", json!({"max_messages": 1000})).await;
        assert!(!some.is_empty());
        received.extend(some);
    }
    let ids: Vec<_> = received.iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, all);
    let bodies: Vec<_> = received[1..1001]
        .iter()
        .map(|m| m["body"].as_u64().unwrap())
        .collect();
    assert_eq!(bodies, (0..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_item_stores_nothing_and_says_which() {
    let app = App::start().await;
    app.queue("orders", json!({"max_message_bytes": 20})).await;
    for (bad, status, code, pointer) in [
        (
            r#"{"body": 1, "priority": 10}"#,
            422,
            "invalid",
            "/messages/3/priority",
        ),
        (
            r#"{"body": 1, "ttl_seconds": 0}"#,
            422,
            "invalid",
            "/messages/3/ttl_seconds",
        ),
        (
            r#"{"body": 1, "headers": {"a/b~": "x"}}"#,
            422,
            "invalid",
            "/messages/3/headers/a~1b~0",
        ),
        (
            r#"{"body": 1, "key": ""}"#,
            422,
            "invalid",
            "/messages/3/key",
        ),
        (
            r#"{"body": 1, "key": 7}"#,
            422,
            "invalid",
            "/messages/3/key",
        ),
        (
            r#"{"body": 1, "colour": 7}"#,
            422,
            "invalid",
            "/messages/3/colour",
        ),
        (
            r#"{"body": 1, "body_base64": ""}"#,
            422,
            "invalid",
            "/messages/3/body_base64",
        ),
        (
            r#"{"body_base64": "?"}"#,
            422,
            "invalid",
            "/messages/3/body_base64",
        ),
        (
            r#"{"body": 1, "messages": []}"#,
            422,
            "invalid",
            "/messages/3/messages",
        ),
        ("{}", 422, "invalid", "/messages/3/body"),
        ("17", 422, "invalid", "/messages/3"),
        (
            r#"{"body": "123456789012345678901"}"#,
            413,
            "message-too-large",
            "/messages/3/body",
        ),
    ] {
        let good = r#"{"body": 1}"#;
        let batch = format!(r#"{{"messages": [{good}, {good}, {good}, {bad}, {good}]}}"#);
        let problem = app
            .post(MESSAGES, &batch)
            .await
            .expect_problem(status, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{bad}: {problem}");
    }
    app.assert_conserved(&app.database, "orders").await;
    assert_eq!(app.counts("orders").await["ready"], 0);
    assert!(app.receive("orders", json!({})).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_stands_alone() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for field in [
        r#""body": 1"#,
        r#""body_base64": """#,
        r#""content_type": "x/y""#,
        r#""key": "k""#,
        r#""headers": {"a": "b"}"#,
        r#""priority": 3"#,
        r#""delay_seconds": 1"#,
        r#""deliver_at": "2020-01-01T00:00:00Z""#,
        r#""ttl_seconds": 1"#,
        r#""dedup_id": "d""#,
        r#""correlation_id": "c""#,
        r#""reply_to": "r""#,
    ] {
        let batch = format!(r#"{{"messages": [{{"body": 1}}], {field}}}"#);
        let problem = app
            .post(MESSAGES, &batch)
            .await
            .expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/messages", "{field}");
    }
    assert_eq!(app.counts("orders").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_bodies_come_back_byte_for_byte() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for body in [
        "1.10",
        "9007199254740993",
        "-0",
        "1E400",
        "0.1e-7",
        "null",
        "true",
        "\"\"",
        "[]",
        "{}",
        r#"{"z": 1, "a" :2,"m":[ 1 , 2,3 ],   "z": 3}"#,
        r#""\u0000""#,
        r#""a\u00e9\ud83d\ude00\/""#,
        "\"\u{e9}\u{1f600}\u{202e}\"",
        "{\n\t\"a\":\r\n 1 }",
        r#"{"body": {"messages": []}}"#,
        &deep,
    ] {
        // Spaces around the value are not part of it.
        let request = format!("{{\"headers\":{{}} , \"body\" : {body} \n}}");
        let answer = app.post(MESSAGES, request).await;
        let id = answer.expect(StatusCode::CREATED)["messages"][0]["id"].clone();
        let given_back = format!("\"body\":{body}}}");
        let path = format!("{MESSAGES}/{}", id.as_str().unwrap());
        for answer in [
            app.get(&path).await,
            app.get(MESSAGES).await,
            app.post("/v1/queues/orders/receive", "{}").await,
        ] {
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            assert!(answer.text.contains(&given_back), "{body}: {}", answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn priorities_come_from_nine_to_zero_and_each_in_publish_order() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for round in 0..2 {
        for priority in [3, 9, 0, 7, 1, 8, 2, 6, 4, 5] {
            let body = format!("{priority}-{round}");
            app.publish("orders", json!({"body": body, "priority": priority}))
                .await;
        }
    }
    let received = app.receive("orders", json!({"max_messages": 100})).await;
    let bodies: Vec<_> = received
        .iter()
        .map(|m| m["body"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..=9)
        .rev()
        .flat_map(|priority| (0..2).map(move |round| format!("{priority}-{round}")))
        .collect();
    assert_eq!(bodies, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_context_is_kept_if_it_is_valid() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let state = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
    let good = format!("00-{TRACE}-b7ad6b7169203331-01");
    let future = format!("cc-{TRACE}-b7ad6b7169203331-01-what-the-future-brings");
    for valid in [&good, &future] {
        for content_type in ["application/json", "text/plain"] {
            let headers = [
                ("content-type", content_type),
                ("traceparent", valid.as_str()),
                ("tracestate", state),
            ];
            publish_with(&app, &headers, br#"{"body":1}"#.to_vec())
                .await
                .expect(StatusCode::CREATED);
            let received = app.receive_one("orders").await;
            assert_eq!(received["traceparent"], valid.as_str());
            assert_eq!(received["tracestate"], state);
        }
    }
    for invalid in [
        String::new(),
        "nonsense".to_owned(),
        good.to_uppercase(),
        format!("ff-{TRACE}-b7ad6b7169203331-01"),
        format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{TRACE}-b7ad6b7169203331"),
        format!("00-{TRACE}-b7ad6b716920333-01"),
        format!("00-{TRACE}-b7ad6b7169203331-01-more"),
        format!("00-{TRACE}-b7ad6b716920333g-01"),
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("traceparent", invalid.as_str()),
            ("tracestate", state),
        ];
        let answer = publish_with(&app, &headers, br#"{"body":1}"#.to_vec()).await;
        answer.expect(StatusCode::CREATED);
        let received = app.receive_one("orders").await;
        assert_eq!(received["traceparent"], Value::Null, "{invalid}");
        assert_eq!(received["tracestate"], Value::Null, "{invalid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_given_back_and_another_is_replaced() {
    let app = App::start().await;
    let longest = "x".repeat(128);
    for sane in ["a", "trace-7/x:y=z{}", &longest] {
        let request = app
            .request(Method::GET, "/livez")
            .header("x-request-id", sane);
        let answer = Answer::of(request).await;
        assert_eq!(answer.headers["x-request-id"], sane);
    }
    let too_long = "x".repeat(129);
    let mut seen = Vec::new();
    for insane in ["", "a b", "a\"b", "<script>", "a\\b", "\u{e9}", &too_long] {
        let request = app
            .request(Method::GET, "/nope")
            .header("x-request-id", insane);
        let answer = Answer::of(request).await;
        answer.expect_problem(404, "not-found");
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(
            id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit()),
            "{id}"
        );
        assert!(!seen.contains(&id), "{id}");
        seen.push(id);
    }
}
