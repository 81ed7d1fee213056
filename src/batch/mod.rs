//! Group commit: requests that run at the same time become one statement.
//!
//! A commit costs a flush of the log, however much is in it. So callers do not
//! go to the database: they put their request into a [`Batcher`]'s queue and
//! wait on a channel; a few writer tasks each take all that is waiting, run one
//! statement, and answer each caller. There is no timer: while one batch is in
//! flight the next gathers. Small statements of different batchers follow each other
//! where that is quicker than side by side ([`one_by_one`]).
//!
//! What would have to wait for too long is refused when it comes ([`pace`]): under
//! more than the database can take those who are let in are served in time, and
//! the others know at once.
//!
//! This also makes every database future uncancellable by clients: a writer
//! task is never dropped, and a caller that hangs up only drops its end of a
//! channel.

mod after;
mod alarm;
mod broker;
mod due;
mod events;
mod fair;
mod hints;
mod once;
mod one_by_one;
mod own;
mod pace;
mod receivers;
mod replies;
mod requests;
mod transact;
mod turns;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use alarm::Alarm;
pub use broker::{Broker, Settling};
pub use due::DueSchedule;
pub use events::Events;
pub use hints::Hints;
pub use once::{NotPublished, PublishOnce, PublishOnceResult, PublishedOnce, To};
pub use receivers::{Received, Wait};
pub use replies::{Awaiting, Replies};
pub use transact::{NotDone, Transact, TransactResult};

use broker::plan;
use one_by_one::{OneByOne, Turn};

use crate::metrics::Histogram;
use crate::spans::{Asking, Span};
use crate::store::Error;
use pace::{Ahead, Pace};

/// How often a statement that had no effect (the victim of a deadlock, for
/// instance) is run again.
const RETRIES: usize = 3;

/// Bounds of a batcher.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The statement's name in traces.
    pub name: &'static str,
    /// Tasks that run statements at the same time.
    pub writers: usize,
    /// Rows that have to wait before a second statement is sent beside one that
    /// runs; fewer gather until that one is done. Statements cost something
    /// besides their rows, so small ones side by side do less than one by one.
    pub alongside: usize,
    /// Rows that go into one statement, unless one request has more.
    pub rows: usize,
    /// Bytes that go into one statement, unless one request has more.
    pub bytes: usize,
    /// Bytes that may wait; beyond it requests are refused at once.
    pub waiting_bytes: usize,
}

/// How much room a request takes.
pub trait Weigh {
    /// Rows in the statement.
    fn rows(&self) -> usize;
    /// Bytes in memory, more or less.
    fn bytes(&self) -> usize;
}

/// A queue of requests and the tasks that run them together.
#[derive(Debug)]
pub struct Batcher<I, O> {
    shared: Arc<Shared<I, O>>,
}

#[derive(Debug)]
struct Shared<I, O> {
    pending: Mutex<Pending<I, O>>,
    arrived: Notify,
    bounds: Bounds,
    /// How long the first request of each statement waited for it.
    waits: OnceLock<Histogram>,
}

#[derive(Debug)]
struct Pending<I, O> {
    requests: VecDeque<Request<I, O>>,
    rows: usize,
    bytes: usize,
    /// When the statements that run now were sent, the oldest first.
    running: Vec<Instant>,
    /// Whether a writer waits for its turn among others' statements, to take what there
    /// is then.
    next: bool,
    pace: Pace,
}

#[derive(Debug)]
struct Request<I, O> {
    item: I,
    rows: usize,
    bytes: usize,
    since: Instant,
    asking: Option<Box<Asking>>,
    reply: oneshot::Sender<Result<O, Error>>,
}

