//! What is due: delays and backoffs that are over, leases that have run out.

use std::time::Duration;

use sqlx::Row as _;

use super::watermark::DUE_FLOORS;
use super::{Error, Store, statements};
use crate::domain::{Failure, Lease};

statements! {
    DUE = "due";
    NEXT_DUE = "next_due";
}

/// What was found due.
#[derive(Debug, Default)]
pub struct Due {
    /// Queues in which messages became ready.
    pub woken: Vec<i64>,
    /// Messages to decide on.
    pub ended: Vec<Ended>,
}

/// A message to decide on.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its lease; token 0 if it has none.
    pub lease: Lease,
    /// Why.
    pub failure: Failure,
}

impl Store {
    /// Rows looked at in each queue at once.
    const DUE_ROWS: i64 = 1000;

    /// Makes ready what has waited long enough in these queues, and tells what
    /// else is due.
    ///
    /// # Errors
    /// Any.
    pub async fn due(&self, queue_ids: &[i64]) -> Result<Due, Error> {
        let floors: Vec<f64> = queue_ids
            .iter()
            .map(|id| self.watermarks.wakes_within_seconds(*id))
            .collect();
        let rows = sqlx::query(DUE)
            .bind(queue_ids)
            .bind(floors)
            .bind(Self::DUE_ROWS)
            .fetch_all(&self.pool)
            .await?;
        let mut due = Due::default();
        for row in rows {
            let queue_id = row.try_get("queue_id")?;
            if row.try_get("woken")? {
                if !due.woken.contains(&queue_id) {
                    due.woken.push(queue_id);
                }
                continue;
            }
            let lease = Lease {
                queue_id,
                message_id: row.try_get("message_id")?,
                token: row.try_get("token")?,
                attempt: row.try_get::<i32, _>("attempts")?.cast_unsigned(),
            };
            let outlived: bool = row.try_get("outlived")?;
            let failure = if outlived && lease.token == 0 {
                Failure::Outlived
            } else {
                Failure::LeaseExpired
            };
            due.ended.push(Ended { lease, failure });
        }
        Ok(due)
    }

    /// Queues with something due within the horizon, and how soon.
    ///
    /// # Errors
    /// Any.
    pub async fn next_due(&self, horizon: Duration) -> Result<Vec<(i64, Duration)>, Error> {
        let (queue_ids, floors) = self.watermarks.wake_columns();
        let rows = sqlx::query(NEXT_DUE)
            .bind(queue_ids)
            .bind(floors)
            .bind(i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, seconds(row.try_get(1)?))))
            .collect()
    }

    /// How soon the next thing is due in each of these queues, within the horizon.
    ///
    /// # Errors
    /// Any.
    pub async fn soonest(
        &self,
        queue_ids: &[i64],
        horizon: Duration,
    ) -> Result<Vec<(i64, Duration)>, Error> {
        let floors: Vec<f64> = queue_ids
            .iter()
            .map(|id| self.watermarks.wakes_within_seconds(*id))
            .collect();
        let rows = sqlx::query(DUE_FLOORS)
            .bind(queue_ids)
            .bind(floors)
            .bind(i64::try_from(horizon.as_millis()).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, seconds(-row.try_get::<f64, _>(1)?))))
            .collect()
    }
}

/// What is late is due now. Rounded up to the millisecond, so that a timer
/// never rings just before.
fn seconds(seconds: f64) -> Duration {
    let millis = (seconds.clamp(0.0, 1e9) * 1000.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    Duration::from_millis(millis as u64)
}
