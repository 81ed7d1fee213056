//! Consumer claims: whoever takes a claim may do the thing that it stands for,
//! until its lock ends; once it is completed nobody may, until it is forgotten.
//!
//! The database's clock says when a lock ends, and nothing tells its holder. So a
//! lock fences: each taking has a token that is greater than those of all before,
//! and whoever acts with an older one is refused. A holder that goes on after the
//! end of its lock finds out when it completes the claim; its own store finds out
//! at once if it compares tokens.
//!
//! A claim that is over is as good as none. Its row is removed an hour later, in
//! order of the ends, from where the last round came to ([`PRUNE_CLAIMS`]). What
//! is left: a single key that is taken and given up time and again while somebody
//! holds a snapshot leaves dead rows behind, which each look at that key reads.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::lookback::Lookback;
use super::transaction::{On, Transaction};
use super::{Error, Store, statements};
use crate::domain::{ClaimKey, ClaimToken, Seconds};

statements! {
    TAKE_CLAIM = "take_claim";
    COMPLETE_CLAIMS = "complete_claims";
    GIVE_UP_CLAIM = "give_up_claim";
    PRUNE_CLAIMS = "prune_claims";
}

/// How often a claim is looked at that others take and give up meanwhile.
const LOOKS: usize = 10;

/// What may be missed at the end of a round of pruning: rows that were locked.
const SLACK: Duration = Duration::from_mins(10);

/// The hour after which a claim that is over is removed, as `prune_claims.sql`
/// has it.
const GRACE: Duration = Duration::from_hours(1);

/// What a consumer is told that asks for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimTaken {
    /// It has it.
    Taken {
        /// Its token.
        token: ClaimToken,
        /// The end of its lock.
        until: DateTime<Utc>,
    },
    /// Somebody else has it.
    Held {
        /// For so long, at most.
        left: Duration,
    },
    /// It was done.
    Done(ClaimDone),
}

/// What became of a claim that is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimCompleted {
    /// It is done now.
    Now(ClaimDone),
    /// It was done before, with the same token.
    Before(ClaimDone),
    /// Somebody else has taken it since, or it is not there.
    Lost,
}

/// A claim that was completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimDone {
    /// When.
    pub done_at: DateTime<Utc>,
    /// Until when that is kept.
    pub until: DateTime<Utc>,
}

/// What became of a claim that its holder gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimGivenUp {
    /// Nobody has it now.
    Free,
    /// It was completed.
    Done,
    /// Somebody else has taken it since.
    Lost,
}

/// Completes claims; what became of each, in order.
pub(super) async fn complete(
    on: &mut On<'_>,
    claims: &[(ClaimKey, ClaimToken)],
) -> Result<Vec<ClaimCompleted>, Error> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<&str> = claims.iter().map(|(key, _)| key.as_str()).collect();
    let tokens: Vec<i64> = claims.iter().map(|(_, token)| token.0).collect();
    let query = sqlx::query(COMPLETE_CLAIMS).bind(keys).bind(tokens);
    let rows = on.fetch_all(query).await?;
    rows.iter()
        .map(|row| {
            let (Some(done_at), Some(until)) = (row.try_get("done_at")?, row.try_get("until")?)
            else {
                return Ok(ClaimCompleted::Lost);
            };
            let done = ClaimDone { done_at, until };
            Ok(if row.try_get("is_new")? {
                ClaimCompleted::Now(done)
            } else {
                ClaimCompleted::Before(done)
            })
        })
        .collect()
}

/// Takes a claim as a statement of its own, or in a transaction.
async fn take(
    on: &mut On<'_>,
    key: &ClaimKey,
    lock: Seconds,
    keep: Seconds,
) -> Result<ClaimTaken, Error> {
    for _ in 0..LOOKS {
        let query = sqlx::query(TAKE_CLAIM)
            .bind(key.as_str())
            .bind(lock.as_millis())
            .bind(keep.as_millis());
        let Some(row) = on.fetch_all(query).await?.pop() else {
            continue;
        };
        let until = row.try_get("until")?;
        if let Some(token) = row.try_get::<Option<i64>, _>("token")? {
            let token = ClaimToken(token);
            return Ok(ClaimTaken::Taken { token, until });
        }
        if let Some(done_at) = row.try_get("done_at")? {
            return Ok(ClaimTaken::Done(ClaimDone { done_at, until }));
        }
        let left_ms: i64 = row.try_get("left_ms")?;
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        return Ok(ClaimTaken::Held { left });
    }
    // Somebody had it at each look, and not at the next one's snapshot.
    Ok(ClaimTaken::Held {
        left: Duration::ZERO,
    })
}

impl Transaction {
    /// As [`Store::take_claim`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn take_claim(
        &mut self,
        key: &ClaimKey,
        lock: Seconds,
        keep: Seconds,
    ) -> Result<ClaimTaken, Error> {
        take(&mut self.on()?, key, lock, keep).await
    }
}

impl Store {
    /// Takes a claim for so long, unless somebody holds it or it is done. Once it
    /// is completed that is kept for `keep`.
    ///
    /// # Errors
    /// Any; whether it was taken is then not known, and its lock will end.
    pub async fn take_claim(
        &self,
        key: &ClaimKey,
        lock: Seconds,
        keep: Seconds,
    ) -> Result<ClaimTaken, Error> {
        take(&mut On::Alone(&self.pool), key, lock, keep).await
    }

    /// Completes a claim; `None` if somebody else has taken it since, or it is not
    /// there. Completing it again is fine and changes nothing.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known, and it may be tried again.
    pub async fn complete_claim(
        &self,
        key: &ClaimKey,
        token: ClaimToken,
    ) -> Result<Option<ClaimDone>, Error> {
        let claims = [(key.clone(), token)];
        let completed = complete(&mut On::Alone(&self.pool), &claims).await?;
        Ok(match completed.first() {
            Some(ClaimCompleted::Now(done) | ClaimCompleted::Before(done)) => Some(*done),
            Some(ClaimCompleted::Lost) | None => None,
        })
    }

    /// Gives a claim up, so that others may take it.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known, and it may be tried again.
    pub async fn give_up_claim(
        &self,
        key: &ClaimKey,
        token: ClaimToken,
    ) -> Result<ClaimGivenUp, Error> {
        let row = sqlx::query(GIVE_UP_CLAIM)
            .bind(key.as_str())
            .bind(token.0)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else {
            return Ok(ClaimGivenUp::Free);
        };
        Ok(match row.try_get("fate")? {
            "given-up" => ClaimGivenUp::Free,
            "done" => ClaimGivenUp::Done,
            _ => ClaimGivenUp::Lost,
        })
    }

    /// Removes claims that have been over for an hour, at most `rows`. How many.
    ///
    /// # Errors
    /// Any.
    pub(super) async fn prune_claims(&self, rows: i64) -> Result<i64, Error> {
        let asked = Instant::now();
        let from = self.claims_pruned().seconds(GRACE + SLACK);
        let row = sqlx::query(PRUNE_CLAIMS)
            .bind(rows)
            .bind(from)
            .fetch_one(&self.pool)
            .await?;
        let removed = row.try_get(0)?;
        if removed < rows {
            self.claims_pruned().nothing_due(asked);
        }
        Ok(removed)
    }

    fn claims_pruned(&self) -> std::sync::MutexGuard<'_, Lookback> {
        self.claims_pruned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