impl<I, O> Batcher<I, O>
where
    I: Weigh + Send + Sync + 'static,
    O: Send + 'static,
{
    /// Starts the writers. `run` answers a batch, in order. They end when
    /// `stop` is cancelled and nothing waits any more.
    pub fn start<F, R>(
        tracker: &TaskTracker,
        stop: &CancellationToken,
        bounds: Bounds,
        run: F,
    ) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Vec<O>, Error>> + Send + 'static,
    {
        Self::start_among(None, tracker, stop, bounds, run)
    }

    /// The same, with small statements after those of others.
    fn start_among<F, R>(
        others: Option<&Arc<OneByOne>>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        bounds: Bounds,
        run: F,
    ) -> Self
    where
        F: Fn(Arc<Vec<I>>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Vec<O>, Error>> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending {
                requests: VecDeque::new(),
                rows: 0,
                bytes: 0,
                running: Vec::with_capacity(bounds.writers),
                next: false,
                pace: Pace::default(),
            }),
            arrived: Notify::new(),
            bounds,
            waits: OnceLock::new(),
        });
        for _ in 0..bounds.writers {
            let writer = Writer {
                shared: Arc::clone(&shared),
                others: others.cloned(),
                run: run.clone(),
            };
            tracker.spawn(writer.work(stop.clone()));
        }
        Self { shared }
    }

    /// From now on counts how long the first request of each statement waited.
    pub fn count_waits(&self, waits: &Histogram) {
        self.shared.waits.get_or_init(|| waits.clone());
    }

    /// Hands in a request and waits for its answer. Dropping the future does
    /// not undo the request.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once if too much is waiting, or if it would have
    /// to wait for too long; what the statement failed with otherwise.
    pub async fn call(&self, item: I) -> Result<O, Error> {
        let (reply, answer) = oneshot::channel();
        let asking = Asking::current();
        let (rows, bytes) = (item.rows(), item.bytes());
        {
            let mut pending = self.shared.lock();
            let now = Instant::now();
            if pending.is_full(bytes, now, &self.shared.bounds) {
                return Err(Error::Overloaded);
            }
            pending.bytes += bytes;
            pending.rows += rows;
            pending.requests.push_back(Request {
                item,
                rows,
                bytes,
                since: now,
                asking,
                reply,
            });
            if pending.may_start(&self.shared.bounds) {
                self.shared.arrived.notify_one();
            }
        }
        // The writers only go away at shutdown.
        answer.await.unwrap_or(Err(Error::Overloaded))
    }
}

impl<I: Weigh, O> Shared<I, O> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending<I, O>> {
        self.pending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes what fits into one statement, the oldest first, at least one;
    /// nothing while it is better to wait for more.
    fn take(self: &Arc<Self>, stopping: bool) -> Option<Taken<I, O>> {
        let mut pending = self.lock();
        if pending.requests.is_empty() || !(stopping || pending.may_start(&self.bounds)) {
            return None;
        }
        let (mut rows, mut bytes) = (0, 0);
        let mut count = 0;
        for request in &pending.requests {
            if count > 0
                && (rows + request.rows > self.bounds.rows
                    || bytes + request.bytes > self.bounds.bytes)
            {
                break;
            }
            rows += request.rows;
            bytes += request.bytes;
            count += 1;
        }
        let taken: Vec<_> = pending.requests.drain(..count).collect();
        let since = Instant::now();
        if let Some(waits) = self.waits.get() {
            waits.record_time(since - taken[0].since);
        }
        pending.rows -= rows;
        pending.bytes -= bytes;
        pending.running.push(since);
        if pending.may_start(&self.bounds) {
            // What is left is another writer's.
            self.arrived.notify_one();
        }
        let running = Running {
            shared: Arc::clone(self),
            since,
        };
        Some((taken, running))
    }
}

impl<I, O> Pending<I, O> {
    /// Whether a request of so many bytes is one too many.
    fn is_full(&self, bytes: usize, now: Instant, bounds: &Bounds) -> bool {
        // Where nothing waits it may come: one that is larger than the bound is not
        // refused for ever.
        let Some(oldest) = self.requests.front() else {
            return false;
        };
        let ahead = Ahead {
            rows: self.rows,
            bytes: self.bytes,
            oldest: now - oldest.since,
            running: self
                .running
                .first()
                .map_or(Duration::ZERO, |since| now - *since),
        };
        self.bytes + bytes > bounds.waiting_bytes || self.pace.is_too_slow(&ahead, bounds)
    }

