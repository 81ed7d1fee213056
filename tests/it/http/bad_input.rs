//! Bodies that are not JSON, or of another shape: the exact answer, nothing
//! stored, never a 500, and no answer that the `OpenAPI` document does not know.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::refusal::{Body, fingerprint, refused};
use crate::support::{Answer, App};

const MESSAGES: &str = "/v1/queues/orders/messages";

/// Every operation that takes JSON, with something that it would accept.
const JSON_OPERATIONS: [(&str, &str, &str); 9] = [
    ("PUT", "/v1/queues/orders", r#"{"lease_seconds": 30}"#),
    ("PATCH", "/v1/queues/orders", r#"{"lease_seconds": 30}"#),
    (
        "POST",
        "/v1/queues/orders/purge",
        r#"{"dead_letters": false}"#,
    ),
    ("POST", "/v1/queues/orders/messages", r#"{"body": 1}"#),
    (
        "POST",
        "/v1/queues/orders/receive",
        r#"{"max_messages": 1}"#,
    ),
    ("POST", "/v1/queues/orders/ack", r#"{"receipts": ["r"]}"#),
    ("POST", "/v1/queues/orders/nack", r#"{"receipts": ["r"]}"#),
    ("POST", "/v1/queues/orders/extend", r#"{"receipts": ["r"]}"#),
    (
        "POST",
        "/v1/queues/orders/dead-letters/redrive",
        r#"{"ids": ["i"]}"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_is_refused() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let before = fingerprint(&app.database).await;
    for (method, path, good) in JSON_OPERATIONS {
        let cut_off = &good.as_bytes()[..good.len() - 1];
        let deep = format!(r#"{{"body": {}1{}}}"#, "[".repeat(128), "]".repeat(128));
        let deep_behind_a_number = format!(
            r#"{{"body": [1e999, "\ud800", {}1{}]}}"#,
            "[".repeat(127),
            "]".repeat(127)
        );
        let endless = "[".repeat(1_000_000);
        let malformed: [&[u8]; 16] = [
            b" ",
            cut_off,
            &[good.as_bytes(), b"x"].concat(),
            &[good.as_bytes(), good.as_bytes()].concat(),
            &["\u{feff}".as_bytes(), good.as_bytes()].concat(),
            br#"{"body": NaN}"#,
            br#"{"body": Infinity}"#,
            br#"{"body": 01}"#,
            br"{'body': 1}",
            br#"{"body": 1,}"#,
            b"{\"body\": \"a\nb\"}",
            b"{\"body\": \"\xff\"}",
            b"null null",
            deep.as_bytes(),
            deep_behind_a_number.as_bytes(),
            endless.as_bytes(),
        ];
        for bytes in malformed {
            refused(
                &app,
                (method, path, Body::Json(bytes)),
                400,
                "malformed-json",
            )
            .await;
        }
        // A request whose body may be left out is fine without.
        if !matches!(path.rsplit('/').next(), Some("purge" | "receive")) && method != "PUT" {
            refused(&app, (method, path, Body::Json(b"")), 400, "malformed-json").await;
        }
    }
    assert_eq!(fingerprint(&app.database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_another_shape_is_refused_with_a_pointer() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let before = fingerprint(&app.database).await;
    for (method, path, good) in JSON_OPERATIONS {
        let (name, value) = good[1..good.len() - 1].split_once(": ").unwrap();
        let field = name.trim_matches('"');
        let wrong_type = format!(r#"{{{name}: {{"a": 1}}}}"#);
        let cases = [
            (
                format!(r#"{{{name}: {value}, "colour": 1}}"#),
                "/colour".to_owned(),
            ),
            (
                format!("{{{name}: {value}, {name}: {value}}}"),
                String::new(),
            ),
            (wrong_type, format!("/{field}")),
            ("null".to_owned(), String::new()),
            ("17".to_owned(), String::new()),
            ("\"text\"".to_owned(), String::new()),
            (format!("[{good}]"), String::new()),
            ("[]".to_owned(), String::new()),
        ];
        for (json, pointer) in cases {
            if field == "body" && json.contains(r#"{"a": 1}"#) {
                continue; // any value is a body
            }
            let request = (method, path, Body::Json(json.as_bytes()));
            let problem = refused(&app, request, 422, "invalid").await;
            assert_eq!(
                problem["errors"][0]["pointer"], pointer,
                "{method} {path} {json}"
            );
        }
    }
    assert_eq!(fingerprint(&app.database).await, before);
}

/// Method, path, a body with something wrong inside, and where that is.
const WRONG_INSIDE: [(&str, &str, &str, &str); 19] = [
    (
        "PUT",
        "/v1/queues/orders",
        r#"{"backoff": {"x": 1}}"#,
        "/backoff/x",
    ),
    (
        "PUT",
        "/v1/queues/orders",
        r#"{"backoff": {"jitter": "a"}}"#,
        "/backoff/jitter",
    ),
    (
        "PUT",
        "/v1/queues/orders",
        r#"{"backoff": {"jitter": 1, "jitter": 1}}"#,
        "/backoff",
    ),
    (
        "PATCH",
        "/v1/queues/orders",
        r#"{"backoff": {"jitter": 1, "jitter": 1}}"#,
        "/backoff",
    ),
    (
        "PATCH",
        "/v1/queues/orders",
        r#"{"backoff": {"jitter": "a"}}"#,
        "/backoff/jitter",
    ),
    (
        "PATCH",
        "/v1/queues/orders",
        r#"{"lease_seconds": 1e999}"#,
        "/lease_seconds",
    ),
    (
        "PUT",
        "/v1/queues/orders",
        r#"{"lease_seconds": 1e999}"#,
        "/lease_seconds",
    ),
    (
        "PUT",
        "/v1/queues/orders",
        r#"{"dead_letter": {"retry": {"max_rounds": 1e999}}}"#,
        "/dead_letter/retry/max_rounds",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"body": 1, "headers": {"a": 1}}"#,
        "/headers/a",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"body": 1, "headers": {"a": "1", "a": "2"}}"#,
        "/headers",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"body": 1, "headers": ["a"]}"#,
        "/headers",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"body": 1, "headers": {"a/~b": null}}"#,
        "/headers/a~1~0b",
    ),
    ("POST", MESSAGES, r#"{"body": 1, "key": "\ud800"}"#, "/key"),
    (
        "POST",
        MESSAGES,
        r#"{"body": 1, "deliver_at": "tomorrow"}"#,
        "/deliver_at",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"messages": [{"body": 1}, {"body": 1, "x": 1}]}"#,
        "/messages/1/x",
    ),
    (
        "POST",
        MESSAGES,
        r#"{"messages": {"body": 1}}"#,
        "/messages",
    ),
    (
        "POST",
        "/v1/queues/orders/ack",
        r#"{"receipts": ["a", 1]}"#,
        "/receipts/1",
    ),
    (
        "POST",
        "/v1/queues/orders/dead-letters/redrive",
        r#"{"filter": {"reason": "old"}}"#,
        "/filter/reason",
    ),
    (
        "POST",
        "/v1/queues/orders/dead-letters/purge",
        r#"{"filter": {"x": 1}}"#,
        "/filter/x",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn fields_inside_other_fields_are_pointed_at() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let before = fingerprint(&app.database).await;
    for (method, path, json, pointer) in WRONG_INSIDE {
        let request = (method, path, Body::Json(json.as_bytes()));
        let problem = refused(&app, request, 422, "invalid").await;
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{json}: {problem}"
        );
    }
    assert_eq!(fingerprint(&app.database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_content_type_is_refused() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let before = fingerprint(&app.database).await;
    for (method, path, good) in JSON_OPERATIONS {
        let untyped = Body::Untyped(good.as_bytes());
        refused(&app, (method, path, untyped), 415, "unsupported-media-type").await;
        if path == MESSAGES {
            continue; // takes any type
        }
        for wrong in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "text/json",
            "application/problem+json",
            "json",
            "",
        ] {
            let typed = Body::Typed(wrong, good.as_bytes());
            refused(&app, (method, path, typed), 415, "unsupported-media-type").await;
        }
    }
    refused(
        &app,
        ("POST", MESSAGES, Body::None),
        415,
        "unsupported-media-type",
    )
    .await;
    assert_eq!(fingerprint(&app.database).await, before);
    for right in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/json ;x=y",
    ] {
        let request = app
            .request(Method::POST, MESSAGES)
            .header("content-type", right);
        let answer = Answer::of(request.body(r#"{"body": 1}"#)).await;
        answer.expect(StatusCode::CREATED);
        assert_eq!(app.receive_one("orders").await["body"], 1);
    }
}
