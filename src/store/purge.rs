//! Emptying a queue.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{DeadFilter, Error, Queue, Store, statements};

statements! {
    PURGE_READY = "purge_ready";
    PURGE_LINED_UP = "purge_lined_up";
    PURGE_PARKED = "purge_parked";
    PURGE_DEAD = "purge_dead";
}

impl Store {
    /// Rows removed by one statement.
    const PURGE_ROWS: i64 = 10_000;

    /// Removes the messages that were in the queue when it began, ready, leased
    /// and delayed; as many statements as it takes, each of which counts what it
    /// removed, so that stopping half-way leaves a smaller queue and nothing
    /// else. First those that wait for their key's turn, so that it does not come
    /// meanwhile; who had a turn leaves it to whoever was published since, which a
    /// sweep passes on.
    ///
    /// # Errors
    /// Any.
    pub async fn purge(&self, queue: &Queue) -> Result<i64, Error> {
        let row = sqlx::query(
            "SELECT coalesce(pg_sequence_last_value('postrider.message_ids'::regclass), 0)",
        )
        .fetch_one(&self.pool)
        .await?;
        let last: i64 = row.try_get(0)?;
        let mut removed = 0;
        let with_lines = [
            PURGE_LINED_UP,
            PURGE_READY,
            PURGE_PARKED,
            PURGE_LINED_UP,
            PURGE_READY,
        ];
        let statements = if queue.has_lines() {
            &with_lines[..]
        } else {
            &[PURGE_READY, PURGE_PARKED, PURGE_READY]
        };
        for statement in statements.iter().copied() {
            loop {
                let row = sqlx::query(statement)
                    .bind(queue.id)
                    .bind(last)
                    .bind(Self::PURGE_ROWS)
                    .fetch_one(&self.pool)
                    .await?;
                let gone: i64 = row.try_get(0)?;
                removed += gone;
                if gone == 0 {
                    break;
                }
            }
        }
        Ok(removed)
    }

    /// Removes the dead letters that match.
    ///
    /// # Errors
    /// Any.
    pub async fn purge_dead(&self, queue_id: i64, filter: DeadFilter) -> Result<i64, Error> {
        // Behind what has died by now.
        let row = sqlx::query("SELECT clock_timestamp()")
            .fetch_one(&self.pool)
            .await?;
        let now: DateTime<Utc> = row.try_get(0)?;
        let until = filter.until.map_or(now, |until| until.min(now));
        let mut removed = 0;
        loop {
            let row = sqlx::query(PURGE_DEAD)
                .bind(queue_id)
                .bind(until)
                .bind(filter.reason)
                .bind(Self::PURGE_ROWS)
                .bind(filter.since)
                .fetch_one(&self.pool)
                .await?;
            let gone: i64 = row.try_get(0)?;
            removed += gone;
            if gone == 0 {
                return Ok(removed);
            }
        }
    }
}
