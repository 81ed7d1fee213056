//! What this gateway pushed, by the queue that each webhook consumes.
//!
//! A lane holds the numbers of its webhook, and here is only a way to find them:
//! so they go when the lane goes, because the webhook was deleted or because
//! another gateway has it now. So many are shown by name; a lane that finds no
//! room counts as [`OTHER`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::cells::{Counter, Histogram};
use super::family::{PUSH_SECONDS, PUSHES};
use super::queues::OTHER;
use super::text::Text;

/// Pushes by outcome.
#[derive(Debug)]
pub struct Webhook {
    delivered: Counter,
    failed: Counter,
    gone: Counter,
    waiting: Counter,
    seconds: Histogram,
}

/// All of them.
#[derive(Debug)]
pub struct Webhooks {
    most: AtomicUsize,
    /// By the queue's name: one that was deleted and made anew is one series.
    by_queue: Mutex<HashMap<String, Weak<Webhook>>>,
    other: Arc<Webhook>,
}

impl Webhook {
    fn new() -> Self {
        Self {
            delivered: Counter::default(),
            failed: Counter::default(),
            gone: Counter::default(),
            waiting: Counter::default(),
            seconds: Histogram::new(&PUSH_SECONDS),
        }
    }

    /// A push has ended; `outcome` is as in the list of attempts.
    pub fn record(&self, outcome: &str, took: Duration) {
        let count = match outcome {
            "delivered" => &self.delivered,
            "gone" => &self.gone,
            "waiting" => &self.waiting,
            _ => &self.failed,
        };
        count.increment(1);
        self.seconds.record_time(took);
    }

    fn has_any(&self) -> bool {
        self.seconds.counts().iter().any(|count| *count > 0)
    }
}

impl Webhooks {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            by_queue: Mutex::default(),
            other: Arc::new(Webhook::new()),
        }
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Webhook>>> {
        self.by_queue
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The numbers of a queue's webhook, to be held as long as its lane.
    #[must_use]
    pub fn of(&self, queue: &str) -> Arc<Webhook> {
        let mut by_queue = self.lock();
        if let Some(webhook) = by_queue.get(queue).and_then(Weak::upgrade) {
            return webhook;
        }
        let most = self.most.load(Ordering::Relaxed);
        if by_queue.len() >= most {
            by_queue.retain(|_, webhook| webhook.strong_count() > 0);
        }
        if by_queue.len() >= most {
            return Arc::clone(&self.other);
        }
        let webhook = Arc::new(Webhook::new());
        by_queue.insert(queue.to_owned(), Arc::downgrade(&webhook));
        webhook
    }

    pub(super) fn write(&self, text: &mut Text) {
        let webhooks: Vec<(String, Arc<Webhook>)> = {
            let mut by_queue = self.lock();
            by_queue.retain(|_, webhook| webhook.strong_count() > 0);
            let named = by_queue
                .iter()
                .filter_map(|(queue, webhook)| Some((queue.clone(), webhook.upgrade()?)));
            let other = (OTHER.to_owned(), Arc::clone(&self.other));
            named.chain(self.other.has_any().then_some(other)).collect()
        };
        let mut pushes = text.family(&PUSHES);
        for (queue, webhook) in &webhooks {
            for (outcome, count) in [
                ("delivered", &webhook.delivered),
                ("failed", &webhook.failed),
                ("gone", &webhook.gone),
                ("waiting", &webhook.waiting),
            ] {
                pushes.value(&[queue, outcome], count.get());
            }
        }
        let mut seconds = text.family(&PUSH_SECONDS);
        for (queue, webhook) in &webhooks {
            seconds.histogram(&[queue], &webhook.seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(webhooks: &Webhooks) -> Vec<String> {
        let mut text = Text::default();
        webhooks.write(&mut text);
        let mut counts: Vec<String> = text
            .finish()
            .lines()
            .filter(|line| line.contains("outcome=\"failed\""))
            .map(|line| line.replace("postrider_webhook_attempts_total", ""))
            .collect();
        counts.sort();
        counts
    }

    #[test]
    fn those_that_find_no_room_are_counted_together() {
        let webhooks = Webhooks::new(2);
        let lanes: Vec<_> = ["a", "b", "c", "d"].map(|name| webhooks.of(name)).into();
        for lane in &lanes {
            lane.record("failed", Duration::ZERO);
        }
        assert_eq!(
            counts(&webhooks),
            [
                "{queue=\"(other)\",outcome=\"failed\"} 2",
                "{queue=\"a\",outcome=\"failed\"} 1",
                "{queue=\"b\",outcome=\"failed\"} 1",
            ]
        );
    }

    #[test]
    fn a_lane_that_ends_takes_its_numbers_along_and_makes_room() {
        let webhooks = Webhooks::new(1);
        let (first, second) = (webhooks.of("a"), webhooks.of("a"));
        first.record("failed", Duration::ZERO);
        drop(first);
        // Another lane of the same queue goes on counting.
        assert_eq!(counts(&webhooks), ["{queue=\"a\",outcome=\"failed\"} 1"]);
        drop(second);
        let _b = webhooks.of("b");
        assert_eq!(counts(&webhooks), ["{queue=\"b\",outcome=\"failed\"} 0"]);
    }
}
