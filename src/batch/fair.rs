//! After a claim of a fair queue: the turns of what was claimed are passed on, and
//! if receivers wanted more than there was, as many more are let out, shared out
//! among the keys. So keys take turns while receivers are busy, and one that is alone
//! is received in batches.

use std::time::Duration;

use super::receivers::Inner;
use crate::store::{Claimed, Error, Turn};

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
    /// Whether more became ready.
    pub(super) async fn after_fair_claim(&self, queue_id: i64, claim: Claim) -> bool {
        match self.let_out(queue_id, claim).await {
            Ok(more) => {
                if more {
                    self.hints().add(queue_id);
                }
                more
            }
            Err(error) => {
                tracing::warn!(%error, "turns are left to the sweep");
                false
            }
        }
    }

    async fn let_out(&self, queue_id: i64, claim: Claim) -> Result<bool, Error> {
        let mut promoted = 0;
        if !claim.turns.is_empty() {
            let passed = self.store().next_turns(&claim.turns).await?;
            promoted += passed.ready_rows;
            for (queue_id, wakes_in_ms) in passed.parked {
                let wait = Duration::from_millis(u64::try_from(wakes_in_ms).unwrap_or(0));
                self.due().note(queue_id, wait);
            }
        }
        let short_by = claim.short_by.saturating_sub(promoted);
        if short_by > 0 {
            let after = self.fair_after(queue_id);
            let (mut last, mut more) = self.store().fair_round(queue_id, &after, short_by).await?;
            if more == 0 && !after.is_empty() {
                (last, more) = self.store().fair_round(queue_id, "", short_by).await?;
            }
            self.set_fair_after(queue_id, last);
            promoted += usize::try_from(more).unwrap_or(usize::MAX);
        }
        Ok(promoted > 0)
    }
}
