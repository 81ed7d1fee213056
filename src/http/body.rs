//! Reading the body of a request: bounded in size, in time, and in what all bodies
//! that are on their way take together.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;

use super::capacity::{BodyRoom, Capacity, overloaded};
use super::coding::{self, Coding};
use super::problem::Problem;

/// Bytes of a request's body: a batch of 1,000 messages of 16 KiB.
pub(crate) const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How long, and for how many bytes, the rest of a body that is refused is read and
/// thrown away. A client that still sends when its connection is closed does not
/// hear the answer; one that goes on for longer would not listen anyway.
const REST_TIME: Duration = Duration::from_secs(2);
const REST_LIMIT: usize = 2 * BODY_LIMIT;

/// The whole body, expanded, at most [`BODY_LIMIT`] bytes, arrived within [`BODY_TIME`]; and
/// the room that it takes, to be kept for as long as the bytes are.
pub(crate) async fn read_body<'a>(
    capacity: &'a Capacity,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<(Bytes, BodyRoom<'a>), Problem> {
    let mut room = capacity.body();
    let refusal = match check_head(headers, &room) {
        Ok((announced, coding)) => {
            match read_within(&mut body, announced, coding, &mut room).await {
                Ok(bytes) => return Ok((bytes, room)),
                Err(refusal) => refusal,
            }
        }
        // It would be told to send what nobody wants.
        Err(refusal) if waits_to_be_told(headers) => return Err(refusal),
        Err(refusal) => refusal,
    };
    drop(room);
    if refusal.status() == StatusCode::REQUEST_TIMEOUT {
        // It had its time.
        return Err(refusal);
    }
    // Few are refused, so the rest have no room for it.
    let rest = Box::pin(throw_away(body));
    let _ = tokio::time::timeout(REST_TIME, rest).await;
    Err(refusal)
}

/// What the head says of the body: how long it is, and how it is compressed.
///
/// # Errors
/// If it is not worth reading.
fn check_head(
    headers: &HeaderMap,
    room: &BodyRoom<'_>,
) -> Result<(usize, Option<Coding>), Problem> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > BODY_LIMIT {
        return Err(body_too_large());
    }
    if !room.would_hold(announced) {
        return Err(overloaded());
    }
    Ok((announced, Coding::of(headers)?))
}

/// Whether the client sends its body only when it is told to.
fn waits_to_be_told(headers: &HeaderMap) -> bool {
    let expect = headers.get(EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

async fn read_within(
    body: &mut Body,
    announced: usize,
    coding: Option<Coding>,
    room: &mut BodyRoom<'_>,
) -> Result<Bytes, Problem> {
    let read = match coding {
        None => tokio::time::timeout(BODY_TIME, collect(body, announced, room)).await,
        // Few are compressed, so the rest have no room for it.
        Some(coding) => {
            let expanded = Box::pin(read_coded(coding, body, room));
            tokio::time::timeout(BODY_TIME, expanded).await
        }
    };
    read.unwrap_or_else(|_| {
        Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "The body did not arrive within 30 s.",
        ))
    })
}

async fn throw_away(mut body: Body) {
    let mut thrown = 0;
    while thrown <= REST_LIMIT
        && let Some(Ok(piece)) = next_piece(&mut body).await
    {
        thrown += piece.len();
    }
}

/// The next bytes of a body; `None` is its end.
pub(super) async fn next_piece(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
        match frame {
            Err(error) => return Some(Err(error)),
            Ok(frame) => {
                // Trailers are none.
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
        }
    }
}

/// A body that is compressed, expanded.
async fn read_coded(
    coding: Coding,
    body: &mut Body,
    room: &mut BodyRoom<'_>,
) -> Result<Bytes, Problem> {
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
    body: &mut Body,
    announced: usize,
    room: &mut BodyRoom<'_>,
) -> Result<Bytes, Problem> {
    let (mut first, mut whole) = (Bytes::new(), Vec::new());
    while let Some(data) = next_piece(body).await {
        let data = data.map_err(|_| cut_off())?;
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
