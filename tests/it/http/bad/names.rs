//! Names that nothing can have, escaped and as they are.

use super::check::check;
use super::table::{Row, post, raw, send};

/// As they stand in a path.
const ESCAPED: [&str; 18] = [
    "%20",
    "a%20b",
    "a%2Fb",
    "a%0Ab",
    "a%0D%0Ab",
    "a%7Fb",
    "a%E2%80%AEb",
    "a%E2%80%8Fb",
    "a%E2%81%A6b",
    "a..b",
    "a%5Cb",
    "-a",
    "%C3%BC",
    "a%3Fb",
    "a;b",
    "a*",
    "%2E%2E%2Fx",
    ".hidden",
];

/// Sent by a client library, which takes `..` out of a path.
fn escaped() -> Vec<Row> {
    let long = "x".repeat(81);
    let mut rows = Vec::new();
    for name in ESCAPED.into_iter().chain(["a:b", "a%25", &long]) {
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
        for row in [
            send("PUT", &topic).json("{}"),
            send("GET", &topic),
            post(format!("{topic}/messages"), r#"{"body": 1}"#),
            send("GET", format!("{topic}/subscriptions/s")),
        ] {
            rows.push(row.invalid("topic"));
        }
        let subscription = format!("/v1/topics/shop/subscriptions/{name}");
        for row in [
            send("PUT", &subscription).json("{}"),
            send("GET", &subscription),
            send("DELETE", &subscription),
        ] {
            rows.push(row.invalid("subscription"));
        }
        // An id is no name: no key has this one.
        let key = format!("/v1/keys/{name}");
        for row in [
            send("GET", &key),
            send("DELETE", &key),
            send("POST", format!("{key}/rotate")),
        ] {
            rows.push(row.refused(404, "key-not-found").needs_postgres());
        }
    }
    for id in ["%00", "a%00", "%ff", "%ed%a0%80"] {
        let row = send("GET", format!("/v1/keys/{id}"));
        rows.push(row.refused(400, "invalid-path"));
    }
    rows.push(send("GET", "/v1/queues//messages").invalid("queue"));
    rows
}

/// What has a name in its path: method, what stands before the name, and where a
/// bad one is said to be; no name is what keys have.
const NAMED: [(&str, &str, Option<&str>); 7] = [
    ("GET", "/v1/queues/", Some("queue")),
    ("PUT", "/v1/queues/", Some("queue")),
    ("GET", "/v1/topics/", Some("topic")),
    ("PUT", "/v1/topics/", Some("topic")),
    (
        "PUT",
        "/v1/topics/shop/subscriptions/",
        Some("subscription"),
    ),
    ("GET", "/v1/keys/", None),
    ("DELETE", "/v1/keys/", None),
];

/// A request without a body, as it stands.
fn bare(method: &str, path: &str) -> Row {
    raw(format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ))
}

/// Sent over a socket, where nobody tidies them up.
fn as_they_are() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, before, named) in NAMED {
        for name in [
            "..",
            ".",
            "%2e%2e",
            "..%2fx",
            "a\\b",
            "..\\x",
            "a|b",
            // Bidirectional marks, as their bytes are.
            "a\u{202e}b",
            "a\u{200f}b",
            "a\u{2066}b",
            "\u{fc}",
        ] {
            let row = bare(method, &format!("{before}{name}"));
            rows.push(match named {
                Some(named) => row.invalid(named),
                None => row.refused(404, "key-not-found").needs_postgres(),
            });
        }
        for name in ["a/b", "../x", "a/../b", "..//x"] {
            let row = bare(method, &format!("{before}{name}"));
            rows.push(row.refused(404, "not-found"));
        }
        // No HTTP: the server itself refuses them.
        for name in ["a b", "a\tb", "a\u{1}b", "a\u{7f}b", "a\0b", "a\rb", "a\nb"] {
            rows.push(bare(method, &format!("{before}{name}")).rejected(&[400]));
        }
    }
    for (path, named) in [
        ("/v1/queues/../messages", "queue"),
        ("/v1/queues/./messages", "queue"),
        ("/v1/queues/..%2f../messages", "queue"),
        ("/v1/topics/../messages", "topic"),
        ("/v1/topics/../subscriptions/s", "topic"),
        ("/v1/topics/shop/subscriptions/..", "subscription"),
    ] {
        rows.push(bare("GET", path).invalid(named));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_name_can_be_is_refused_however_it_is_sent() {
    check(|_| [escaped(), as_they_are()].concat()).await;
}
