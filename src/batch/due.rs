//! When what is parked is due next, as far as this gateway knows.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// For each queue the next time that something in it may be due. What this
/// gateway parks is noted here at once, what others park is found by a poll; so
/// the worker that makes things ready sleeps until just then.
#[derive(Debug, Default)]
pub struct DueSchedule {
    next: Mutex<HashMap<i64, Instant>>,
    sooner: Notify,
}

impl DueSchedule {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Instant>> {
        self.next
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes that something in this queue is due after `wait`.
    pub fn note(&self, queue_id: i64, wait: Duration) {
        let Some(at) = Instant::now().checked_add(wait) else {
            return;
        };
        let mut next = self.lock();
        let entry = next.entry(queue_id).or_insert(at);
        if at <= *entry {
            *entry = at;
            drop(next);
            self.sooner.notify_one();
        }
    }

    /// Waits until something is due and takes the queues where it is.
    pub async fn due(&self) -> Vec<i64> {
        loop {
            let sooner = self.sooner.notified();
            let soonest = {
                let mut next = self.lock();
                let now = Instant::now();
                let due: Vec<i64> = next
                    .iter()
                    .filter(|(_, at)| **at <= now)
                    .map(|(id, _)| *id)
                    .collect();
                if !due.is_empty() {
                    next.retain(|_, at| *at > now);
                    return due;
                }
                next.values().min().copied()
            };
            match soonest {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = sooner => {}
                },
                None => sooner.await,
            }
        }
    }
}
