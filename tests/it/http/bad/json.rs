//! Bodies that are not JSON, or of another shape.

use reqwest::{Method, StatusCode};

use super::MESSAGES;
use super::check::check;
use super::table::{Row, post, send};
use crate::support::{Answer, App};

/// Every operation that takes JSON, with something that it would accept.
const OPERATIONS: [(&str, &str, &str); 11] = [
    ("PUT", "/v1/queues/orders", r#"{"lease_seconds": 30}"#),
    ("PATCH", "/v1/queues/orders", r#"{"lease_seconds": 30}"#),
    (
        "POST",
        "/v1/queues/orders/purge",
        r#"{"dead_letters": false}"#,
    ),
    ("POST", "/v1/queues/orders/unblock", r#"{"keys": ["k"]}"#),
    ("POST", MESSAGES, r#"{"body": 1}"#),
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
    (
        "PUT",
        "/v1/queues/orders/webhook",
        r#"{"max_in_flight": 3}"#,
    ),
];

/// A publish reads its body once it knows the queue, which says how long it may
/// be.
fn maybe_away(row: Row, path: &str) -> Row {
    if path == MESSAGES {
        row.needs_postgres()
    } else {
        row
    }
}

fn malformed() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, good) in OPERATIONS {
        let good = good.as_bytes();
        let deep = format!(r#"{{"body": {}1{}}}"#, "[".repeat(128), "]".repeat(128));
        let deep_behind_a_number = format!(
            r#"{{"body": [1e999, "\ud800", {}1{}]}}"#,
            "[".repeat(127),
            "]".repeat(127)
        );
        let malformed = [
            b" ".to_vec(),
            good[..good.len() - 1].to_vec(),
            [good, b"x"].concat(),
            [good, good].concat(),
            ["\u{feff}".as_bytes(), good].concat(),
            br#"{"body": NaN}"#.to_vec(),
            br#"{"body": Infinity}"#.to_vec(),
            br#"{"body": 01}"#.to_vec(),
            br"{'body': 1}".to_vec(),
            br#"{"body": 1,}"#.to_vec(),
            b"{\"body\": \"a\nb\"}".to_vec(),
            b"{\"body\": \"\xff\"}".to_vec(),
            b"null null".to_vec(),
            deep.into_bytes(),
            deep_behind_a_number.into_bytes(),
            "[".repeat(1_000_000).into_bytes(),
        ];
        // A request whose body may be left out is fine without.
        let takes_none = path.ends_with("/purge")
            || path.ends_with("/receive")
            || (method, path) == ("PUT", "/v1/queues/orders");
        let empty = (!takes_none).then(Vec::new);
        for bytes in malformed.into_iter().chain(empty) {
            let row = send(method, path)
                .json(bytes)
                .refused(400, "malformed-json");
            rows.push(maybe_away(row, path));
        }
    }
    rows
}

fn other_shapes() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, good) in OPERATIONS {
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
            let row = send(method, path).json(json.clone()).invalid(pointer);
            // A patch is a patch of something, unless it is no patch at all.
            let is_patch = method == "PATCH" && json.starts_with('{') && !json.ends_with("30}");
            let row = if is_patch { row.needs_postgres() } else { row };
            rows.push(maybe_away(row, path));
        }
    }
    rows
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

fn wrong_inside() -> Vec<Row> {
    WRONG_INSIDE
        .iter()
        .map(|(method, path, json, pointer)| {
            let row = send(method, *path).json(*json).invalid(*pointer);
            if *method == "PATCH" && !json.contains("\"jitter\": 1") && !json.contains("1e999") {
                row.needs_postgres()
            } else {
                maybe_away(row, path)
            }
        })
        .collect()
}

fn content_types() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, good) in OPERATIONS {
        let row = send(method, path);
        rows.push(row.untyped(good).refused(415, "unsupported-media-type"));
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
            let row = send(method, path).typed(wrong, good);
            rows.push(row.refused(415, "unsupported-media-type"));
        }
    }
    rows.push(send("POST", MESSAGES).refused(415, "unsupported-media-type"));
    rows
}

fn of_webhooks() -> Vec<Row> {
    let webhook = "/v1/queues/orders/webhook";
    vec![
        post(format!("{webhook}/test"), r#"{"boody": 1}"#).invalid("/boody"),
        post(format!("{webhook}/resend"), r#"{"message_ids": "x"}"#).invalid("/message_ids"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_or_of_another_shape_is_refused() {
    check(|_| {
        [
            malformed(),
            other_shapes(),
            wrong_inside(),
            of_webhooks(),
            content_types(),
        ]
        .concat()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_the_right_content_type_is_taken() {
    let app = App::start().await;
    app.queue("orders", serde_json::json!({})).await;
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
