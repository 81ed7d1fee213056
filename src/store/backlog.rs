//! Queues in which too much waits.

use sqlx::Row as _;

use super::{Error, Store, statements};

statements! {
    BACKLOGS = "backlogs";
}

/// A queue whose backlog has become high, or is so no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Which.
    pub queue_id: i64,
    /// How many are ready.
    pub ready: i64,
    /// From how many on it is high.
    pub threshold: i64,
    /// Whether it has become high.
    pub high: bool,
}

impl Store {
    /// What has changed since this was last asked by any gateway. `threshold` is
    /// for queues without `max_ready`.
    ///
    /// # Errors
    /// Any; whether the change was noted is then not known.
    pub async fn backlogs(&self, threshold: i64) -> Result<Vec<Backlog>, Error> {
        let rows = sqlx::query(BACKLOGS)
            .bind(threshold)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Backlog {
                    queue_id: row.try_get("queue_id")?,
                    ready: row.try_get("ready")?,
                    threshold: row.try_get("threshold")?,
                    high: row.try_get("high")?,
                })
            })
            .collect()
    }
}
