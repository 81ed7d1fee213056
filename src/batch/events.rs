//! What is to be told through `system.events`.
//!
//! An event never causes a storm of them: those of one queue that say the same
//! become one while they wait for the worker that publishes them, once a second;
//! the number that may wait is bounded; and what befalls the queues that events
//! go to causes none.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::domain::Event;

/// Queues with events that may wait; more are not told of. Counts tell the
/// same, later.
const QUEUES: usize = 10_000;

/// Events that wait to be published. They are not kept across a crash: an event
/// is a hint to look, the counts are the truth.
#[derive(Debug, Default)]
pub struct Events {
    pending: Mutex<HashMap<Option<i64>, Vec<Event>>>,
    some: Notify,
}

impl Events {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Option<i64>, Vec<Event>>> {
        self.pending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes what happened to a queue, or to what all have in common.
    pub fn add(&self, queue_id: impl Into<Option<i64>>, event: Event) {
        let queue_id = queue_id.into();
        let mut pending = self.lock();
        if pending.len() >= QUEUES && !pending.contains_key(&queue_id) {
            return;
        }
        let events = pending.entry(queue_id).or_default();
        match events.iter_mut().find(|earlier| earlier.is_like(&event)) {
            Some(earlier) => earlier.absorb(event),
            None => events.push(event),
        }
        self.some.notify_one();
    }

    /// Waits until there is something to tell, and takes it, by queue.
    pub async fn take(&self) -> HashMap<Option<i64>, Vec<Event>> {
        loop {
            let some = self.some.notified();
            let pending = std::mem::take(&mut *self.lock());
            if !pending.is_empty() {
                return pending;
            }
            some.await;
        }
    }
}
