//! Runs: a receiver of an ordered queue that asked for more messages than there are
//! keys gets those behind too, under the same token, to be settled in order.
//!
//! What is leased behind an unsettled message cannot be acked (`ack_ordered.sql`),
//! and when that fails goes back to its line, its receipt lost and no attempt used up
//! (`step_back.sql`, before the lease in front ends). So a run is one turn that lasts
//! until all of it is settled.
//!
//! Webhooks and queues with `max_in_flight` have no runs.

use sqlx::Row as _;

use super::claim::delivery;
use super::transaction::{On, Transaction};
use super::{Delivery, Error, Settle, Store, statements};
use crate::domain::{Lease, Seconds};

statements! {
    FOLLOW = "follow";
    STEP_BACK = "step_back";
}

impl Store {
    /// Leases what stands in line behind messages of a queue that were leased just now,
    /// under their tokens: up to `room`, as many behind each. In their order.
    ///
    /// # Errors
    /// Any; leases that were given all the same end by their time.
    pub async fn follow(
        &self,
        queue_id: i64,
        heads: &[Lease],
        room: usize,
        lease: Seconds,
    ) -> Result<Vec<Delivery>, Error> {
        let (mut message_ids, mut tokens, mut rooms) = (vec![], vec![], vec![]);
        for (place, head) in heads.iter().enumerate() {
            // The first ones get what does not come out even.
            let share = room / heads.len() + usize::from(place < room % heads.len());
            if share > 0 {
                message_ids.push(head.message_id);
                tokens.push(head.token);
                rooms.push(i64::try_from(share).unwrap_or(i64::MAX));
            }
        }
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(FOLLOW)
            .bind(queue_id)
            .bind(message_ids)
            .bind(tokens)
            .bind(lease.as_millis())
            .bind(rooms)
            .fetch_all(&self.hot)
            .await?;
        rows.iter()
            .map(|row| {
                let attempt: i32 = row.try_get("attempt")?;
                delivery(queue_id, attempt.cast_unsigned(), row)
            })
            .collect()
    }

    /// Before leases of an ordered queue end otherwise than by an ack: gives what was
    /// leased behind them back to its line. The leases that ended by that.
    ///
    /// # Errors
    /// Any; none of them has ended then, or all that had to.
    pub async fn step_back(&self, items: &[Settle]) -> Result<Vec<(i64, i64)>, Error> {
        step_back_on(&mut On::Alone(&self.hot), items).await
    }
}

impl Transaction {
    /// As [`Store::step_back`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub(super) async fn step_back(&mut self, items: &[Settle]) -> Result<Vec<(i64, i64)>, Error> {
        step_back_on(&mut self.on()?, items).await
    }
}

async fn step_back_on(on: &mut On<'_>, items: &[Settle]) -> Result<Vec<(i64, i64)>, Error> {
    let (mut queue_ids, mut message_ids) = (vec![], vec![]);
    let (mut tokens, mut must_be_due) = (vec![], vec![]);
    for item in items.iter().filter(|item| item.lease.token != 0) {
        queue_ids.push(item.lease.queue_id);
        message_ids.push(item.lease.message_id);
        tokens.push(item.lease.token);
        must_be_due.push(item.must_be_due);
    }
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let query = sqlx::query(STEP_BACK)
        .bind(queue_ids)
        .bind(message_ids)
        .bind(tokens)
        .bind(must_be_due);
    let rows = on.fetch_all(query).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("message_id")?, row.try_get("token")?)))
        .collect()
}
