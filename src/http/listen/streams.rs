//! What an HTTP/2 connection is asked, as far as its rest goes.
//!
//! hyper pings a client that is silent, but leaves one alone that answers and
//! asks nothing, and one that does not even finish the handshake. Requests only
//! count here; a timer looks when one may have rested for long enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Streams {
    born: Instant,
    /// Whether there has been one.
    begun: AtomicBool,
    open: AtomicU32,
    /// When the last one to end did, in milliseconds after `born`.
    ended: AtomicU64,
}

/// A request, until this is dropped.
pub(super) struct Open(Arc<Streams>);

impl Streams {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            begun: AtomicBool::new(false),
            open: AtomicU32::new(0),
            ended: AtomicU64::new(0),
        })
    }

    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.begun.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    /// Whether anything has been asked yet.
    pub(super) fn any(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Ends when nothing has been asked until `first_until`, or nothing more for
    /// as long as `idle`.
    pub(super) async fn rested(&self, first_until: Instant, idle: Duration) {
        sleep_until(first_until).await;
        while self.any() {
            let now = Instant::now();
            let until = if self.open.load(Ordering::Acquire) > 0 {
                // Whenever that ends, it is not before.
                now + idle
            } else {
                let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
                self.born + ended + idle
            };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = &self.0;
        let ended = streams.born.elapsed().as_millis();
        let ended = u64::try_from(ended).unwrap_or(u64::MAX);
        streams.ended.store(ended, Ordering::Relaxed);
        streams.open.fetch_sub(1, Ordering::Release);
    }
}
