//! Pushes: the requests that this gateway makes. The only place that knows the
//! outbound HTTP client.
//!
//! A receiver is a stranger's program, so nothing about its answer is taken on
//! trust:
//!
//! - One deadline holds for the whole exchange: resolving, connecting, the
//!   answer's head and its body.
//! - An answer is read to [`READ`] bytes and kept to [`KEPT`]; one that goes on
//!   is cut off, and its status counts. Nothing is decompressed.
//! - No redirect is followed, no proxy of the environment is used, nothing is
//!   tried twice.
//! - An address is checked when it is connected to: of a name, each address
//!   that was found, and the connection goes to one of those ([`resolve`]); a
//!   literal one right before.
//!
//! A failed push is an outcome, not an error.

mod error;
mod pusher;
mod resolve;

use std::time::Duration;

use bytes::Bytes;

use crate::domain::{Seconds, WebhookUrl};

pub use error::Error;
pub use pusher::Pusher;
pub use resolve::Names;

/// Bytes of an answer's body that are read, at most: what follows is more than
/// anybody would say to a webhook.
pub const READ: usize = 16 * 1024;

/// Bytes of it that are kept, to be shown.
pub const KEPT: usize = 1024;

/// One request.
#[derive(Debug, Clone)]
pub struct Push<'a> {
    /// Where to.
    pub url: &'a WebhookUrl,
    /// Names and values; of several with one name the last counts. The headers
    /// below are set after them.
    pub headers: Vec<(String, String)>,
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`, in seconds since 1970; also the time from which a
    /// date in the answer is seen.
    pub timestamp: i64,
    /// `webhook-signature`, as [`sign`](crate::domain::sign) makes it.
    pub signature: String,
    /// The body.
    pub body: Bytes,
    /// For everything.
    pub timeout: Duration,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The answer's status, if one came.
    pub status: Option<u16>,
    /// What it means.
    pub outcome: PushOutcome,
    /// How long it took.
    pub duration: Duration,
    /// The first [`KEPT`] bytes of the answer's body, as they came.
    pub answer: Vec<u8>,
    /// Why there is no whole answer; for people, without the URL and secrets.
    pub error: Option<String>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// 2xx, and the answer came to its end, or over [`READ`].
    Delivered,
    /// 410: the receiver wants no more.
    Gone,
    /// 429 or 503 with a `Retry-After`: not before this has passed. At least a
    /// second, so that nobody is asked without a pause because they said 0.
    Wait(Seconds),
    /// Everything else: no whole answer, a redirect, any other status.
    Failed,
}
