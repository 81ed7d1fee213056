//! HTTP/2 clients that begin a head or a body, and leave off or drip.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::bad::http::connect;
use super::rests::{GET_LIVEZ, PREFACE, SETTINGS, assert_about};
use super::times::closed_after;
use super::{http2_client, short_times, start};
use crate::support::{Answer, Gateway};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// The same request on a stream of its own, without `END_HEADERS`: as much of it.
fn half_a_head(id: u8, length: u8) -> Vec<u8> {
    let mut half = GET_LIVEZ[..9 + usize::from(length)].to_vec();
    half[2] = length;
    half[4] = 1;
    half[8] = id;
    half
}

/// A CONTINUATION of one byte, which does not end it either.
fn a_byte_more(id: u8) -> Vec<u8> {
    vec![0, 0, 1, 9, 0, 0, 0, 0, id, 0x82]
}

/// How often more is sent. Not more often: who sends many small CONTINUATIONs is sent
/// away at once.
const EVERY: Duration = Duration::from_millis(450);

/// A connection on which one request has been answered.
async fn after_a_request(gateway: &Gateway) -> TcpStream {
    let mut stream = connect(gateway).await;
    let settled = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let first = [PREFACE, SETTINGS, GET_LIVEZ, &settled].concat();
    stream.write_all(&first).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        // DATA with END_STREAM.
        if head[3] == 0 && head[4] & 1 == 1 {
            return stream;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_first_head_has_the_time_of_a_head_however_it_drips() {
    let (_database, gateway) = start(short_times(2 * SECOND, HOUR)).await;
    for (half, drip) in [
        (half_a_head(1, 13), Vec::new()),
        (half_a_head(1, 5), a_byte_more(1)),
        (GET_LIVEZ[..15].to_vec(), vec![b'i']),
        (GET_LIVEZ[..3].to_vec(), Vec::new()),
    ] {
        let mut stream = connect(&gateway).await;
        let first = [PREFACE, SETTINGS, &half].concat();
        let waited = closed_after(&mut stream, &first, (&drip, EVERY)).await;
        assert_about(waited, 2.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_later_head_has_the_time_of_a_head_however_it_drips() {
    let (_database, gateway) = start(short_times(2 * SECOND, HOUR)).await;
    for (half, drip) in [
        (half_a_head(3, 13), Vec::new()),
        (half_a_head(3, 5), a_byte_more(3)),
        (half_a_head(3, 13)[..15].to_vec(), vec![b'i']),
        (half_a_head(3, 13)[..3].to_vec(), Vec::new()),
    ] {
        let mut stream = after_a_request(&gateway).await;
        // It has rested for longer than a head may take.
        tokio::time::sleep(3 * SECOND).await;
        let waited = closed_after(&mut stream, &half, (&drip, EVERY)).await;
        assert_about(waited, 2.0);
    }
}

/// Publishes a body that does not come to its end.
async fn published(gateway: &Gateway, pause: Duration) -> (Answer, Duration) {
    let started = Instant::now();
    let pieces = stream::unfold(true, move |is_first| async move {
        if !is_first {
            tokio::time::sleep(pause).await;
        }
        let piece = if is_first { &b"{\"body\":\""[..] } else { b"x" };
        Some((Ok::<_, Infallible>(Bytes::from_static(piece)), false))
    });
    let request = http2_client()
        .post(gateway.url("/v1/queues/work/messages"))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(pieces));
    let answer = tokio::time::timeout(Duration::from_mins(1), Answer::of(request)).await;
    (answer.expect("it is answered"), started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_http_2_that_stops_or_drips_is_refused_after_thirty_seconds() {
    let (_database, gateway) = start(short_times(SECOND, HOUR)).await;
    gateway.queue("work", json!({})).await;
    let stops = published(&gateway, HOUR);
    let drips = published(&gateway, Duration::from_millis(500));
    for (answer, waited) in <[_; 2]>::from(tokio::join!(stops, drips)) {
        answer.expect_problem(408, "body-timeout");
        assert_about(waited, 30.0);
    }
    assert_eq!(gateway.counts("work").await["ready"], 0);
}
