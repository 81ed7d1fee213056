//! HTTP that is not as it should be, byte by byte over a socket where no client
//! library would send it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::counts::expect_counts;
use super::check::check;
use super::table::{Row, raw, raw_cut_off, send};
use crate::support::{App, Gateway};

/// What a path takes, where the document does not say it: method that it does not,
/// path, methods that it does.
const METHODS: [(&str, &str, &str); 5] = [
    ("OPTIONS", "/v1/queues/orders", "DELETE,GET,HEAD,PATCH,PUT"),
    ("TRACE", "/v1/topics/shop/messages", "GET,HEAD,POST"),
    ("BREW", "/openapi.json", "GET,HEAD"),
    ("POST", "/openapi.json", "GET,HEAD"),
    ("POST", "/docs", "GET,HEAD"),
];

const NOWHERE: [&str; 13] = [
    "/",
    "/v1",
    "/v1/",
    "/v1/queues/",
    "/v2/queues",
    "/V1/queues",
    "/v1/queues/a/b",
    "/v1/queues/a/messages/",
    "/v1/queues/a/messages/b/c",
    "/livez/",
    "//livez",
    "/v1/queues/a/dead-letters/b/c",
    "/.env",
];

const NO_TEXT: [&str; 10] = [
    "/v1/queues/%00",
    "/v1/queues/a%00",
    "/v1/queues/%ff",
    "/v1/queues/%c3%28",
    "/v1/queues/a%ffb/messages",
    "/v1/queues/a%00b/messages",
    "/v1/queues/orders/messages/%00",
    "/v1/queues/orders/messages/%ff",
    "/v1/queues/orders/dead-letters/%ff",
    "/v1/queues/%ed%a0%80",
];

/// Paths and methods that are none.
fn unknown() -> Vec<Row> {
    let mut rows = Vec::new();
    for (method, path, allow) in METHODS {
        let row = send(method, path).refused(405, "method-not-allowed");
        rows.push(row.with("allow", allow));
    }
    for path in NOWHERE {
        for method in ["GET", "POST"] {
            rows.push(send(method, path).refused(404, "not-found"));
        }
    }
    for path in NO_TEXT {
        rows.push(send("GET", path).refused(400, "invalid-path"));
    }
    // Half an escape is text, though no name.
    for path in ["/v1/queues/%", "/v1/queues/%0", "/v1/queues/%zz"] {
        rows.push(send("GET", path).invalid("queue"));
    }
    rows
}

/// Queries of lists that mean nothing.
const LISTS: [(&str, &str); 25] = [
    ("/v1/queues?wait_secs=5", "invalid-query"),
    ("/v1/queues/orders/blocked-keys?limit=0", "invalid-query"),
    ("/v1/queues/orders/blocked-keys?limit=1001", "invalid-query"),
    ("/v1/queues/orders/blocked-keys?cursor=x", "invalid-cursor"),
    ("/v1/queues?limit=1&limit=2", "invalid-query"),
    ("/v1/queues?prefix=%00", "invalid-query"),
    ("/v1/queues?limit=", "invalid-query"),
    ("/v1/queues?limit=0", "invalid-query"),
    ("/v1/queues?limit=1001", "invalid-query"),
    ("/v1/queues?limit=-1", "invalid-query"),
    ("/v1/queues?limit=9223372036854775808", "invalid-query"),
    ("/v1/queues?limit=1e2", "invalid-query"),
    ("/v1/queues?cursor=x&cursor=y", "invalid-query"),
    ("/v1/queues?cursor=x", "invalid-cursor"),
    ("/v1/topics?cursor=%ff", "invalid-cursor"),
    ("/v1/queues/orders/messages?state=lost", "invalid-query"),
    ("/v1/queues/orders/messages?cursor=x", "invalid-cursor"),
    ("/v1/queues/orders/dead-letters?since=1", "invalid-query"),
    (
        "/v1/queues/orders/webhook/attempts?status=99",
        "invalid-query",
    ),
    (
        "/v1/queues/orders/webhook/attempts?status=1000",
        "invalid-query",
    ),
    (
        "/v1/queues/orders/webhook/attempts?status=x",
        "invalid-query",
    ),
    (
        "/v1/queues/orders/webhook/attempts?message_id=x",
        "invalid-query",
    ),
    (
        "/v1/queues/orders/webhook/attempts?since=1",
        "invalid-query",
    ),
    (
        "/v1/queues/orders/webhook/attempts?cursor=x",
        "invalid-cursor",
    ),
    ("/v1/topics/shop/messages?after=x", "invalid-cursor"),
];

/// Queries that mean nothing.
fn queries() -> Vec<Row> {
    let queries = LISTS.iter();
    queries
        .map(|(path, code)| send("GET", *path).refused(400, code))
        .collect()
}

