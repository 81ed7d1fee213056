//! Receivers that wait for messages.
//!
//! A receiver puts itself at the end of its queue's line and waits on a channel:
//! no connection, no query. Whoever makes messages ready calls
//! [`Receivers::ready`]; then one task claims for all that stand in line, in
//! order, until the line or the messages run out. A receiver stands in line
//! before the database is asked, so what becomes ready in between is not missed.
//!
//! A publish through this gateway to a queue in which nothing is ready leases its
//! messages to those who wait, without a claim ([`handover`]).
//!
//! A lease that was given to a receiver that has gone is released at once, and
//! does not count as an attempt.

mod handover;
mod line;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use line::{Grant, Line, Lines, Waiter};

use super::due::DueSchedule;
use super::hints::Hints;
use super::one_by_one::{OneByOne, Turn};
use super::requests::ACKS;
use super::{caught, fair};
use crate::domain::{Disposition, Lease};
use crate::spans::{Asking, Span};
use crate::store::{Delivery, Error, Receiver, Settle, Store};

/// Messages claimed by one statement.
const CLAIM_ROWS: usize = 1000;

/// A claim that has been under way for so long is stuck: who would not wait is
/// not let in behind it.
const STUCK: Duration = Duration::from_millis(500);

/// How long who would not wait does so for a claim that gets stuck. Longer than it
/// takes to find that the database is away, which says more.
const IMPATIENCE: Duration = Duration::from_secs(6);

/// How long a receiver waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It takes what is there.
    No,
    /// Until something is there, at most so long.
    UpTo(Duration),
}

/// What a receiver got.
#[derive(Debug, Default)]
pub struct Received {
    /// The messages.
    pub deliveries: Vec<Delivery>,
    /// How long there were none: since a claim had found nothing for it, until
    /// the one that found these began. All of its patience if none ever came.
    pub waited: Duration,
}

/// The lines of all queues.
#[derive(Debug)]
pub(super) struct Receivers(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    store: Store,
    tracker: TaskTracker,
    due: Arc<DueSchedule>,
    hints: Arc<Hints>,
    lines: Mutex<Lines>,
    rounds: Mutex<HashMap<i64, fair::Round>>,
    passing: fair::Passing,
    others: Arc<OneByOne>,
}

impl Receivers {
    pub(super) fn new(
        store: Store,
        tracker: TaskTracker,
        due: Arc<DueSchedule>,
        hints: Arc<Hints>,
        others: Arc<OneByOne>,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            tracker,
            due,
            hints,
            lines: Mutex::default(),
            rounds: Mutex::default(),
            passing: fair::Passing::default(),
            others,
        }))
    }

    /// Leases messages, waiting for them if the receiver is patient. Dropping
    /// the future leaves the line.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if it is not patient and the database does not
    /// answer; what the claim failed with otherwise.
    pub(super) async fn receive(
        &self,
        queue_id: i64,
        wish: Receiver,
        wait: Wait,
    ) -> Result<Received, Error> {
        let (reply, mut answer) = oneshot::channel();
        let waiter = Waiter {
            wish,
            asking: Asking::current(),
            patient: wait != Wait::No,
            idle_since: None,
            reply,
        };
        if !Inner::join(&self.0, queue_id, waiter)? {
            return Ok(Received::default());
        }
        let limit = match wait {
            Wait::No => IMPATIENCE,
            Wait::UpTo(limit) => limit,
        };
        let granted = if let Ok(granted) = tokio::time::timeout(limit, &mut answer).await {
            granted
        } else {
            // What was sent in the last instant still counts.
            answer.close();
            match answer.try_recv() {
                Ok(granted) => Ok(granted),
                Err(_) if wait == Wait::No => return Err(Error::Overloaded),
                Err(_) => {
                    return Ok(Received {
                        waited: limit,
                        ..Received::default()
                    });
                }
            }
        };
        // The channel only closes unanswered at shutdown.
        granted.map_or_else(
            |_| Ok(Received::default()),
            |grant| grant.map(Grant::accept),
        )
    }

    /// Messages became ready in a queue, through this gateway.
    pub(super) fn ready(&self, queue_id: i64) {
        self.0.hints.add(queue_id);
        Inner::kick(&self.0, queue_id);
    }

    /// Messages became ready in a queue, says another gateway or a poll.
    pub(super) fn ready_elsewhere(&self, queue_id: i64) {
        Inner::kick(&self.0, queue_id);
    }

    /// How many receivers wait in each queue.
    pub(super) fn waiting(&self) -> HashMap<i64, usize> {
        let lines = self.0.lock();
        lines
            .by_queue
            .iter()
            .map(|(id, line)| (*id, line.count() + line.out))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Sends everybody away empty-handed, now and from now on.
    pub(super) fn close(&self) {
        let mut lines = self.0.lock();
        lines.closed = true;
        for line in lines.by_queue.values_mut() {
            line.waiting.clear();
        }
    }
}

