//! How much the gateway has in hand, and how much it may have. What comes beyond
//! is refused at once, with 503: a queue that only grows helps nobody.
//!
//! Requests are counted from their head to their answer, those whose body is
//! still on its way too. Receivers that wait for messages are counted apart: they
//! cost a few kilobytes and no work, but over HTTP/2 one connection has many.
//! Bodies count by the bytes that have come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::problem::Problem;
use crate::store;

/// Bytes of a body that need no room of their own: that many times the number of
/// requests is little enough.
const SMALL: usize = 8 * 1024;

/// Paths that are answered in any case: of them one sees how it goes.
const EXEMPT: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// What is in hand.
#[derive(Debug)]
pub struct Capacity {
    requests: AtomicUsize,
    most_requests: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
    body_bytes: AtomicUsize,
    most_body_bytes: usize,
}

impl Capacity {
    /// Nothing in hand yet.
    #[must_use]
    pub fn new(most_requests: usize, most_waiting: usize, most_body_bytes: usize) -> Self {
        Self {
            requests: AtomicUsize::new(0),
            most_requests,
            waiting: AtomicUsize::new(0),
            most_waiting,
            body_bytes: AtomicUsize::new(0),
            most_body_bytes,
        }
    }

    /// Takes a request in hand; `None` if that would be one too many.
    pub(super) fn take(self: &Arc<Self>, path: &str) -> Option<InHand> {
        // Whoever is not let in is not counted, even for an instant: many at
        // once would keep each other out.
        let taken = self
            .requests
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |requests| {
                (requests < self.most_requests || EXEMPT.contains(&path)).then_some(requests + 1)
            });
        taken.is_ok().then(|| InHand(Arc::clone(self)))
    }

    /// A request in hand waits, for nothing that the gateway could hurry: it
    /// counts as one that waits until this is dropped.
    ///
    /// # Errors
    /// 503 if as many wait as may.
    pub(super) fn let_wait(&self) -> Result<Waiting<'_>, Problem> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.most_waiting).then_some(waiting + 1)
            })
            .map_err(|_| overloaded())?;
        self.requests.fetch_sub(1, Ordering::Relaxed);
        Ok(Waiting(self))
    }

    /// The room of a body that begins.
    pub(super) fn body(&self) -> BodyRoom<'_> {
        BodyRoom {
            capacity: self,
            arrived: 0,
            taken: 0,
        }
    }
}

/// 503: too much in hand.
pub(super) fn overloaded() -> Problem {
    store::Error::Overloaded.into()
}

/// A request in hand, until this is dropped.
#[derive(Debug)]
pub(super) struct InHand(Arc<Capacity>);

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Capacity);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

/// The room that a body takes, until this is dropped.
#[derive(Debug)]
pub(super) struct BodyRoom<'a> {
    capacity: &'a Capacity,
    arrived: usize,
    taken: usize,
}

impl BodyRoom<'_> {
    /// Whether a body of so many bytes would have room now.
    pub(super) fn would_hold(&self, bytes: usize) -> bool {
        bytes <= SMALL
            || self.capacity.body_bytes.load(Ordering::Relaxed) + bytes
                <= self.capacity.most_body_bytes
    }

    /// More of it has arrived.
    ///
    /// # Errors
    /// 503 if there is no room for it.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.arrived += bytes;
        if self.arrived <= SMALL {
            return Ok(());
        }
        let more = self.arrived - self.taken;
        let most = self.capacity.most_body_bytes;
        self.capacity
            .body_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                all.checked_add(more).filter(|all| *all <= most)
            })
            .map_err(|_| overloaded())?;
        self.taken = self.arrived;
        Ok(())
    }
}

impl Drop for BodyRoom<'_> {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.capacity
                .body_bytes
                .fetch_sub(self.taken, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_does_not_count_and_operations_always_get_in() {
        let capacity = Arc::new(Capacity::new(2, 1, 0));
        let first = capacity.take("/v1/queues").expect("room");
        let second = capacity.take("/v1/queues").expect("room");
        assert!(capacity.take("/v1/queues").is_none());
        for path in EXEMPT {
            assert!(capacity.take(path).is_some(), "{path}");
        }
        let waiting = capacity.let_wait().expect("none waits");
        assert!(capacity.let_wait().is_err(), "one may");
        let third = capacity.take("/v1/queues").expect("room");
        assert!(capacity.take("/v1/queues").is_none());
        // Back at work, whether there is room or not.
        drop(waiting);
        drop(third);
        assert!(capacity.take("/v1/queues").is_none());
        drop(capacity.let_wait().expect("none waits any more"));
        drop((first, second));
        assert_eq!(capacity.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(capacity.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bodies_take_room_as_they_come_and_give_it_back() {
        let capacity = Capacity::new(1, 0, 100_000);
        let mut small = capacity.body();
        small.grow(SMALL).expect("no room needed");
        let mut large = capacity.body();
        assert!(large.would_hold(100_000));
        large.grow(60_000).expect("room");
        large.grow(30_000).expect("room");
        assert!(!capacity.body().would_hold(20_000));
        assert!(capacity.body().would_hold(SMALL));
        // The first bytes count as soon as the body is no longer small.
        assert!(small.grow(10_000).is_err());
        drop(large);
        small.grow(10_000).expect("room");
        drop(small);
        assert_eq!(capacity.body_bytes.load(Ordering::Relaxed), 0);
    }
}
