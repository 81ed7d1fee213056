//! How connections end when the gateway does.
//!
//! HTTP/1.1 has no way to say "no more" to a client that is just sending its
//! next request, so connections are not closed at once: first every answer says
//! `Connection: close`, then, a moment later, those that rest are closed. Who
//! keeps asking hears of it in an answer; a request that was on its way is
//! answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// How long a connection may rest at the end: longer than a request is on its
/// way.
pub(super) const LINGER: Duration = Duration::from_millis(250);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not begun.
    Serving,
    /// Requests are answered, and their connections closed.
    Ending,
    /// Connections that rest are closed, too.
    Closing,
}

/// What all connections watch.
#[derive(Debug, Default)]
pub(super) struct Drain {
    phase: AtomicU8,
    moved: Arc<Notify>,
}

impl Drain {
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Ending,
            _ => Phase::Closing,
        }
    }

    /// Moves on, and wakes all connections.
    pub(super) fn move_to(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Ends at the next move.
    pub(super) fn moved(&self) -> OwnedNotified {
        Arc::clone(&self.moved).notified_owned()
    }
}
