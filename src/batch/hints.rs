//! What the other gateways should hear.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::store::News;

/// Queues in which messages became ready since the others were last told, and
/// requests that were answered. Only gathered while there are others.
#[derive(Debug, Default)]
pub struct Hints {
    others: AtomicBool,
    news: Mutex<(HashSet<i64>, HashSet<i64>)>,
    some: Notify,
}

impl Hints {
    fn lock(&self) -> std::sync::MutexGuard<'_, (HashSet<i64>, HashSet<i64>)> {
        self.news
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
        if self.others() && self.lock().0.insert(queue_id) {
            self.some.notify_one();
        }
    }

    /// Notes that a request was answered; by the first half of its id.
    pub fn add_reply(&self, half: i64) {
        if self.others() && self.lock().1.insert(half) {
            self.some.notify_one();
        }
    }

    /// Waits until there is something to tell, and takes it.
    pub async fn take(&self) -> News {
        loop {
            let some = self.some.notified();
            let (queues, replies) = {
                let mut news = self.lock();
                let queues: Vec<i64> = news.0.drain().collect();
                (queues, news.1.drain().collect())
            };
            let news = News { queues, replies };
            if news != News::default() {
                return news;
            }
            some.await;
        }
    }
}
