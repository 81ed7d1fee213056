//! Bodies that are refused before all of them is here: who still sends hears of
//! it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::super::bad::http::{connect, problem, status};
use super::read_answer;
use crate::support::{Database, Gateway, config};

const MIB: usize = 1024 * 1024;

async fn start(body_memory_mib: u32) -> (Database, Gateway) {
    let database = Database::migrated().await;
    let mut config = config(&database.url());
    config.body_memory_mib = body_memory_mib;
    let gateway = Gateway::start(&config).await;
    gateway.queue("work", json!({})).await;
    (database, gateway)
}

/// Sends all of a body of so many bytes, and only then listens.
async fn send_then_listen(gateway: &Gateway, length: usize, is_chunked: bool) -> String {
    let mut stream = connect(gateway).await;
    let framing = if is_chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {length}")
    };
    let head = format!(
        "POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n\
         {framing}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; MIB];
    let chunk = [b"100000\r\n".as_slice(), &piece, b"\r\n"].concat();
    for n in 0..length / MIB {
        let piece = if is_chunked { &chunk } else { &piece };
        let sent = stream.write_all(piece).await;
        sent.unwrap_or_else(|e| panic!("{e} after {n} MiB"));
    }
    if is_chunked {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    read_answer(&mut stream).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_all_before_it_listens_hears_that_its_body_is_too_large() {
    let (_database, gateway) = start(128).await;
    for is_chunked in [false, true] {
        let answer = send_then_listen(&gateway, 20 * MIB, is_chunked).await;
        assert_eq!(status(&answer), 413, "{answer}");
        assert_eq!(problem(&answer)["code"], "body-too-large");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_all_before_it_listens_hears_that_there_is_no_room() {
    let (_database, gateway) = start(16).await;
    // Most of the room is taken, by one that does not go on.
    let mut upload = connect(&gateway).await;
    let head = b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\n\
        Content-Type: text/plain\r\nContent-Length: 16000000\r\n\r\n";
    upload.write_all(head).await.unwrap();
    upload.write_all(&vec![b'x'; 15_000_000]).await.unwrap();
    crate::support::eventually("there is no room", async || {
        let request = gateway.request(reqwest::Method::POST, "/v1/queues/work/messages");
        let request = request.header("content-type", "text/plain");
        let answer = request.body(vec![b'x'; 4 * MIB]).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    for is_chunked in [false, true] {
        let answer = send_then_listen(&gateway, 12 * MIB, is_chunked).await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert_eq!(problem(&answer)["code"], "overloaded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_in_the_middle_hears_of_its_refusal_and_not_of_its_pause() {
    let (_database, gateway) = start(128).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![b' '; 17 * MIB]).unwrap();
    let gzip = gzip.finish().unwrap();
    for (field, body) in [
        ("Content-Encoding: gzip", gzip),
        ("X: y", vec![b' '; 16 * MIB + 1]),
    ] {
        let mut stream = connect(&gateway).await;
        // In one chunk, whose last byte does not come.
        let head = format!(
            "POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n\
             {field}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            body.len() + 1
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let sent = Instant::now();
        let answer = read_answer(&mut stream).await.expect("an answer");
        assert_eq!(status(&answer), 413, "{answer}");
        let waited = sent.elapsed();
        assert!(waited < Duration::from_secs(12), "{waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_before_it_sends_is_not_told_to_send_what_is_refused() {
    let (_database, gateway) = start(128).await;
    let mut stream = connect(&gateway).await;
    let head = b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n\
        Content-Length: 20000000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    // Not 100.
    let answer = read_answer(&mut stream).await.expect("an answer");
    assert_eq!(status(&answer), 413, "{answer}");
}
