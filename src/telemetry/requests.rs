//! The log's line about a request.
//!
//! A line for each request is what a person at a terminal wants, and a gigabyte
//! in minutes for a gateway at work. So by default only what failed is logged,
//! and of that no more than a reader or a disk can take: whoever may not come in
//! may knock as often as they like.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LogRequests;

/// Lines about failures a second, at most; refusals (4xx) and failures of ours
/// (5xx) each.
const LINES: u32 = 100;

/// Bytes of a path that are logged, at most.
const PATH: usize = 256;

/// Bytes of a method, at most; the standard's own have seven.
const METHOD: usize = 16;

/// Which requests are logged.
#[derive(Debug)]
pub struct RequestLog {
    which: LogRequests,
    refused: Mutex<Window>,
    failed: Mutex<Window>,
}

/// What a request's line says that is known when it comes.
#[derive(Debug)]
pub struct RequestLine {
    log: Arc<RequestLog>,
    started: Instant,
    /// Trace id or `-`, method, path, with spaces between: in one piece, since
    /// it is kept for each request in hand.
    text: Box<str>,
}

/// What it says that is known when it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The answer's status.
    pub status: u16,
    /// The problem's code.
    pub code: Option<&'a str>,
    /// The operation's id, if it is one.
    pub operation: Option<&'a str>,
    /// Whether that is one that programs call every few seconds.
    pub is_about_health: bool,
    /// The request's id.
    pub request_id: &'a str,
    /// The id of the API key that it came with.
    pub key: Option<&'a str>,
}

/// How many lines were written in the second that began then.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Window {
    /// Whether one more line may be written, and how many were not since the
    /// last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .began
            .is_none_or(|began| now - began >= Duration::from_secs(1))
        {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written < LINES {
            self.written += 1;
            Some(std::mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }
}

impl RequestLog {
    /// Logs these.
    #[must_use]
    pub fn new(which: LogRequests) -> Self {
        Self {
            which,
            refused: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Whether the line may be written, and if so how many were left out before
    /// it.
    fn admit(&self, answered: Answered<'_>) -> Option<u64> {
        if self.which == LogRequests::All {
            return Some(0);
        }
        let window = match answered.status {
            400..500 => &self.refused,
            // Who asks for one's health logs the answer.
            500.. if !answered.is_about_health => &self.failed,
            _ => return None,
        };
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        window.admit(Instant::now())
    }
}

impl RequestLine {
    /// Takes down what is known of a request, if its line may be written. The
    /// path is without its query, in which people put what they should not.
    #[must_use]
    pub fn of(
        log: &Arc<RequestLog>,
        method: &str,
        path: &str,
        trace_id: Option<u128>,
    ) -> Option<Self> {
        if log.which == LogRequests::Off
            || !tracing::enabled!(target: "postrider::request", tracing::Level::WARN)
        {
            return None;
        }
        let (method, path) = (clipped(method, METHOD), clipped(path, PATH));
        let text = match trace_id {
            Some(trace_id) => format!("{trace_id:032x} {method} {path}"),
            None => ["- ", method, " ", path].concat(),
        };
        Some(Self {
            log: Arc::clone(log),
            started: Instant::now(),
            text: text.into(),
        })
    }

    /// Writes the line, if there is to be one.
    pub fn write(&self, answered: Answered<'_>) {
        let Some(left_out) = self.log.admit(answered) else {
            return;
        };
        let not_logged = (left_out > 0).then_some(left_out);
        let mut parts = self.text.splitn(3, ' ');
        let trace_id = parts.next().filter(|id| *id != "-");
        let (method, path) = (parts.next(), parts.next());
        // An event's level is fixed where it stands.
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "postrider::request",
                    tracing::Level::$level,
                    method,
                    path,
                    operation = answered.operation,
                    status = answered.status,
                    code = answered.code,
                    milliseconds = milliseconds(self.started),
                    request_id = answered.request_id,
                    key = answered.key,
                    trace_id,
                    not_logged,
                    "request"
                )
            };
        }
        if answered.status >= 500 {
            line!(WARN);
        } else {
            line!(INFO);
        }
    }
}

/// Since then, to the microsecond.
fn milliseconds(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// At most so many bytes of it.
fn clipped(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_says_how_many_are_missing() {
        let (mut window, began) = (Window::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(window.admit(began), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(window.admit(began + Duration::from_millis(999)), None);
        }
        assert_eq!(window.admit(began + Duration::from_secs(1)), Some(7));
        assert_eq!(window.admit(began + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn long_texts_are_clipped_between_characters() {
        assert_eq!(clipped("/v1/ö", 4), "/v1/");
        assert_eq!(clipped("/v1/ö", 5), "/v1/");
        assert_eq!(clipped("/v1/ö", 6), "/v1/ö");
        assert_eq!(clipped("/v1/ö", 600), "/v1/ö");
    }
}
