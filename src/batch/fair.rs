//! After a claim of a fair queue: the turns of what was claimed are passed on, and
//! if receivers wanted more than there was, as many more are let out, shared out
//! among the keys. So keys take turns while receivers are busy, and one that is alone
//! is received in batches.

use super::receivers::Inner;
use super::turns::note_parked;
use crate::store::{Claimed, Error, Turn};

/// How often a claim looks for keys that have more. Those that are idle are forgotten
/// within seconds, so it is not for ever that they are in the way.
const LOOKS: usize = 8;

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
            note_parked(self.due(), &passed);
        }
        let mut short_by = claim.short_by.saturating_sub(promoted);
        if short_by > 0 {
            let mut after = self.fair_after(queue_id);
            // A round is over where there are no more keys; the next begins anew.
            let mut is_whole = after.is_empty();
            for _ in 0..LOOKS {
                let (last, more) = self.store().fair_round(queue_id, &after, short_by).await?;
                let more = usize::try_from(more).unwrap_or(usize::MAX);
                promoted += more;
                short_by = short_by.saturating_sub(more);
                let is_over = last.is_empty();
                after = last;
                if short_by == 0 || is_over && is_whole {
                    break;
                }
                is_whole |= is_over;
            }
            self.set_fair_after(queue_id, after);
        }
        Ok(promoted > 0)
    }
}
