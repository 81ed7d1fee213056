//! After a claim of a fair queue: the turns of what was claimed are passed on, beside
//! the next claim. If receivers wanted more than there was, as many more are let out,
//! shared out among the keys. So keys take turns while receivers are busy, and one that is alone
//! is received in batches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::caught;
use super::receivers::Inner;
use super::turns::note_parked;
use crate::store::{Claimed, Error, Turn};

/// Statements of a round after one claim, before others are served.
const LOOKS: usize = 4;

/// Rounds that are remembered; a queue that is not begins anew, which is no harm.
const MOST_ROUNDS: usize = 10_000;

/// How far the round among the keys of a queue has got.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    /// The key that it came to.
    after: String,
    /// It has been past the last key since it last let something out.
    has_wrapped: bool,
}

/// Turns that are passed on beside claims, by one task, while there are any.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Those that came since it took some; `None`: there is no task.
    turns: Mutex<Option<Vec<Turn>>>,
    took_some: Notify,
}

impl Passing {
    fn turns(&self) -> MutexGuard<'_, Option<Vec<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds turns; whether a task has to be started.
    fn begin(&self, more: Vec<Turn>) -> bool {
        let mut turns = self.turns();
        let is_first = turns.is_none();
        turns.get_or_insert_default().extend(more);
        is_first
    }

    /// What the task passes on next; it ends if that is nothing.
    fn next(&self) -> Option<Vec<Turn>> {
        let mut turns = self.turns();
        let next = turns.take().filter(|some| !some.is_empty());
        if next.is_some() {
            *turns = Some(Vec::new());
        }
        drop(turns);
        self.took_some.notify_waiters();
        next
    }

    /// Waits until all that was begun has been passed on; whether anything was.
    async fn ended(&self) -> bool {
        let mut any = false;
        // What it is at, and what it takes then.
        for _ in 0..2 {
            let taken = self.took_some.notified();
            if self.turns().is_none() {
                break;
            }
            taken.await;
            any = true;
        }
        any
    }
}

/// What a claim of a fair queue leaves to do.
pub(super) struct Claim {
    turns: Vec<Turn>,
    /// How many messages more were wanted.
    short_by: usize,
}

impl Claim {
    /// `None` unless the queue is fair.
    pub(super) fn of(queue_id: i64, claimed: &Claimed, wanted: usize) -> Option<Self> {
        claimed.fair.then(|| Self {
            turns: claimed
                .deliveries
                .iter()
                .flatten()
                .filter_map(|delivery| delivery.envelope.key.as_deref())
                .map(|key| Turn::key(queue_id, key))
                .collect(),
            short_by: wanted.saturating_sub(claimed.total()),
        })
    }
}

impl Inner {
    /// Whether to claim again. Somebody who is in a hurry goes away if there is nothing.
    pub(super) async fn after_fair_claim(
        self: &Arc<Self>,
        queue_id: i64,
        claim: Claim,
        in_hurry: bool,
    ) -> bool {
        if claim.short_by == 0 {
            self.pass_beside(claim.turns);
            return false;
        }
        if in_hurry && self.passing().ended().await {
            self.pass_beside(claim.turns);
            return true;
        }
        match self.let_out(queue_id, claim).await {
            Ok((promoted, look_on)) => {
                if promoted {
                    self.hints().add(queue_id);
                }
                promoted || look_on
            }
            Err(error) => {
                tracing::warn!(%error, "turns are left to the sweep");
                false
            }
        }
    }

    /// Passes turns on beside claims, which need not wait for it: a key that is being
    /// published to is locked until that has been flushed.
    fn pass_beside(self: &Arc<Self>, turns: Vec<Turn>) {
        if turns.is_empty() || !self.passing().begin(turns) {
            return;
        }
        let inner = Arc::clone(self);
        self.tracker().spawn(async move {
            while let Some(turns) = inner.passing().next() {
                match caught(inner.store().next_turns(&turns)).await {
                    Ok(passed) => {
                        note_parked(inner.due(), &passed);
                        for queue_id in passed.ready {
                            inner.hints().add(queue_id);
                            Self::kick(&inner, queue_id);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "turns are left to the sweep"),
                }
            }
        });
    }

    /// Whether more became ready, and whether there are keys that were not looked at.
    async fn let_out(&self, queue_id: i64, claim: Claim) -> Result<(bool, bool), Error> {
        let mut promoted = 0;
        if !claim.turns.is_empty() {
            let passed = self.store().next_turns(&claim.turns).await?;
            promoted += passed.ready_rows;
            note_parked(self.due(), &passed);
        }
        let mut short_by = claim.short_by.saturating_sub(promoted);
        if short_by == 0 {
            return Ok((promoted > 0, false));
        }
        let mut round = self.take_round(queue_id);
        for _ in 0..LOOKS {
            let looked = self.store().fair_round(queue_id, &round.after, short_by);
            let (more, came_to) = looked.await?;
            promoted += more;
            short_by = short_by.saturating_sub(more);
            let was_whole = round.has_wrapped || round.after.is_empty();
            round = Round {
                has_wrapped: more == 0 && (round.has_wrapped || came_to.is_none()),
                after: came_to.unwrap_or_default(),
            };
            if short_by == 0 {
                break;
            }
            // It ends where it began, with nothing.
            if round.after.is_empty() && more == 0 && was_whole {
                return Ok((promoted > 0, false));
            }
        }
        self.put_round(queue_id, round);
        Ok((promoted > 0, true))
    }

    fn take_round(&self, queue_id: i64) -> Round {
        self.rounds().remove(&queue_id).unwrap_or_default()
    }

    fn put_round(&self, queue_id: i64, round: Round) {
        let mut rounds = self.rounds();
        if rounds.len() >= MOST_ROUNDS {
            rounds.clear();
        }
        rounds.insert(queue_id, round);
    }
}
