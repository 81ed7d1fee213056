//! Messages that receivers wait for are leased as they are stored.
//!
//! Where receivers of a queue wait and nothing is ready, a publish at their gateway
//! would make a message ready only for the next claim to lease it: two statements,
//! each with a flush, one after the other. So those who stand first in line are
//! taken out of it, and the publish stores the message as leased to them. It is as
//! with a claim: what a receiver is sent has been committed and flushed, what has been
//! stored and does not get to it is released.
//!
//! That nothing is ready is known by the line itself. Who comes looks before he waits,
//! and whatever this gateway is told of starts a claim; so where somebody waits and
//! nobody claims, there was nothing to be told of since the last claim found too little.
//! What becomes ready while receivers are out of the line is told to those who still
//! wait; and those who are put back then look again.
//!
//! Left to claims are messages with a dedup id and those of queues whose keys take
//! turns, which are stored by statements that may have to wait for others, and queues
//! that bound their leases, for which that has to be looked at.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::line::{Line, Waiter};
use super::{Inner, Receivers};
use crate::domain::Message;
use crate::spans::Span;
use crate::store::{Delivery, Handover, Publish, PublishResult};

/// Receivers that are out of their lines, and the messages that are to be theirs. Those
/// who did not get any when this is dropped stand first in line again.
#[derive(Debug)]
pub(in crate::batch) struct Handovers {
    inner: Arc<Inner>,
    began: Instant,
    receivers: Vec<Taken>,
    by_message: HashMap<usize, Handover>,
}

#[derive(Debug)]
struct Taken {
    queue_id: i64,
    /// Until it is served.
    waiter: Option<Waiter>,
    handover: Handover,
    messages: Vec<Place>,
}

/// A message of a batch of requests.
#[derive(Debug, Clone, Copy)]
struct Place {
    request: usize,
    message: usize,
    /// Among the messages of all requests.
    of_all: usize,
    priority: i16,
}

impl Receivers {
    /// Takes those out of line who are to get these messages as soon as they are
    /// stored.
    pub(in crate::batch) fn hand_over(&self, requests: &[Publish]) -> Handovers {
        let mut handovers = Handovers {
            inner: Arc::clone(&self.0),
            began: Instant::now(),
            receivers: Vec::new(),
            by_message: HashMap::new(),
        };
        if !self.0.anybody_waits() {
            return handovers;
        }
        for (queue_id, messages) in wanted(requests) {
            handovers.take(queue_id, messages);
        }
        handovers
    }

    /// How many receivers of a queue could be handed a message over.
    pub(in crate::batch) fn at_rest(&self, queue_id: i64) -> usize {
        let lines = self.0.lock();
        let line = lines.by_queue.get(&queue_id);
        let line = line.filter(|line| line.claiming.is_none());
        line.map_or(0, Line::count)
    }
}

/// The messages of each queue that may be handed over, in the order in which they
/// would be received.
fn wanted(requests: &[Publish]) -> HashMap<i64, Vec<Place>> {
    let mut by_queue: HashMap<i64, Vec<Place>> = HashMap::new();
    let mut of_all = 0..;
    for (request, publish) in requests.iter().enumerate() {
        let queue = &publish.queue;
        let is_plain = !queue.has_lines() && queue.settings.max_in_flight.is_none();
        for ((message, content), of_all) in publish.messages.iter().enumerate().zip(&mut of_all) {
            // Statements for dedup ids are others, for all that are in them.
            if content.dedup_id.is_some() {
                return HashMap::new();
            }
            if is_plain && publish.is_ready_at_once(content) {
                by_queue.entry(queue.id).or_default().push(Place {
                    request,
                    message,
                    of_all,
                    priority: content.priority,
                });
            }
        }
    }
    for places in by_queue.values_mut() {
        places.sort_by_key(|place| Reverse(place.priority));
    }
    by_queue
}

impl Handovers {
    fn take(&mut self, queue_id: i64, messages: Vec<Place>) {
        let mut lines = self.inner.lock();
        let Some(line) = lines.by_queue.get_mut(&queue_id) else {
            return;
        };
        if line.claiming.is_some() {
            return;
        }
        let mut messages = messages.into_iter();
        while messages.len() > 0
            && let Some(waiter) = line.waiting.pop_front()
        {
            if waiter.reply.is_closed() {
                continue;
            }
            let handover = Handover {
                // 0 stands for no lease.
                token: rand::random::<i64>() | 1,
                lease: waiter.wish.lease,
            };
            let most = waiter.wish.max_messages as usize;
            let messages: Vec<Place> = messages.by_ref().take(most).collect();
            for place in &messages {
                self.by_message.insert(place.of_all, handover);
            }
            line.out += 1;
            self.receivers.push(Taken {
                queue_id,
                waiter: Some(waiter),
                handover,
                messages,
            });
        }
        lines.remove_if_empty(queue_id);
    }

    /// What the statement needs to know.
    pub(in crate::batch) fn by_message(&self) -> &HashMap<usize, Handover> {
        &self.by_message
    }

    /// The requests that wait for these messages.
    pub(in crate::batch) fn span(&self) -> Option<Span> {
        let waiters = self.receivers.iter();
        let waiters = waiters.filter_map(|taken| taken.waiter.as_ref());
        let asking = waiters.filter_map(|waiter| waiter.asking.as_deref());
        Span::of_statement("store.publish", asking, self.by_message.len())
    }

    /// Sends the receivers what was stored for them.
    pub(in crate::batch) fn deliver(mut self, requests: &[Publish], results: &[PublishResult]) {
        for taken in &mut self.receivers {
            let (queue_id, handover) = (taken.queue_id, taken.handover);
            let delivery = |place: &Place| {
                let stored = results.get(place.request)?.as_ref().ok()?;
                let message: &Message = requests.get(place.request)?.messages.get(place.message)?;
                let published = stored.get(place.message)?;
                Delivery::handed_over(queue_id, message, *published, handover)
            };
            let deliveries: Vec<Delivery> = taken.messages.iter().filter_map(delivery).collect();
            for _ in &deliveries {
                let first_delivery = &self.inner.store.metrics().first_delivery;
                first_delivery.record_time(Duration::ZERO);
            }
            if !deliveries.is_empty()
                && let Some(waiter) = taken.waiter.take()
            {
                self.inner.grant(queue_id, waiter, deliveries, self.began);
            }
        }
    }
}

impl Drop for Handovers {
    fn drop(&mut self) {
        if self.receivers.is_empty() {
            return;
        }
        let mut lines = self.inner.lock();
        let closed = lines.closed;
        // The last first: each is put before the others.
        for taken in self.receivers.drain(..).rev() {
            let Some(line) = lines.by_queue.get_mut(&taken.queue_id) else {
                continue;
            };
            let missed = line.is_back();
            if let Some(waiter) = taken.waiter.filter(|_| !closed) {
                line.waiting.push_front(waiter);
                if missed {
                    Inner::start_claiming(&self.inner, taken.queue_id, line);
                }
            }
            lines.remove_if_empty(taken.queue_id);
        }
    }
}
