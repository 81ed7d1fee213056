//! HTTP/2 in the clear.

use std::time::Duration;

use postrider::config::Server;
use reqwest::{StatusCode, Version};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::super::bad::http::{connect, exchange, status};
use super::{http2_client, start};
use crate::support::{Answer, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_many_receivers_that_wait_and_takes_publishes_meanwhile() {
    const RECEIVERS: u32 = 50;
    let (_database, gateway) = start(Server {
        max_connections: RECEIVERS,
        head_time: Duration::from_hours(1),
        ..Server::default()
    })
    .await;
    // Over HTTP/1.1, on another connection; one is left.
    gateway.queue("work", json!({})).await;
    let mut silent = Vec::new();
    for _ in 0..RECEIVERS - 2 {
        silent.push(connect(&gateway).await);
    }
    let client = http2_client();
    let post = |path: &str, body: serde_json::Value| {
        let request = client
            .post(gateway.url(path))
            .header("content-type", "application/json")
            .body(body.to_string());
        async {
            let response = request.send().await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    assert_eq!(post("/v1/queues/work/receive", json!({})).await.0, 200);
    let mut receivers = JoinSet::new();
    for _ in 0..RECEIVERS {
        receivers.spawn(post("/v1/queues/work/receive", json!({"wait_seconds": 60})));
    }
    gateway.until_waiting(RECEIVERS as usize).await;
    for n in 0..RECEIVERS {
        let published = post("/v1/queues/work/messages", json!({"body": n})).await;
        assert_eq!(published.0, 201, "{}", published.1);
    }
    for (status, text) in receivers.join_all().await {
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("\"receipt\""), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_receivers_wait_than_connections_are_allowed() {
    const ALLOWED: u32 = 3;
    let (_database, gateway) = start(Server {
        max_connections: ALLOWED,
        ..Server::default()
    })
    .await;
    gateway.queue("work", json!({})).await;
    let client = http2_client();
    let receive = |wait: u32| {
        let request = client
            .post(gateway.url("/v1/queues/work/receive"))
            .header("content-type", "application/json")
            .body(json!({"wait_seconds": wait}).to_string());
        Answer::of(request)
    };
    // The connection is there before any of them asks.
    receive(0).await.expect(StatusCode::OK);
    let mut receivers = JoinSet::new();
    for _ in 0..ALLOWED {
        receivers.spawn(receive(60));
    }
    let waiting = || gateway.app.broker().waiting().values().sum::<usize>();
    eventually("all wait", async || waiting() == ALLOWED as usize).await;
    let refused = receive(60);
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    refused.unwrap().expect_problem(503, "overloaded");
    // Who does not wait is served, and one that has gone home makes room.
    receive(0).await.expect(StatusCode::OK);
    gateway.publish("work", json!({"body": 1})).await;
    let served = receivers.join_next().await.unwrap().unwrap();
    assert!(served.expect(StatusCode::OK)["messages"][0].is_object());
    receivers.spawn(receive(60));
    eventually("all wait again", async || waiting() == ALLOWED as usize).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_in_pieces_is_one() {
    let (_database, gateway) = start(Server::default()).await;
    let mut stream = connect(&gateway).await;
    stream.set_nodelay(true).unwrap();
    for piece in [&b"PRI"[..], b" * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"] {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // SETTINGS, empty.
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "SETTINGS: {frame:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_http2_the_preface_is_a_bad_request() {
    let (_database, gateway) = start(Server {
        http2: false,
        ..Server::default()
    })
    .await;
    let answer = exchange(&gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1 2"), "{answer}");
    let answer = exchange(
        &gateway,
        b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(status(&answer), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_reset_without_end_end_the_connection() {
    let (_database, gateway) = start(Server::default()).await;
    let mut stream = connect(&gateway).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // GET http /livez, from the static table, and :authority x.
    let block = [
        0x82, 0x86, 0x04, 6, b'/', b'l', b'i', b'v', b'e', b'z', 0x41, 1, b'x',
    ];
    for n in 0..20_000_u32 {
        let id = (2 * n + 1).to_be_bytes();
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 4 | 1]);
        bytes.extend(id);
        bytes.extend(block);
        bytes.extend([0, 0, 4, 3, 0]);
        bytes.extend(id);
        bytes.extend([0, 0, 0, 8]);
    }
    let (mut read, mut write) = stream.split();
    let send = async { write.write_all(&bytes).await };
    let receive = async {
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = read.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..count]);
        }
        answer
    };
    let both = async { tokio::join!(send, receive) };
    let (_, answer) = tokio::time::timeout(Duration::from_secs(30), both)
        .await
        .unwrap();
    // GOAWAY with ENHANCE_YOUR_CALM, unless the reset overtook it.
    let calm = [7, 0, 0, 0, 0, 0];
    assert!(
        answer.windows(6).any(|six| six == calm) || answer.len() < 100_000,
        "{}",
        answer.len()
    );
    // Others are served.
    let livez = http2_client()
        .get(gateway.url("/livez"))
        .send()
        .await
        .unwrap();
    assert_eq!(livez.status(), 200);
}
