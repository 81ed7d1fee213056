//! Replies to requests, and those who wait for them.
//!
//! Whoever waits for the reply to a request stands here, under its id, with a
//! channel: no connection, no query. He does so before the request is published, or
//! before the database is asked, so that no reply is missed in between. A reply that
//! is given at this gateway is handed over as it is stored. That one was given at
//! another gateway is heard of over NOTIFY; then one task reads the replies that
//! somebody here waits for, and so it does every two seconds for all, in case that
//! something was not heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Batcher;
use super::hints::Hints;
use super::requests::{REPLIES, REPLY_READS};
use crate::store::{Answer, Answered, Error, Reply, ReplyRead, ReplyTo, Store};

/// Replies read by one statement, when it is asked after many.
const READ_ROWS: usize = 1000;

/// Replies given and read at this gateway, and all who wait here.
#[derive(Debug)]
pub struct Replies {
    answers: Batcher<Answer, Answered>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reads: Batcher<ReplyTo, ReplyRead>,
    hints: Arc<Hints>,
    tracker: TaskTracker,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the first half of the id.
    by_half: HashMap<i64, Vec<Place>>,
    /// Told apart even if they wait for the same.
    next: u64,
    /// A task reads for all.
    looking: bool,
    closed: bool,
}

#[derive(Debug)]
struct Place {
    number: u64,
    to: ReplyTo,
    reply: oneshot::Sender<Arc<Reply>>,
}

/// Somebody who waits; dropping it leaves.
#[derive(Debug)]
pub struct Awaiting {
    inner: Arc<Inner>,
    to: ReplyTo,
    number: u64,
    answer: oneshot::Receiver<Arc<Reply>>,
}

impl Awaiting {
    /// The reply; `None` if it did not come within so long, or the gateway ends.
    pub async fn reply(&mut self, limit: Duration) -> Option<Arc<Reply>> {
        let answer = tokio::time::timeout(limit, &mut self.answer).await;
        answer.ok()?.ok()
    }
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let half = half(self.to.id);
        let mut waiting = self.inner.lock();
        if let Some(places) = waiting.by_half.get_mut(&half) {
            places.retain(|place| place.number != self.number);
            if places.is_empty() {
                waiting.by_half.remove(&half);
            }
        }
    }
}

/// What a request is called between gateways: half of it is enough to tell whether
/// anybody waits, and tells nobody who listens how to read the reply.
fn half(id: u128) -> i64 {
    let bytes = id.to_be_bytes();
    let (first, _) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
    i64::from_be_bytes(*first)
}

impl Replies {
    /// Starts the writers.
    pub(super) fn start(
        store: &Store,
        hints: &Arc<Hints>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (answering, reading) = (store.clone(), store.clone());
        let answers = Batcher::start(tracker, stop, REPLIES, move |items: Arc<Vec<Answer>>| {
            let store = answering.clone();
            async move { store.reply(&items).await }
        });
        let reads = Batcher::start(tracker, stop, REPLY_READS, move |tos: Arc<Vec<ReplyTo>>| {
            let store = reading.clone();
            async move { store.read_replies(&tos).await }
        });
        let metrics = store.metrics();
        answers.count_waits(&metrics.reply.wait);
        reads.count_waits(&metrics.read_replies.wait);
        let inner = Inner {
            reads,
            hints: Arc::clone(hints),
            tracker: tracker.clone(),
            waiting: Mutex::default(),
        };
        Self {
            answers,
            inner: Arc::new(inner),
        }
    }

    /// Answers a request and acks it, both or neither, and hands the reply to those
    /// who wait for it. Who does so calls [`super::Broker::freed`] afterwards.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known, and the same answer may be
    /// given again.
    pub async fn give(&self, answer: Answer) -> Result<Answered, Error> {
        let (content, headers) = (answer.content.clone(), answer.headers.clone());
        let answered = self.answers.call(answer).await?;
        match &answered {
            Answered::Stored { asked, replied_at } => {
                let reply = Reply {
                    replied_at: *replied_at,
                    content,
                    headers,
                };
                self.inner.hints.add_reply(half(asked.id));
                self.inner.hand_out(asked.id, &Arc::new(reply));
            }
            // Whoever did so was not told, and those who wait may not have been either.
            Answered::Again(asked) => {
                self.inner.hints.add_reply(half(asked.id));
                self.answered_elsewhere(&[half(asked.id)]);
            }
            Answered::NotAsked | Answered::OutOfOrder | Answered::Late | Answered::Lost => {}
        }
        Ok(answered)
    }

    /// Stands in for the reply to a request, before it is published or the database
    /// is asked.
    #[must_use]
    pub fn await_reply(&self, to: ReplyTo) -> Awaiting {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.inner.lock();
        let number = waiting.next;
        waiting.next += 1;
        if !waiting.closed {
            let place = Place { number, to, reply };
            waiting.by_half.entry(half(to.id)).or_default().push(place);
        }
        drop(waiting);
        Awaiting {
            inner: Arc::clone(&self.inner),
            to,
            number,
            answer,
        }
    }

    /// What there is of a reply.
    ///
    /// # Errors
    /// Any.
    pub async fn read(&self, to: ReplyTo) -> Result<ReplyRead, Error> {
        self.inner.reads.call(to).await
    }

    /// How many wait here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.lock().by_half.values().map(Vec::len).sum()
    }

    /// Requests were answered at another gateway.
    pub fn answered_elsewhere(&self, halves: &[i64]) {
        let tos: Vec<ReplyTo> = {
            let waiting = self.inner.lock();
            let places = halves.iter().filter_map(|half| waiting.by_half.get(half));
            places.flatten().map(|place| place.to).collect()
        };
        if !tos.is_empty() {
            let inner = Arc::clone(&self.inner);
            self.inner
                .tracker
                .spawn(async move { inner.read_all(tos).await });
        }
    }

    /// Looks whether there is a reply for anybody who waits.
    pub fn look(&self) {
        let tos: Vec<ReplyTo> = {
            let mut waiting = self.inner.lock();
            if waiting.by_half.is_empty() || std::mem::replace(&mut waiting.looking, true) {
                return;
            }
            let places = waiting.by_half.values().flatten();
            places.map(|place| place.to).collect()
        };
        let inner = Arc::clone(&self.inner);
        self.inner.tracker.spawn(async move {
            inner.read_all(tos).await;
            inner.lock().looking = false;
        });
    }

    /// Sends everybody away, now and from now on.
    pub(super) fn close(&self) {
        let mut waiting = self.inner.lock();
        waiting.closed = true;
        waiting.by_half.clear();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads replies and hands out those that are there. What fails is tried again
    /// by the next look.
    async fn read_all(&self, tos: Vec<ReplyTo>) {
        for some in tos.chunks(READ_ROWS) {
            let reading = some.iter().map(|to| self.reads.call(*to));
            let read = futures_util::future::join_all(reading).await;
            for (to, read) in some.iter().zip(read) {
                if let Ok(ReplyRead::There(reply)) = read {
                    self.hand_out(to.id, &reply);
                }
            }
        }
    }

    fn hand_out(&self, id: u128, reply: &Arc<Reply>) {
        let half = half(id);
        let mut waiting = self.lock();
        let Some(places) = waiting.by_half.remove(&half) else {
            return;
        };
        let (served, rest): (Vec<Place>, Vec<Place>) =
            places.into_iter().partition(|place| place.to.id == id);
        if !rest.is_empty() {
            waiting.by_half.insert(half, rest);
        }
        drop(waiting);
        for place in served {
            // Gone, which is his loss: it can still be read.
            let _ = place.reply.send(Arc::clone(reply));
        }
    }
}
