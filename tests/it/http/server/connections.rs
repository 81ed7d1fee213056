//! As many connections as are allowed, and one more.

use std::time::{Duration, Instant};

use postrider::config::Server;
use tokio::io::AsyncWriteExt as _;

use super::super::bad::http::{connect, exchange, problem, read_to_end, status};
use super::start;
use crate::support::eventually;

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_told_so_and_finds_room_when_another_has_gone() {
    let (_database, gateway) = start(Server {
        max_connections: 2,
        ..Server::default()
    })
    .await;
    // Silent ones count, too. A third that is let in would be answered 200.
    let (first, second) = (connect(&gateway).await, connect(&gateway).await);
    let answer = exchange(&gateway, LIVEZ).await;
    assert_eq!(status(&answer), 503, "{answer}");
    let said = problem(&answer);
    assert_eq!(said["code"], "too-many-connections");
    let head = answer.to_lowercase();
    assert!(head.contains("retry-after: 1\r\n"), "{answer}");
    assert!(head.contains("connection: close\r\n"), "{answer}");
    let id = said["request_id"].as_str().unwrap();
    assert!(
        head.contains(&format!("x-request-id: {id}\r\n")),
        "{answer}"
    );

    // One that is told and says nothing is not waited for.
    let mut silent = connect(&gateway).await;
    let closed = tokio::time::timeout(Duration::from_secs(8), read_to_end(&mut silent));
    assert_eq!(closed.await.unwrap(), "");

    drop(first);
    eventually("there is room", async || {
        status(&exchange(&gateway, LIVEZ).await) == 200
    })
    .await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_make_room_however_they_end() {
    let (_database, gateway) = start(Server {
        max_connections: 3,
        ..Server::default()
    })
    .await;
    for round in 0..60 {
        let mut stream = connect(&gateway).await;
        match round % 4 {
            0 => stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .await
                .unwrap(),
            1 => stream.write_all(b"GET /").await.unwrap(),
            2 => stream.write_all(b"\0\0\0\r\n\r\n").await.unwrap(),
            _ => {}
        }
    }
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push(connect(&gateway).await);
    }
    eventually("there is room for one more", async || {
        status(&exchange(&gateway, LIVEZ).await) == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answers_is_given_up() {
    let (_database, gateway) = start(Server {
        max_connections: 1,
        ..Server::default()
    })
    .await;
    let mut stream = connect(&gateway).await;
    // Far more than sockets hold.
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    stream.write_all(&request).await.unwrap();
    let started = Instant::now();
    while status(&exchange(&gateway, LIVEZ).await) != 200 {
        assert!(started.elapsed() < Duration::from_mins(1), "it holds on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() > Duration::from_secs(29), "too early");
}
