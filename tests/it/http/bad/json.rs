//! Bodies that are not JSON, or of another shape.

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

use super::MESSAGES;
use super::check::{There, check};
use super::table::{Row, post, send};
use super::walk::{Operation, walk};
use crate::support::{Answer, App};

/// Every operation that takes JSON, with a type and a body that it would accept.
fn operations(there: &There) -> Vec<(Operation, String, String)> {
    let mut operations = Vec::new();
    for operation in walk(there) {
        for (content_type, body) in operation.bodies.clone() {
            operations.push((operation.clone(), content_type, body));
        }
    }
    assert!(operations.len() > 35, "{}", operations.len());
    operations
}

/// What may be bytes is read once it is known how many it may be.
fn maybe_away(row: Row, takes_bytes: bool) -> Row {
    if takes_bytes {
        row.needs_postgres()
    } else {
        row
    }
}

fn malformed(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for (operation, content_type, good) in operations(there) {
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
        let empty = operation.needs_body.then(Vec::new);
        for bytes in malformed.into_iter().chain(empty) {
            let row = send(&operation.method, operation.path()).typed(&content_type, bytes);
            let row = row.refused(400, "malformed-json");
            rows.push(maybe_away(row, operation.takes_bytes()));
        }
    }
    rows
}

/// A field of a body that could be of another type than an object.
fn plain_field(fields: &Map<String, Value>) -> Option<&String> {
    let mut fields = fields.iter();
    let is_any = |name: &str| matches!(name, "body" | "schema");
    fields
        .find(|(name, value)| !value.is_object() && !is_any(name))
        .map(|(name, _)| name)
}

fn other_shapes(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for (operation, content_type, good) in operations(there) {
        let fields: Map<String, Value> = serde_json::from_str(&good).unwrap();
        let (name, value) = fields.iter().next().unwrap();
        let unknown = format!(r#"{},"colour": 1}}"#, &good[..good.len() - 1]);
        let twice = format!(r#"{{"{name}": {value},{}"#, &good[1..]);
        // A patch is a patch of something, unless it is no patch at all.
        let is_patch = operation.method == "PATCH";
        let mut cases = vec![
            (unknown, "/colour".to_owned(), is_patch),
            (twice, String::new(), false),
        ];
        if let Some(field) = plain_field(&fields) {
            let mut wrong = fields.clone();
            wrong[field] = serde_json::json!({"a": 1});
            let wrong = Value::from(wrong).to_string();
            cases.push((wrong, format!("/{field}"), is_patch));
        }
        let wholes = ["null", "17", "\"text\"", "true", "[]", &format!("[{good}]")];
        cases.extend(wholes.map(|json| (json.to_owned(), String::new(), false)));
        for (json, pointer, is_of_something) in cases {
            let row = send(&operation.method, operation.path()).typed(&content_type, json);
            let row = row.invalid(pointer);
            rows.push(maybe_away(row, is_of_something || operation.takes_bytes()));
        }
    }
    rows
}

/// Method, path, a body with something wrong inside, and where that is.
const WRONG_INSIDE: [(&str, &str, &str, &str); 22] = [
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
    (
        "POST",
        "/v1/queues/orders/dead-letters/redrive",
        r#"{"ids": {"a": 1}}"#,
        "/ids",
    ),
    (
        "POST",
        "/v1/queues/orders/nack",
        r#"{"receipts": {"a": 1}}"#,
        "/receipts",
    ),
    (
        "POST",
        "/v1/queues/orders/extend",
        r#"{"receipts": {"a": 1}}"#,
        "/receipts",
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
                maybe_away(row, *path == MESSAGES)
            }
        })
        .collect()
}

fn content_types(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for (operation, _, good) in operations(there) {
        let row = || send(&operation.method, operation.path());
        let mut unsupported = |row: Row| rows.push(row.refused(415, "unsupported-media-type"));
        unsupported(row().untyped(&*good));
        if operation.needs_body {
            unsupported(row());
        }
        if operation.takes_bytes() {
            continue; // takes any type
        }
        for wrong in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "text/json",
            "application/problem+json",
            "application/merge-patch+json",
            "json",
            "",
        ] {
            if !operation.types.iter().any(|right| right == wrong) {
                unsupported(row().typed(wrong, &*good));
            }
        }
    }
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
    check(|there| {
        [
            malformed(there),
            other_shapes(there),
            wrong_inside(),
            of_webhooks(),
            content_types(there),
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