    /// Whether a statement should be sent now.
    fn may_start(&self, bounds: &Bounds) -> bool {
        !self.requests.is_empty()
            && ((self.running.is_empty() && !self.next)
                || (self.running.len() < bounds.writers && self.rows >= bounds.alongside))
    }
}

/// Requests for one statement, and that it runs.
type Taken<I, O> = (Vec<Request<I, O>>, Running<I, O>);

/// A statement that runs; dropping it ends that, however it ended.
struct Running<I: Weigh, O> {
    shared: Arc<Shared<I, O>>,
    since: Instant,
}

impl<I: Weigh, O> Drop for Running<I, O> {
    fn drop(&mut self) {
        let mut pending = self.shared.lock();
        if let Some(at) = pending
            .running
            .iter()
            .position(|since| *since == self.since)
        {
            pending.running.remove(at);
        }
        pending.pace.note(self.since.elapsed());
        if pending.may_start(&self.shared.bounds) {
            self.shared.arrived.notify_one();
        }
    }
}

struct Writer<I, O, F> {
    shared: Arc<Shared<I, O>>,
    others: Option<Arc<OneByOne>>,
    run: F,
}

impl<I, O, F, R> Writer<I, O, F>
where
    I: Weigh,
    F: Fn(Arc<Vec<I>>) -> R,
    R: Future<Output = Result<Vec<O>, Error>>,
{
    async fn work(self, stop: CancellationToken) {
        loop {
            let turn = self.turn().await;
            let Some((taken, _running)) = self.shared.take(stop.is_cancelled()) else {
                drop(turn);
                tokio::select! {
                    () = self.shared.arrived.notified() => continue,
                    () = stop.cancelled() => {}
                }
                // What came in just before is still answered.
                if self.shared.lock().requests.is_empty() {
                    return;
                }
                continue;
            };
            let asking = taken.iter().filter_map(|request| request.asking.as_deref());
            let rows = taken.iter().map(|request| request.rows).sum();
            let span = Span::of_statement(self.shared.bounds.name, asking, rows);
            let (items, replies): (Vec<_>, Vec<_>) = taken
                .into_iter()
                .map(|request| (request.item, request.reply))
                .unzip();
            self.answer(Arc::new(items), replies, span).await;
        }
    }

    /// Waits for others' statements, before it is settled what goes into one that is
    /// going to be small.
    async fn turn(&self) -> Option<Turn<'_>> {
        let others = self.others.as_ref()?;
        {
            let mut pending = self.shared.lock();
            let bounds = &self.shared.bounds;
            if !pending.may_start(bounds) || pending.rows >= bounds.alongside {
                return None;
            }
            pending.next = true;
        }
        let turn = others.turn().await;
        self.shared.lock().next = false;
        Some(turn)
    }

    async fn answer(
        &self,
        items: Arc<Vec<I>>,
        replies: Vec<oneshot::Sender<Result<O, Error>>>,
        span: Option<Span>,
    ) {
        let mut result = caught((self.run)(Arc::clone(&items))).await;
        for _ in 0..RETRIES {
            match &result {
                Err(error) if error.is_retryable() => {
                    result = caught((self.run)(Arc::clone(&items))).await;
                }
                _ => break,
            }
        }
        if let Some(span) = span {
            span.ran(result.is_err());
        }
        match result {
            Ok(answers) => {
                for (answer, reply) in answers.into_iter().zip(replies) {
                    // Nobody listens any more: their loss, not ours.
                    let _ = reply.send(Ok(answer));
                }
            }
            // One request that the database cannot take must not fail its
            // neighbours. The statement had no effect: run each by itself.
            Err(Error::Inconsistent(_)) if replies.len() > 1 => {
                let Ok(items) = Arc::try_unwrap(items) else {
                    return;
                };
                for (item, reply) in items.into_iter().zip(replies) {
                    let answer = caught((self.run)(Arc::new(vec![item]))).await;
                    let _ = reply.send(
                        answer.and_then(|mut answers| answers.pop().ok_or(Error::Overloaded)),
                    );
                }
            }
            Err(error) => {
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// A bug must not end the task that serves everybody.
async fn caught<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or(Err(Error::Panicked))
}
