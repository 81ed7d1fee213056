//! Lines of receivers, and what they are sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Inner, Received};
use crate::domain::Lease;
use crate::spans::Asking;
use crate::store::{Error, Receiver};

#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) by_queue: HashMap<i64, Line>,
    pub(super) closed: bool,
}

/// One queue's line.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Waiter>,
    /// A task is claiming for this line; since when it has been waiting for the
    /// database.
    pub(super) claiming: Option<Instant>,
    /// Something became ready, or somebody came, since that task last asked.
    pub(super) again: bool,
    /// How many messages the last claim brought.
    pub(super) brought: usize,
    /// How many have been taken out of it, for a publish that may serve them
    /// ([`super::handover`]).
    pub(super) out: usize,
    /// Something became ready while they were out.
    pub(super) missed: bool,
}

impl Lines {
    /// A line is there for as long as it concerns anybody.
    pub(super) fn remove_if_empty(&mut self, queue_id: i64) {
        let is_empty =
            |line: &Line| line.waiting.is_empty() && line.claiming.is_none() && line.out == 0;
        if self.by_queue.get(&queue_id).is_some_and(is_empty) {
            self.by_queue.remove(&queue_id);
        }
    }
}

impl Line {
    /// Who waits in it and has not gone.
    pub(super) fn count(&self) -> usize {
        let waiting = self.waiting.iter();
        waiting.filter(|waiter| !waiter.reply.is_closed()).count()
    }

    /// A receiver that was out of the line is not any more. Whether something became
    /// ready meanwhile.
    pub(super) fn is_back(&mut self) -> bool {
        self.out -= 1;
        let missed = self.missed;
        self.missed &= self.out > 0;
        missed
    }
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wish: Receiver,
    pub(super) asking: Option<Box<Asking>>,
    pub(super) patient: bool,
    /// Since when it is known that there is nothing for it.
    pub(super) idle_since: Option<Instant>,
    pub(super) reply: oneshot::Sender<Result<Grant, Error>>,
}

/// Leases on their way to a receiver; released if they do not get there.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) received: Received,
    pub(super) inner: Arc<Inner>,
}

impl Grant {
    pub(super) fn accept(mut self) -> Received {
        std::mem::take(&mut self.received)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let leases: Vec<Lease> = self.received.deliveries.iter().map(|d| d.lease).collect();
        if let Some(first) = leases.first() {
            let (inner, queue_id) = (Arc::clone(&self.inner), first.queue_id);
            self.inner
                .tracker
                .spawn(async move { inner.release(queue_id, leases).await });
        }
    }
}
