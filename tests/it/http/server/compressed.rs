//! Compressed bodies.

use std::io::Write as _;

use postrider::config::Server;
use reqwest::Method;
use serde_json::json;

use super::super::counts::expect_counts;
use super::{http2_client, start};
use crate::support::{Answer, App, Gateway};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

async fn publish(gateway: &Gateway, content_type: &str, coding: &str, body: Vec<u8>) -> Answer {
    let request = gateway
        .request(Method::POST, "/v1/queues/work/messages")
        .header("content-type", content_type)
        .header("content-encoding", coding)
        .body(body);
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_stored_expanded() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let message = br#"{"body": {"b": 1.10,  "a": 9007199254740993}}"#;
    let bytes = vec![b'x'; 100_000];
    for (coding, compress) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("X-Gzip", gzip),
        ("zstd", zstd),
        ("identity", |bytes| bytes.to_vec()),
    ] {
        publish(&app, "application/json", coding, compress(message))
            .await
            .expect(reqwest::StatusCode::CREATED);
        let answer = app.post("/v1/queues/work/receive", json!({})).await;
        let body = r#""body":{"b": 1.10,  "a": 9007199254740993}"#;
        assert!(answer.text.contains(body), "{coding}: {}", answer.text);

        publish(&app, "text/plain", coding, compress(&bytes))
            .await
            .expect(reqwest::StatusCode::CREATED);
        let received = app.receive_one("work").await;
        assert_eq!(received["content_type"], "text/plain");
        let expected = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes);
        assert_eq!(received["body_base64"], expected, "{coding}");
    }
    // Other calls take them as well.
    let request = app
        .request(Method::PUT, "/v1/queues/other")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(gzip(br#"{"max_attempts": 7}"#));
    Answer::of(request)
        .await
        .expect(reqwest::StatusCode::CREATED);
    assert_eq!(app.counts("other").await["max_attempts"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_is_not_known_is_refused_with_those_that_are() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    for content_type in ["application/json", "text/plain"] {
        for coding in [
            "br",
            "deflate",
            "gzip, zstd",
            "compress",
            "gzip;q=1",
            "utf-8",
        ] {
            let answer = publish(&app, content_type, coding, gzip(br#"{"body": 1}"#)).await;
            answer.expect_problem(415, "unsupported-content-encoding");
            assert_eq!(answer.headers["accept-encoding"], "gzip, zstd");
        }
    }
    // A wrong content type is another thing.
    let answer = app.post("/v1/queues/work/ack", "{").await;
    assert!(
        !answer.headers.contains_key("accept-encoding"),
        "{answer:?}"
    );
    expect_counts(&app, "work", &json!({"ready": 0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_what_its_coding_says_is_malformed() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let message = br#"{"body": "some text that is long enough to be cut"}"#;
    for content_type in ["application/json", "text/plain"] {
        for (coding, bytes) in [("gzip", gzip(message)), ("zstd", zstd(message))] {
            let mut flipped = bytes.clone();
            let last = flipped.len() - 3;
            flipped[last] ^= 0xff;
            let mut broken = vec![
                bytes[..bytes.len() - 1].to_vec(),
                bytes[..bytes.len() / 2].to_vec(),
                bytes[..2].to_vec(),
                [&bytes[..], b"more"].concat(),
                message.to_vec(),
            ];
            // Without a checksum a flipped bit is another text.
            if coding == "gzip" {
                broken.push(flipped);
            }
            for body in broken {
                publish(&app, content_type, coding, body)
                    .await
                    .expect_problem(400, "malformed-encoding");
            }
        }
    }
    // Whole, but not JSON.
    publish(&app, "application/json", "gzip", gzip(b"{"))
        .await
        .expect_problem(400, "malformed-json");
    expect_counts(&app, "work", &json!({"ready": 0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expands_beyond_the_limit_is_too_large() {
    let (_database, app) = start(Server::default()).await;
    app.queue("work", json!({"max_message_bytes": 1_048_576}))
        .await;
    let limit = 16 * 1024 * 1024;
    for (coding, compress) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let over = compress(&vec![b' '; limit + 1]);
        assert!(over.len() < 100_000);
        for content_type in ["application/json", "text/plain"] {
            publish(&app, content_type, coding, over.clone())
                .await
                .expect_problem(413, "body-too-large");
        }
        let request = http2_client()
            .post(app.url("/v1/queues/work/messages"))
            .header("content-type", "text/plain")
            .header("content-encoding", coding)
            .body(over);
        Answer::of(request)
            .await
            .expect_problem(413, "body-too-large");

        // At the limit it is a batch like others; a message has its own limit.
        let mut batch = br#"{"messages": [{"body": 1}]}"#.to_vec();
        batch.resize(limit, b' ');
        publish(&app, "application/json", coding, compress(&batch))
            .await
            .expect(reqwest::StatusCode::CREATED);
        publish(&app, "text/plain", coding, compress(&vec![b' '; limit]))
            .await
            .expect_problem(413, "message-too-large");
    }
}
