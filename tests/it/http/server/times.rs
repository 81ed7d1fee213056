//! Clients that take their time.

use std::time::{Duration, Instant};

use postrider::config::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::bad::http::{connect, read_to_end, status};
use super::{read_answer, short_times, start};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends what is whole and reads one answer; the connection stays.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    read_answer(stream).await.unwrap()
}

/// How long it takes until the gateway closes, if this is sent first and then, now and
/// again, that.
pub(super) async fn closed_after(
    stream: &mut TcpStream,
    first: &[u8],
    (drip, every): (&[u8], Duration),
) -> Duration {
    let started = Instant::now();
    stream.write_all(first).await.unwrap();
    let (mut read, mut write) = stream.split();
    let dripping = async {
        loop {
            tokio::time::sleep(every).await;
            if write.write_all(drip).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let closed = async {
        let mut bytes = [0; 1024];
        // A reset is an end, too.
        while let Ok(1..) = read.read(&mut bytes).await {}
    };
    tokio::select! {
        () = closed => {}
        () = dripping => {}
        () = tokio::time::sleep(Duration::from_mins(1)) => {}
    }
    started.elapsed()
}

#[track_caller]
fn assert_about(waited: Duration, seconds: f64) {
    let waited = waited.as_secs_f64();
    assert!(
        (seconds - 0.1..seconds + 1.5).contains(&waited),
        "{waited} s, not {seconds}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_ten_seconds_however_little_of_it_comes() {
    let (_database, gateway) = start(Server::default()).await;
    let waits = [
        (&b""[..], HOUR),
        (b"", Duration::from_millis(4900)),
        (b"G", HOUR),
        (b"PRI * HTTP/2.0\r\n", HOUR),
        (b"GET /livez HTTP/1.1\r\nX: ", Duration::from_secs(5)),
        (
            b"GET /livez HTTP/1.1\r\nX: y\r\n",
            Duration::from_millis(700),
        ),
    ]
    .map(async |(first, drip)| {
        let mut stream = connect(&gateway).await;
        closed_after(&mut stream, first, (b"x", drip)).await
    });
    for waited in futures_util::future::join_all(waits).await {
        assert_about(waited, 10.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_rest_longer_between_two_requests_than_a_head_may_take() {
    let (_database, gateway) = start(short_times(SECOND, 4 * SECOND)).await;
    let mut stream = connect(&gateway).await;
    assert_eq!(status(&ask(&mut stream, LIVEZ).await), 200);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(status(&ask(&mut stream, LIVEZ).await), 200);
    assert_about(closed_after(&mut stream, b"", (b"x", HOUR)).await, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_begun_on_a_rested_connection_has_no_longer_than_any() {
    let (_database, gateway) = start(short_times(SECOND, HOUR)).await;
    let mut stream = connect(&gateway).await;
    assert_eq!(status(&ask(&mut stream, LIVEZ).await), 200);
    tokio::time::sleep(2 * SECOND).await;
    let drip = Duration::from_millis(300);
    assert_about(
        closed_after(&mut stream, b"GET /li", (b"x", drip)).await,
        1.0,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_waits_is_not_a_client_that_takes_its_time() {
    let (_database, gateway) = start(short_times(SECOND, SECOND)).await;
    gateway.queue("work", json!({})).await;
    let mut stream = connect(&gateway).await;
    let body = r#"{"wait_seconds": 3}"#;
    let request = format!(
        "POST /v1/queues/work/receive HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(&mut stream, request.as_bytes()).await;
    assert!(answer.ends_with("{\"messages\":[]}\n"), "{answer}");
    assert_eq!(status(&ask(&mut stream, LIVEZ).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_at_once_are_answered_one_after_the_other() {
    let (_database, gateway) = start(short_times(SECOND, SECOND)).await;
    let mut stream = connect(&gateway).await;
    stream.write_all(&LIVEZ.repeat(50)).await.unwrap();
    let answers = read_to_end(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 50, "{answers}");
}
