//! Reading the body of a request: bounded in size, in time, and in what all bodies
//! that are on their way take together.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody as _};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;

use super::capacity::{BodyRoom, Capacity, overloaded};
use super::coding::{self, Coding};
use super::problem::Problem;

/// Bytes of a request's body: a batch of 1,000 messages of 16 KiB.
pub(crate) const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// The whole body, expanded, at most [`BODY_LIMIT`] bytes, arrived within [`BODY_TIME`]; and
/// the room that it takes, to be kept for as long as the bytes are.
pub(crate) async fn read_body<'a>(
    capacity: &'a Capacity,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, BodyRoom<'a>), Problem> {
    // Refused unread, before a client that waits for 100 Continue sends it.
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > BODY_LIMIT {
        return Err(body_too_large());
    }
    let mut room = capacity.body();
    if !room.would_hold(announced) {
        return Err(overloaded());
    }
    let read = match Coding::of(headers)? {
        None => tokio::time::timeout(BODY_TIME, collect(body, announced, &mut room)).await,
        // Few are compressed, so the rest have no room for it.
        Some(coding) => {
            let expanded = Box::pin(read_coded(coding, body, &mut room));
            tokio::time::timeout(BODY_TIME, expanded).await
        }
    };
    match read {
        Ok(read) => Ok((read?, room)),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "The body did not arrive within 30 s.",
        )),
    }
}

/// A body that is compressed, expanded.
async fn read_coded(coding: Coding, body: Body, room: &mut BodyRoom<'_>) -> Result<Bytes, Problem> {
    coding::expand(coding, body, BODY_LIMIT, room)
        .await
        .map_err(|failure| match failure {
            coding::Failure::TooLarge => body_too_large(),
            coding::Failure::CutOff => cut_off(),
            coding::Failure::NoRoom => overloaded(),
            coding::Failure::Broken => Problem::bad_request(
                "malformed-encoding",
                "The body is not whole, or not what its Content-Encoding says.",
            ),
        })
}

/// Most bodies come in one piece, which is not copied.
async fn collect(
    mut body: Body,
    announced: usize,
    room: &mut BodyRoom<'_>,
) -> Result<Bytes, Problem> {
    let (mut first, mut whole) = (Bytes::new(), Vec::new());
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| cut_off())?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        room.grow(data.len())?;
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.reserve(announced);
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
        if first.len().max(whole.len()) > BODY_LIMIT {
            return Err(body_too_large());
        }
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.into()
    })
}

fn cut_off() -> Problem {
    Problem::bad_request(
        "body-cut-off",
        "The connection broke before the body ended.",
    )
}

fn body_too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("The request's body is over the limit of {BODY_LIMIT} bytes, expanded."),
    )
}
