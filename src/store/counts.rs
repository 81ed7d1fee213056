//! How many messages are where.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Error, Store, statements};

statements! {
    FOLD = "fold";
    COUNTS = "counts";
}

/// The live counts of a queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Messages that can be received now.
    pub ready: i64,
    /// Messages under a lease.
    pub leased: i64,
    /// Messages that wait for a time.
    pub delayed: i64,
    /// Dead letters.
    pub dead: i64,
    /// Since the publish of the oldest of the next messages to be received.
    pub oldest_ready_age_seconds: Option<f64>,
    /// Receive calls that hold leases now.
    pub holding: i64,
    /// Receivers that wait at other gateways.
    pub waiting_elsewhere: i64,
    /// When this was so.
    pub counted_at: DateTime<Utc>,
}

impl Store {
    /// Rows folded by one statement.
    const FOLD_ROWS: i64 = 10_000;

    /// Adds what statements have counted since the last fold. Whether there may
    /// be more.
    ///
    /// # Errors
    /// Any.
    pub async fn fold(&self) -> Result<bool, Error> {
        let row = sqlx::query(FOLD)
            .bind(self.watermarks.tallies())
            .bind(Self::FOLD_ROWS)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get::<i64, _>(0)? == Self::FOLD_ROWS)
    }

    /// A queue's counts as of now: folds first, so that they are exact unless
    /// more than [`Self::FOLD_ROWS`] changes are waiting or another gateway is
    /// folding at this moment. `gateway_id` is this gateway's, whose waiting
    /// receivers the caller knows better.
    ///
    /// # Errors
    /// Any.
    pub async fn counts(&self, queue_id: i64, gateway_id: i64) -> Result<Option<Counts>, Error> {
        self.fold().await?;
        let (priorities, floors) = self.watermarks.lanes(queue_id);
        let row = sqlx::query(COUNTS)
            .bind(queue_id)
            .bind(&priorities[..])
            .bind(&floors[..])
            .bind(gateway_id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            Ok(Counts {
                ready: row.try_get("ready")?,
                leased: row.try_get("leased")?,
                delayed: row.try_get("delayed")?,
                dead: row.try_get("dead")?,
                oldest_ready_age_seconds: row.try_get("oldest_ready_age_seconds")?,
                holding: row.try_get("holding")?,
                waiting_elsewhere: row.try_get("waiting_elsewhere")?,
                counted_at: row.try_get("counted_at")?,
            })
        })
        .transpose()
    }
}
