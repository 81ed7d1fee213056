//! The end of a gateway, as its clients see it.

use std::time::Duration;

use postrider::config::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::super::bad::http::{connect, read_to_end, status};
use super::{http2_client, read_answer, start};
use crate::support::{Database, Gateway, certificate, eventually, https_client};

fn publish(body: &str) -> String {
    let message = format!("{{\"body\": \"{body}\"}}");
    format!(
        "POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{message}",
        message.len()
    )
}

/// Publishes without a pause, on connections that are kept, until one cannot
/// connect any more; how often it got 201.
async fn publish_until_gone(address: std::net::SocketAddr, client: usize) -> usize {
    let mut stored = 0;
    while let Ok(mut stream) = TcpStream::connect(address).await {
        let mut goes_on = true;
        while goes_on {
            let request = publish(&format!("{client}-{stored}"));
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = read_answer(&mut stream).await.expect("an answer");
            assert_eq!(status(&answer), 201, "{answer}");
            stored += 1;
            goes_on = !answer.contains("connection: close\r\n");
        }
    }
    stored
}

/// Ends the gateway while these clients publish: what they count as stored is
/// what is there.
async fn assert_nothing_lost(database: &Database, gateway: Gateway, clients: JoinSet<usize>) {
    eventually("all publish", async || {
        gateway.counts("work").await["ready"].as_u64().unwrap() > 100
    })
    .await;
    gateway.app.shut_down().await.unwrap();
    let stored: usize = clients.join_all().await.into_iter().sum();
    let (there,): (i64,) = sqlx::query_as("SELECT count(*) FROM postrider.messages")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(usize::try_from(there).unwrap(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_the_gateway_ends() {
    const CLIENTS: usize = 16;
    let (database, gateway) = start(Server::default()).await;
    gateway.queue("work", json!({})).await;
    let address = gateway.app.address();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(publish_until_gone(address, client));
    }
    assert_nothing_lost(&database, gateway, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_over_http_2_is_lost_while_the_gateway_ends() {
    let (database, gateway) = start(Server::default()).await;
    gateway.queue("work", json!({})).await;
    let (url, client) = (gateway.url("/v1/queues/work/messages"), http2_client());
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let (url, client) = (url.clone(), client.clone());
        clients.spawn(async move {
            let mut stored = 0;
            loop {
                let request = client
                    .post(&url)
                    .header("content-type", "application/json")
                    .body(r#"{"body": 1}"#);
                match request.send().await {
                    Ok(response) => assert_eq!(response.status(), 201),
                    Err(error) if error.is_connect() => return stored,
                    Err(error) => panic!("{error:?}"),
                }
                stored += 1;
            }
        });
    }
    assert_nothing_lost(&database, gateway, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_half_here_are_answered_and_their_connections_closed() {
    let (_database, gateway) = start(Server::default()).await;
    gateway.queue("work", json!({})).await;
    let request = publish("late");
    let mut streams = Vec::new();
    // In the middle of the head, before the body, in the middle of it.
    for sent in [10, request.len() - 16, request.len() - 4] {
        let mut stream = connect(&gateway).await;
        stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
        streams.push((stream, &request[sent..]));
    }
    // That the gateway has read so far cannot be seen; it has if it answers what
    // came later.
    gateway.get("/livez").await;
    let ending = tokio::task::JoinSet::from_iter([gateway.app.shut_down()]);
    for (stream, rest) in &mut streams {
        stream.write_all(rest.as_bytes()).await.unwrap();
        let answer = read_to_end(stream).await;
        assert_eq!(status(&answer), 201, "{answer}");
        let head = answer.to_lowercase();
        assert!(head.contains("connection: close\r\n"), "{answer}");
    }
    for ended in ending.join_all().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_do_not_hold_the_gateway_up() {
    let (_database, gateway) = start(Server::default()).await;
    let mut used = connect(&gateway).await;
    used.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut beginning = [0; 12];
    used.read_exact(&mut beginning).await.unwrap();
    let mut silent = connect(&gateway).await;
    // Keeps its connection.
    let http2 = http2_client();
    let livez = http2.get(gateway.url("/livez")).send().await.unwrap();
    assert_eq!(livez.status(), 200);
    let started = std::time::Instant::now();
    gateway.app.shut_down().await.unwrap();
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    for stream in [&mut used, &mut silent] {
        read_to_end(stream).await;
    }
}

/// Waiting receivers get an empty answer, not an error.
async fn send_home(gateway: Gateway, client: reqwest::Client, url: String) {
    const RECEIVERS: usize = 10;
    let mut receivers = JoinSet::new();
    for _ in 0..RECEIVERS {
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(r#"{"wait_seconds": 60}"#);
        receivers.spawn(async move {
            let response = request.send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
    }
    gateway.until_waiting(RECEIVERS).await;
    let started = std::time::Instant::now();
    gateway.app.shut_down().await.unwrap();
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    for (status, text) in receivers.join_all().await {
        assert_eq!((status, text.as_str()), (200, "{\"messages\":[]}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_are_sent_home_over_http_2() {
    let (_database, gateway) = start(Server::default()).await;
    gateway.queue("work", json!({})).await;
    let url = gateway.url("/v1/queues/work/receive");
    send_home(gateway, http2_client(), url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_are_sent_home_over_tls() {
    for is_http1 in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = certificate();
        let files = [("cert", &pem), ("key", &key)].map(|(name, text)| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            Some(file)
        });
        let [tls_cert, tls_key] = files;
        let (_database, gateway) = start(Server {
            tls_cert,
            tls_key,
            ..Server::default()
        })
        .await;
        let client = https_client(&pem, is_http1);
        let url = |path| gateway.url(path).replace("http://", "https://");
        let made = client.put(url("/v1/queues/work")).send().await.unwrap();
        assert_eq!(made.status(), 201);
        let receive = url("/v1/queues/work/receive");
        send_home(gateway, client, receive).await;
    }
}
