//! Pushing again what was pushed before.

use std::collections::HashMap;

use sqlx::Row as _;

use crate::domain::Seconds;
use crate::store::dead_letters::redrive_on;
use crate::store::transaction::{On, Transaction};
use crate::store::{DeadFilter, Error, Redrive, Store, Turn, statements};

statements! {
    RESEND = "resend";
}

/// What became of a message that is to be pushed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resent {
    /// It was a dead letter and is back in its queue.
    Redriven,
    /// It had been settled and was stored anew.
    Sent,
    /// It is in its queue: it will be pushed without this.
    AlreadyQueued,
    /// Its body is there no more, or the webhook has never pushed it.
    Gone,
}

impl Store {
    /// Puts messages back into the queue of a webhook, with the ids they have,
    /// attempts counted anew; one result each, in order, and the keys whose turn may
    /// have come. Two statements, each
    /// whole by itself: the dead letters are redriven, then what had been settled
    /// is stored anew.
    ///
    /// # Errors
    /// Any; some may have been put back.
    pub async fn resend(
        &self,
        queue_id: i64,
        message_ids: &[i64],
    ) -> Result<(Vec<Resent>, Vec<Turn>), Error> {
        resend_on(&mut On::Alone(&self.pool), queue_id, message_ids).await
    }
}

impl Transaction {
    /// As [`Store::resend`], whole.
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn resend(
        &mut self,
        queue_id: i64,
        message_ids: &[i64],
    ) -> Result<(Vec<Resent>, Vec<Turn>), Error> {
        resend_on(&mut self.on()?, queue_id, message_ids).await
    }
}

async fn resend_on(
    on: &mut On<'_>,
    queue_id: i64,
    message_ids: &[i64],
) -> Result<(Vec<Resent>, Vec<Turn>), Error> {
    let mut distinct = message_ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let redrive = Redrive {
        to_queue_id: queue_id,
        ids: Some(distinct.clone()),
        filter: DeadFilter::default(),
        limit: i64::try_from(distinct.len()).unwrap_or(i64::MAX),
        apart: Seconds::ZERO,
        first_in: Seconds::ZERO,
        scheduled: false,
    };
    let mut became = HashMap::new();
    let mut turns = Vec::new();
    for redriven in redrive_on(on, queue_id, &redrive).await? {
        turns.extend(redriven.turn(queue_id));
        became.insert(redriven.message_id, Resent::Redriven);
    }
    distinct.retain(|message_id| !became.contains_key(message_id));
    if !distinct.is_empty() {
        let query = sqlx::query(RESEND).bind(queue_id).bind(&distinct);
        let rows = on.fetch_all(query).await?;
        for row in rows {
            let resent = match row.try_get::<&str, _>("became")? {
                "sent" => Resent::Sent,
                "alive" => Resent::AlreadyQueued,
                _ => Resent::Gone,
            };
            if let Some(key) = row.try_get("lined_up_key")? {
                turns.push(Turn::key(queue_id, key));
            }
            became.insert(row.try_get("message_id")?, resent);
        }
    }
    let results = message_ids
        .iter()
        .map(|message_id| became.get(message_id).copied().unwrap_or(Resent::Gone))
        .collect();
    Ok((results, turns))
}