impl Inner {
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    pub(super) fn due(&self) -> &DueSchedule {
        &self.due
    }

    pub(super) fn hints(&self) -> &Hints {
        &self.hints
    }

    /// How far the rounds of fair queues have got. Not in their lines, which are gone
    /// when nobody waits.
    pub(super) fn rounds(&self) -> MutexGuard<'_, HashMap<i64, fair::Round>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn passing(&self) -> &fair::Passing {
        &self.passing
    }

    fn anybody_waits(&self) -> bool {
        !self.lock().by_queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the waiter is in line.
    fn join(this: &Arc<Self>, queue_id: i64, waiter: Waiter) -> Result<bool, Error> {
        let mut lines = this.lock();
        if lines.closed {
            return Ok(false);
        }
        let line = lines.by_queue.entry(queue_id).or_default();
        if !waiter.patient && line.claiming.is_some_and(|since| since.elapsed() > STUCK) {
            return Err(Error::Overloaded);
        }
        line.waiting.push_back(waiter);
        Self::start_claiming(this, queue_id, line);
        Ok(true)
    }

    pub(super) fn kick(this: &Arc<Self>, queue_id: i64) {
        if let Some(line) = this.lock().by_queue.get_mut(&queue_id) {
            line.missed |= line.out > 0;
            Self::start_claiming(this, queue_id, line);
        }
    }

    fn start_claiming(this: &Arc<Self>, queue_id: i64, line: &mut Line) {
        line.again = true;
        if line.claiming.is_none() {
            line.claiming = Some(Instant::now());
            let inner = Arc::clone(this);
            this.tracker
                .spawn(async move { inner.claim_for_line(queue_id).await });
        }
    }

    async fn claim_for_line(self: Arc<Self>, queue_id: i64) {
        loop {
            let turn = self.turn(queue_id).await;
            let Some(front) = self.front(queue_id) else {
                return;
            };
            let wishes: Vec<Receiver> = front.iter().map(|waiter| waiter.wish).collect();
            let began = Instant::now();
            let wanted: usize = wishes.iter().map(|w| w.max_messages as usize).sum();
            let asking = front.iter().filter_map(|waiter| waiter.asking.as_deref());
            let span = Span::of_statement("store.claim", asking, wanted);
            let claimed = caught(self.store.claim(queue_id, &wishes)).await;
            drop(turn);
            if let Some(span) = span {
                span.ran(claimed.is_err());
            }
            match claimed {
                Ok(claimed) => {
                    if claimed.outlived > 0 {
                        self.due.note(queue_id, Duration::ZERO);
                    }
                    let brought = claimed.total();
                    let ran_out = brought + (claimed.outlived as usize) < wanted;
                    let fair = fair::Claim::of(queue_id, &claimed, wanted);
                    let unserved = self.hand_out(queue_id, front, claimed.deliveries, began);
                    // Messages that had outlived their time took the place of
                    // others.
                    let mut try_again = claimed.outlived > 0;
                    if let Some(claim) = fair {
                        let in_hurry = unserved.iter().any(|waiter| !waiter.patient);
                        let after = self.after_fair_claim(queue_id, claim, in_hurry);
                        try_again |= Box::pin(after).await;
                    }
                    self.put_back(queue_id, unserved, brought, ran_out, try_again);
                }
                Err(error) => {
                    for waiter in front {
                        let _ = waiter.reply.send(Err(error.clone()));
                    }
                    // What there was for them is for those behind them.
                    Self::kick(&self, queue_id);
                }
            }
        }
    }

    /// Waits for others' statements, before it is settled who is in front, if there is
    /// somebody and the claim is going to be small: as the last one was.
    async fn turn(&self, queue_id: i64) -> Option<Turn<'_>> {
        let is_small =
            |line: &Line| line.again && !line.waiting.is_empty() && line.brought < ACKS.alongside;
        let waits = self.lock().by_queue.get(&queue_id).is_some_and(is_small);
        if waits {
            Some(self.others.turn().await)
        } else {
            None
        }
    }

    /// Takes the first in line, as many as one statement serves; `None` (and
    /// the task's end) if there is nobody or nothing new.
    fn front(&self, queue_id: i64) -> Option<Vec<Waiter>> {
        let mut lines = self.lock();
        let line = lines.by_queue.get_mut(&queue_id)?;
        let mut front = Vec::new();
        if std::mem::take(&mut line.again) {
            let mut rows = 0;
            while rows < CLAIM_ROWS
                && let Some(waiter) = line.waiting.pop_front()
            {
                if !waiter.reply.is_closed() {
                    rows += waiter.wish.max_messages as usize;
                    front.push(waiter);
                }
            }
        }
        if !front.is_empty() {
            line.claiming = Some(Instant::now());
            return Some(front);
        }
        line.claiming = None;
        lines.remove_if_empty(queue_id);
        None
    }

    /// Gives each its messages, from a claim that began then; answers with those
    /// who got none.
    fn hand_out(
        self: &Arc<Self>,
        queue_id: i64,
        front: Vec<Waiter>,
        deliveries: Vec<Vec<Delivery>>,
        began: Instant,
    ) -> Vec<Waiter> {
        let mut unserved = Vec::new();
        let now = Instant::now();
        for (mut waiter, deliveries) in front.into_iter().zip(deliveries) {
            if deliveries.is_empty() {
                waiter.idle_since.get_or_insert(now);
                unserved.push(waiter);
            } else {
                self.grant(queue_id, waiter, deliveries, began);
            }
        }
        unserved
    }

    /// Sends a receiver its messages, from a statement that began then.
    fn grant(
        self: &Arc<Self>,
        queue_id: i64,
        waiter: Waiter,
        deliveries: Vec<Delivery>,
        began: Instant,
    ) {
        self.due.note(queue_id, waiter.wish.lease.to_duration());
        let since = waiter.idle_since;
        let received = Received {
            deliveries,
            waited: since.map_or(Duration::ZERO, |s| began.saturating_duration_since(s)),
        };
        let grant = Grant {
            received,
            inner: Arc::clone(self),
        };
        // Refused because the receiver has gone: dropping the grant releases it.
        let _ = waiter.reply.send(Ok(grant));
    }

    /// Puts the unserved back at the head of the line. If the messages have run
    /// out, the impatient leave; otherwise the next in line are served.
    fn put_back(
        &self,
        queue_id: i64,
        unserved: Vec<Waiter>,
        brought: usize,
        ran_out: bool,
        try_again: bool,
    ) {
        let mut lines = self.lock();
        let closed = lines.closed;
        let Some(line) = lines.by_queue.get_mut(&queue_id) else {
            return;
        };
        line.brought = brought;
        for waiter in unserved.into_iter().rev() {
            line.waiting.push_front(waiter);
        }
        if closed {
            line.waiting.clear();
        }
        line.again |= try_again || (!ran_out && !line.waiting.is_empty());
        if ran_out && !line.again {
            // Dropping the channel answers with nothing.
            line.waiting.retain(|waiter| waiter.patient);
        }
    }

    async fn release(self: Arc<Self>, queue_id: i64, leases: Vec<Lease>) {
        let items: Vec<Settle> = leases
            .into_iter()
            .map(|lease| Settle {
                lease,
                must_be_due: false,
                disposition: Disposition::Release,
                outcome: None,
                error: None,
            })
            .collect();
        match self.store.settle(&items).await {
            Ok(_) => {
                self.hints.add(queue_id);
                Self::kick(&self, queue_id);
            }
            Err(error) => {
                tracing::warn!(%error, "undelivered leases were not released and must run out");
            }
        }
    }
}
