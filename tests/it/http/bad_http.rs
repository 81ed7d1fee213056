//! HTTP that is not as it should be, byte by byte over a socket.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::counts::expect_counts;
use crate::support::{Answer, App, Gateway};

pub(super) async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.app.address()).await.unwrap()
}

/// Reads until the other side closes.
pub(super) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    // A reset is an end, too.
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends bytes and reads what comes until the gateway closes.
pub(super) async fn exchange(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = connect(gateway).await;
    stream.write_all(request).await.unwrap();
    tokio::time::timeout(Duration::from_mins(1), read_to_end(&mut stream))
        .await
        .unwrap()
}

pub(super) fn status(answer: &str) -> u16 {
    let line = answer.lines().next().unwrap_or_default();
    line.split(' ').nth(1).unwrap_or("0").parse().unwrap_or(0)
}

/// The problem in an answer that was read whole.
#[track_caller]
pub(super) fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase()
            .contains("content-type: application/problem+json"),
        "{answer}"
    );
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_a_path_does_not_take_is_told_those_it_does() {
    let app = App::start().await;
    let queue = "/v1/queues/orders";
    for (method, path, allowed) in [
        ("DELETE", "/v1/queues", "GET,HEAD"),
        ("POST", queue, "DELETE,GET,HEAD,PATCH,PUT"),
        ("BREW", queue, "DELETE,GET,HEAD,PATCH,PUT"),
        ("OPTIONS", queue, "DELETE,GET,HEAD,PATCH,PUT"),
        ("PUT", "/v1/queues/orders/messages", "GET,HEAD,POST"),
        (
            "POST",
            "/v1/queues/orders/messages/msg_0000000000001",
            "DELETE,GET,HEAD",
        ),
        ("GET", "/v1/queues/orders/receive", "POST"),
        ("GET", "/v1/queues/orders/ack", "POST"),
        ("GET", "/v1/queues/orders/purge", "POST"),
        ("POST", "/v1/queues/orders/dead-letters", "GET,HEAD"),
        ("POST", "/livez", "GET,HEAD"),
        ("POST", "/readyz", "GET,HEAD"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ] {
        let answer = Answer::of(app.request(method.parse().unwrap(), path)).await;
        answer.expect_problem(405, "method-not-allowed");
        let allow = answer.headers["allow"].to_str().unwrap();
        let mut methods: Vec<&str> = allow.split(',').map(str::trim).collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allowed, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_is_not_found() {
    let app = App::start().await;
    for path in [
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
    ] {
        for method in [Method::GET, Method::POST] {
            let answer = Answer::of(app.request(method, path)).await;
            answer.expect_problem(404, "not-found");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_text_is_refused() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for path in [
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
    ] {
        app.get(path).await.expect_problem(400, "invalid-path");
    }
    // Half an escape is text, though no name.
    for path in ["/v1/queues/%", "/v1/queues/%0", "/v1/queues/%zz"] {
        app.get(path).await.expect_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_query_parameters_are_refused_by_name_everywhere() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let queue = "/v1/queues/orders";
    for (method, path, body) in [
        ("GET", "", ""),
        ("PUT", "", "{}"),
        ("PATCH", "", "{}"),
        ("DELETE", "", ""),
        ("POST", "/purge", "{}"),
        ("GET", "/messages", ""),
        ("POST", "/messages", r#"{"body": 1}"#),
        ("GET", "/messages/msg_0000000000001", ""),
        ("DELETE", "/messages/msg_0000000000001", ""),
        ("POST", "/receive", "{}"),
        ("POST", "/ack", r#"{"receipts": ["r"]}"#),
        ("POST", "/nack", r#"{"receipts": ["r"]}"#),
        ("POST", "/extend", r#"{"receipts": ["r"]}"#),
        ("GET", "/dead-letters", ""),
        ("GET", "/dead-letters/msg_0000000000001", ""),
        ("DELETE", "/dead-letters/msg_0000000000001", ""),
        ("POST", "/dead-letters/redrive", r#"{"filter": {}}"#),
        ("POST", "/dead-letters/purge", "{}"),
    ] {
        let path = format!("{queue}{path}?wait_secs=5");
        let request = app
            .request(method.parse().unwrap(), &path)
            .header("content-type", "application/json")
            .body(body);
        let problem = Answer::of(request)
            .await
            .expect_problem(400, "invalid-query");
        assert!(
            problem["detail"].as_str().unwrap().contains("wait_secs"),
            "{problem}"
        );
    }
    app.get("/v1/queues?wait_secs=5")
        .await
        .expect_problem(400, "invalid-query");
    for bad in [
        "limit=1&limit=2",
        "prefix=%00",
        "limit=",
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=9223372036854775808",
        "limit=1e2",
        "cursor=x&cursor=y",
    ] {
        app.get(&format!("/v1/queues?{bad}"))
            .await
            .expect_problem(400, "invalid-query");
    }
    assert_eq!(app.counts("orders").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_can_be_read_in_two_ways_are_refused_and_the_connection_closed() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let message = r#"{"body": 1}"#;
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
        let request = format!(
            "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\n\
             Content-Type: application/json\r\n{headers}\r\n\r\n{message}"
        );
        let answer = exchange(&app, request.as_bytes()).await;
        assert_eq!(status(&answer), 400, "{headers}: {answer}");
    }
    for line in [
        "GET",
        "GET /livez",
        "GET /livez HTTP/9.9",
        "GET /li vez HTTP/1.1",
        "\0\0\0",
    ] {
        let answer = exchange(&app, format!("{line}\r\n\r\n").as_bytes()).await;
        assert!(matches!(status(&answer), 400 | 505), "{line}: {answer}");
    }
    expect_counts(&app, "orders", &json!({"ready": 0})).await;
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
pub(super) async fn exchange_lossy(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = connect(gateway).await;
    if stream.write_all(request).await.is_err() {
        return String::new();
    }
    read_to_end(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_announced_too_large_is_refused_unread() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for (path, content_type) in [
        ("/v1/queues/orders/messages", "application/json"),
        ("/v1/queues/orders/messages", "application/octet-stream"),
        ("/v1/queues/orders/receive", "application/json"),
        ("/v1/queues/orders/ack", "application/json"),
    ] {
        let mut stream = connect(&app).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n\
             Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), read_to_end(&mut stream))
            .await
            .unwrap();
        assert_eq!(status(&answer), 413, "not even 100 Continue: {answer}");
        assert_eq!(problem(&answer)["code"], "body-too-large");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_stores_nothing() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let message = br#"{"body": 1}"#;
    for (framing, sent) in [
        ("Content-Length: 12", message.as_slice()),
        ("Content-Length: 1000000", message.as_slice()),
        ("Content-Length: 11", b"".as_slice()),
        (
            "Transfer-Encoding: chunked",
            b"b\r\n{\"body\": 1}\r\n".as_slice(),
        ),
        ("Transfer-Encoding: chunked", b"b\r\n{\"body\"".as_slice()),
        (
            "Transfer-Encoding: chunked",
            b"xyz\r\n{\"body\": 1}\r\n0\r\n\r\n".as_slice(),
        ),
    ] {
        for content_type in ["application/json", "text/plain"] {
            let head = format!(
                "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\n\
                 Content-Type: {content_type}\r\n{framing}\r\n\r\n"
            );
            let mut stream = connect(&app).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let answer = read_to_end(&mut stream).await;
            assert!(matches!(status(&answer), 0 | 400), "{framing}: {answer}");
        }
    }
    // The connection of somebody else is none the worse.
    let id = app.publish("orders", json!({"body": "whole"})).await;
    assert_eq!(app.receive_one("orders").await["id"], id.as_str());
    app.assert_conserved(&app.database, "orders").await;
    expect_counts(&app, "orders", &json!({"ready": 0, "leased": 1})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_arrive_is_given_up_after_thirty_seconds() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let started = Instant::now();
    let answers = ["application/json", "text/plain"].map(async |content_type| {
        let head = format!(
            "POST /v1/queues/orders/messages HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n\
             Content-Length: 12\r\n\r\n{{\"body\": 1}}"
        );
        exchange(&app, head.as_bytes()).await
    });
    let [json, bytes] = answers;
    let (json, bytes) = tokio::join!(json, bytes);
    for answer in [json, bytes] {
        assert_eq!(status(&answer), 408, "{answer}");
        assert_eq!(problem(&answer)["code"], "body-timeout");
    }
    let waited = started.elapsed().as_secs_f64();
    assert!((29.0..50.0).contains(&waited), "{waited}");
    expect_counts(&app, "orders", &json!({"ready": 0})).await;
}
