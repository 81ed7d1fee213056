//! What the other gateways should hear.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Queues in which messages became ready since the others were last told. Only
/// gathered while there are others.
#[derive(Debug, Default)]
pub struct Hints {
    others: AtomicBool,
    queues: Mutex<HashSet<i64>>,
    some: Notify,
}

impl Hints {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<i64>> {
        self.queues
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether other gateways are alive.
    #[must_use]
    pub fn others(&self) -> bool {
        self.others.load(Ordering::Relaxed)
    }

    /// Notes whether other gateways are alive.
    pub fn set_others(&self, others: bool) {
        self.others.store(others, Ordering::Relaxed);
    }

    /// Notes that messages became ready in a queue.
    pub fn add(&self, queue_id: i64) {
        if self.others() && self.lock().insert(queue_id) {
            self.some.notify_one();
        }
    }

    /// Waits until there is something to tell, and takes it.
    pub async fn take(&self) -> Vec<i64> {
        loop {
            let some = self.some.notified();
            let queues: Vec<i64> = self.lock().drain().collect();
            if !queues.is_empty() {
                return queues;
            }
            some.await;
        }
    }
}