/// A publish with these headers.
pub(super) fn publish(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const MESSAGE: &[u8] = br#"{"body": 1}"#;

fn two_meanings() -> Vec<Row> {
    let mut rows = Vec::new();
    for headers in [
        "Content-Length: 11\r\nContent-Length: 12",
        "Content-Length: 11, 12",
        "Content-Length: -11",
        "Content-Length: +11",
        "Content-Length: 0x0b",
        "Content-Length: eleven",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "No-Colon",
        "Spa ce: x",
        "Nul: a\0b",
    ] {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        let row = raw(publish(&headers, MESSAGE)).rejected(&[400]);
        rows.push(row.closed());
    }
    for line in [
        "GET",
        "GET /livez",
        "GET /livez HTTP/9.9",
        "GET /li vez HTTP/1.1",
        "\0\0\0",
    ] {
        let row = raw(format!("{line}\r\n\r\n")).rejected(&[400, 505]);
        rows.push(row.closed());
    }
    rows
}

/// Refused before a client that waits for 100 Continue has sent it.
fn announced() -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, content_type) in [
        ("messages", "application/json"),
        ("messages", "application/octet-stream"),
        ("receive", "application/json"),
        ("ack", "application/json"),
    ] {
        let head = format!(
            "POST /v1/queues/orders/{path} HTTP/1.1\r\nHost: x\r\n\
                 Content-Type: {content_type}\r\nContent-Length: 1073741824\r\n\
                 Expect: 100-continue\r\n\r\n"
        );
        let row = raw(head).refused(413, "body-too-large");
        let is_publish = path == "messages";
        rows.push(if is_publish {
            row.needs_postgres()
        } else {
            row
        });
    }
    rows
}

/// Bodies that break off.
fn cut_off() -> Vec<Row> {
    let mut rows = Vec::new();
    for content_type in ["application/json", "text/plain"] {
        for (framing, sent) in [
            ("Content-Length: 12", MESSAGE),
            ("Content-Length: 1000000", MESSAGE),
            ("Content-Length: 11", b"".as_slice()),
            ("Transfer-Encoding: chunked", b"b\r\n{\"body\": 1}\r\n"),
            ("Transfer-Encoding: chunked", b"b\r\n{\"body\""),
            (
                "Transfer-Encoding: chunked",
                b"xyz\r\n{\"body\": 1}\r\n0\r\n\r\n",
            ),
        ] {
            let headers = format!("Content-Type: {content_type}\r\n{framing}");
            let row = raw_cut_off(publish(&headers, sent)).rejected(&[0, 400]);
            rows.push(row.or_unavailable());
        }
    }
    // Where the body is read before anything is asked.
    let ack = "POST /v1/queues/orders/ack HTTP/1.1\r\nHost: x\r\n\
               Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{";
    rows.push(raw_cut_off(ack).rejected(&[0, 400]));
    rows
}

/// Heads that are too long.
fn heads() -> Vec<Row> {
    let livez = |headers: String| {
        raw(format!(
            "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        ))
    };
    let far = |path: String| send("GET", path).refused(414, "uri-too-long");
    vec![
        livez("X: y\r\n".repeat(63)).refused(431, "headers-too-large"),
        livez(format!("X: {}\r\n", "x".repeat(16 * 1024))).refused(431, "headers-too-large"),
        // So much that the server does not read on, and its answer may be lost.
        livez("X: y\r\n".repeat(1000)).rejected(&[431, 0]),
        livez(format!("X: {}\r\n", "x".repeat(1 << 20))).rejected(&[431, 0]),
        far(format!("/{}", "x".repeat(8 * 1024))),
        far(format!("/livez?{}", "x".repeat(8 * 1024))),
        raw(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000))).rejected(&[414, 0]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_http_is_refused() {
    check(|_| {
        [
            heads(),
            unknown(),
            queries(),
            two_meanings(),
            announced(),
            cut_off(),
        ]
        .concat()
    })
    .await;
}

pub(in crate::http) async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.app.address()).await.unwrap()
}

/// Reads until the other side closes.
pub(in crate::http) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // A reset is an end, too.
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes and reads what comes until the gateway closes.
pub(in crate::http) async fn exchange(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = connect(gateway).await;
    stream.write_all(request).await.unwrap();
    tokio::time::timeout(Duration::from_mins(1), read_to_end(&mut stream))
        .await
        .unwrap()
}

pub(in crate::http) fn status(answer: &str) -> u16 {
    let line = answer.lines().next().unwrap_or_default();
    line.split(' ').nth(1).unwrap_or("0").parse().unwrap_or(0)
}

/// The problem in an answer that was read whole.
#[track_caller]
pub(in crate::http) fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase()
            .contains("content-type: application/problem+json"),
        "{answer}"
    );
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_addresses_that_are_too_long_are_refused() {
    let app = App::start().await;
    let many = "X: y\r\n".repeat(1000);
    let answer = exchange(
        &app,
        format!("GET /livez HTTP/1.1\r\n{many}\r\n").as_bytes(),
    )
    .await;
    assert_eq!(status(&answer), 431, "{answer}");
    let long = "x".repeat(1 << 20);
    let request = format!("GET /livez HTTP/1.1\r\nX: {long}\r\n\r\n");
    let answer = exchange_lossy(&app, request.as_bytes()).await;
    assert!(matches!(status(&answer), 431 | 0), "{answer}");
    let request = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    let answer = exchange_lossy(&app, request.as_bytes()).await;
    assert!(matches!(status(&answer), 414 | 0), "{answer}");
}

/// Like [`exchange`], for requests that are refused while they are sent: the
/// answer may be lost with the connection.
pub(in crate::http) async fn exchange_lossy(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = connect(gateway).await;
    if stream.write_all(request).await.is_err() {
        return String::new();
    }
    read_to_end(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_to_be_told_to_continue_is() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let mut stream = connect(&app).await;
    let head = "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(br#"{"body": 1}"#).await.unwrap();
    assert_eq!(status(&read_to_end(&mut stream).await), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let mut stream = connect(&app).await;
    let head = "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    let (mut read, mut write) = stream.into_split();
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(async move {
        // Endless, if nobody stops it.
        while write.write_all(&chunk).await.is_ok() {}
    });
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_mins(1), read.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop(read);
    tokio::time::timeout(Duration::from_mins(1), writer.join_next())
        .await
        .unwrap();
    expect_counts(&app, "orders", &json!({"ready": 0})).await;
}
