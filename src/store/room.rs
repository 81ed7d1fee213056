//! Room in bounded queues: how full they are is asked before a publish, or acted on
//! after it.

use std::collections::HashMap;

use sqlx::Row as _;

use super::publish::{Publish, Refusal};
use super::transaction::On;
use super::{Error, Store, Turn, statements};
use crate::domain::Overflow;

statements! {
    ROOM = "room";
    OVERFLOW = "overflow";
}

/// What a publish made a `drop_oldest` queue give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overflowed {
    /// The queue.
    pub queue_id: i64,
    /// Those that are dead letters now.
    pub dead: Vec<i64>,
    /// All of them, if its keys take turns.
    pub dropped: Vec<i64>,
}

impl Overflowed {
    /// The keys whose turn may have come.
    pub fn turns(&self) -> impl Iterator<Item = Turn> {
        self.dropped
            .iter()
            .map(|message_id| Turn::message(self.queue_id, *message_id))
    }
}

/// Queues that drop what is over their bound, and the bound of each: to be looked
/// at when a publish has committed.
#[derive(Debug, Default)]
pub struct Bounds(pub(super) HashMap<i64, Bound>);

/// What a queue may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) max_ready: u64,
    /// Whether what is dropped may have had its key's turn.
    pub(super) has_lines: bool,
}

impl Store {
    /// For each request, whether its queue has no room for it.
    pub(super) async fn full_queues(
        &self,
        on: &mut On<'_>,
        requests: &[Publish],
    ) -> Result<Vec<Option<Refusal>>, Error> {
        let bound = |request: &Publish| {
            let settings = &request.queue.settings;
            settings
                .max_ready
                .filter(|_| settings.overflow == Overflow::Reject)
        };
        let ids: Vec<i64> = requests
            .iter()
            .filter(|r| bound(r).is_some())
            .map(|r| r.queue.id)
            .collect();
        if ids.is_empty() {
            return Ok(vec![None; requests.len()]);
        }
        let mut ready = self.ready_counts(on, &ids).await?;
        Ok(requests
            .iter()
            .map(|request| {
                let max_ready = bound(request)?;
                let ready = ready.entry(request.queue.id).or_default();
                let wanted = *ready + request.messages.len() as u64;
                if wanted > max_ready {
                    return Some(Refusal::Full { max_ready });
                }
                *ready = wanted;
                None
            })
            .collect())
    }

    pub(super) async fn ready_counts(
        &self,
        on: &mut On<'_>,
        ids: &[i64],
    ) -> Result<HashMap<i64, u64>, Error> {
        let query = sqlx::query(ROOM).bind(ids).bind(self.watermarks.tallies());
        let rows = on.fetch_all(query).await?;
        rows.iter()
            .map(|row| {
                let ready: i64 = row.try_get("ready")?;
                Ok((row.try_get("queue_id")?, u64::try_from(ready).unwrap_or(0)))
            })
            .collect()
    }

    /// Gives up the oldest messages of `drop_oldest` queues that a publish has
    /// made too full. If the gateway dies before, the next publish does it.
    pub async fn drop_overflow(&self, Bounds(bounds): Bounds) -> Vec<Overflowed> {
        let mut overflowed = Vec::new();
        if !bounds.is_empty()
            && let Err(error) = self.drop_excess(&bounds, &mut overflowed).await
        {
            // The messages are stored, which is what the answer promises.
            tracing::warn!(%error, "a full queue keeps its oldest messages until the next publish");
        }
        overflowed
    }

    async fn drop_excess(
        &self,
        bounds: &HashMap<i64, Bound>,
        overflowed: &mut Vec<Overflowed>,
    ) -> Result<(), Error> {
        let ids: Vec<i64> = bounds.keys().copied().collect();
        for (queue_id, ready) in self.ready_counts(&mut On::Alone(&self.hot), &ids).await? {
            let bound = bounds[&queue_id];
            if ready > bound.max_ready {
                let rows = sqlx::query(OVERFLOW)
                    .bind(queue_id)
                    .bind(i64::try_from(bound.max_ready).unwrap_or(i64::MAX))
                    .bind(self.watermarks.tallies())
                    .fetch_all(&self.hot)
                    .await?;
                let mut gone = Overflowed {
                    queue_id,
                    dead: Vec::new(),
                    dropped: Vec::new(),
                };
                for row in rows {
                    let message_id = row.try_get(0)?;
                    if bound.has_lines {
                        gone.dropped.push(message_id);
                    }
                    if row.try_get(1)? {
                        gone.dead.push(message_id);
                    }
                }
                overflowed.push(gone);
            }
        }
        Ok(())
    }
}
