//! What a scrape of the metrics asks the database.

use sqlx::Row as _;

use super::{Error, Store, statements};
use crate::metrics::{QueueNumbers, Reading};

statements! {
    QUEUE_NUMBERS = "queue_numbers";
}

/// Gateways alive.
const CLUSTER: &str = "
    SELECT count(*) FROM postrider.gateways WHERE seen_at > now() - interval '10 s'";

impl Store {
    /// The numbers of each queue and of the whole, as of now; the first `named`
    /// queues by name, by age, so that none changes sides but when one is
    /// deleted. Three statements, the last of which is [`Store::storage`]'s: one
    /// place says what a snapshot is.
    ///
    /// # Errors
    /// Any.
    pub async fn numbers(&self, named: usize) -> Result<Reading, Error> {
        let (queue_ids, floors) = self.watermarks.floors_by_queue();
        let rows = sqlx::query(QUEUE_NUMBERS)
            .bind(i64::try_from(named).unwrap_or(i64::MAX))
            .bind(queue_ids)
            .bind(floors)
            .fetch_all(&self.pool)
            .await?;
        let queues = rows
            .iter()
            .map(|row| {
                let mut numbers = QueueNumbers {
                    name: row.try_get("name")?,
                    oldest_ready_age_seconds: row.try_get("oldest_ready_age_seconds")?,
                    consumers: row.try_get("consumers")?,
                    breaker: row.try_get("breaker")?,
                    ..QueueNumbers::default()
                };
                for (state, number) in QueueNumbers::STATES.iter().zip(&mut numbers.messages) {
                    *number = row.try_get(state)?;
                }
                for (total, number) in QueueNumbers::TOTALS.iter().zip(&mut numbers.totals) {
                    *number = row.try_get(total)?;
                }
                Ok(numbers)
            })
            .collect::<Result<_, Error>>()?;
        let row = sqlx::query(CLUSTER).fetch_one(&self.pool).await?;
        Ok(Reading {
            queues,
            gateways: row.try_get(0)?,
            oldest_snapshot_age_seconds: self.storage().await?.oldest_snapshot_seconds(),
        })
    }

    /// Notes how many connections are open.
    pub fn note_pools(&self) {
        let pools = [
            (&self.hot, &self.metrics.hot_pool),
            (&self.pool, &self.metrics.rest_pool),
        ];
        for (pool, metrics) in pools {
            let (busy, all) = pool.size();
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            metrics.idle.set(count(all - busy));
            metrics.busy.set(count(busy));
            metrics.most.set(i64::from(pool.most()));
        }
    }
}
