//! The accept loop and what stands before the endpoints.

mod compressed;
mod connections;
mod cors;
mod drain;
mod halves;
mod heads;
mod http2;
mod refused;
mod rests;
mod times;
mod tls;

use std::time::Duration;

use postrider::config::Server;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::support::{Database, Gateway, config};

/// A gateway whose server has these settings, and its database.
async fn start(server: Server) -> (Database, Gateway) {
    let database = Database::migrated().await;
    let mut config = config(&database.url());
    config.server = server;
    let gateway = Gateway::start(&config).await;
    (database, gateway)
}

/// Times that a test can wait for.
fn short_times(head: Duration, idle: Duration) -> Server {
    Server {
        head_time: head,
        idle_time: idle,
        ..Server::default()
    }
}

/// Reads one answer, with its head in lower case; `None` if the connection ended
/// instead.
async fn read_answer(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// A client that begins with HTTP/2.
#[expect(clippy::disallowed_methods, reason = "tests ask what they please")]
fn http2_client() -> reqwest::Client {
    let builder = reqwest::Client::builder().http2_prior_knowledge();
    builder.build().unwrap()
}
