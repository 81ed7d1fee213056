//! Which gateway pushes to which webhook.
//!
//! One gateway at a time owns the lane of a webhook, for ten seconds at a time
//! (`owner`, `owner_until`). So its bound on pushes in flight, its rate limit and
//! its breaker are those of the whole cluster, without a word between gateways.
//! Every write of an owner is fenced: it changes nothing once the lane is
//! somebody else's, or nobody's.

use chrono::DateTime;
use sqlx::Row as _;

use super::{Webhook, webhook};
use crate::domain::Breaker;
use crate::store::{Error, Store, statements};

statements! {
    OWN_LANES = "own_lanes";
}

/// A webhook whose lane a gateway owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// The webhook. Nothing is pushed to it while it is not active.
    pub webhook: Webhook,
    /// Another gateway is to have it: let nothing new through, end what is on
    /// its way, then [`Store::release_lane`]. It runs out by itself otherwise.
    pub leaving: bool,
    /// [`Webhook::failing_since`] in milliseconds since 1970.
    pub failing_since_ms: Option<i64>,
    /// The database's time, milliseconds since 1970, to reckon a breaker's times
    /// from.
    pub now_ms: i64,
}

impl Store {
    /// Renews the lanes that this gateway owns and takes its share of those that
    /// nobody does; at most `most` in all. A lane that it has to give up stays its
    /// own as long as it is among the `busy`, where pushes are on their way. A lane
    /// that it had and that is not among the answers is lost: nothing may be pushed
    /// on it any more.
    ///
    /// Says too that this gateway lives: before the first heartbeat, or between
    /// two, it counts already.
    ///
    /// # Errors
    /// Any; whether lanes were taken is then not known, and they run out.
    pub async fn own_lanes(
        &self,
        gateway_id: i64,
        most: u32,
        busy: &[i64],
    ) -> Result<Vec<Lane>, Error> {
        let rows = sqlx::query(OWN_LANES)
            .bind(gateway_id)
            .bind(i64::from(most))
            .bind(busy)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Lane {
                    webhook: webhook(row)?,
                    leaving: row.try_get("leaving")?,
                    failing_since_ms: row.try_get("failing_since_ms")?,
                    now_ms: row.try_get("now_ms")?,
                })
            })
            .collect()
    }

    /// Gives one lane up. Nothing may be on its way there any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; it runs out by itself.
    pub async fn release_lane(&self, queue_id: i64, gateway_id: i64) -> Result<(), Error> {
        sqlx::query(
            "UPDATE postrider.webhooks SET owner = NULL, owner_until = NULL
             WHERE queue_id = $1 AND owner = $2",
        )
        .bind(queue_id)
        .bind(gateway_id)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives all lanes up, and counts this gateway no more among those that have
    /// a share: it is about to end.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; they run out by themselves.
    pub async fn release_lanes(&self, gateway_id: i64) -> Result<(), Error> {
        sqlx::query(
            "WITH parted AS (
                UPDATE postrider.gateways SET lanes_at = NULL WHERE id = $1
             )
             UPDATE postrider.webhooks SET owner = NULL, owner_until = NULL WHERE owner = $1",
        )
        .bind(gateway_id)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Writes a breaker's state through, and since when the endpoint has done
    /// nothing but fail (milliseconds since 1970). Whether it was written: not if
    /// the gateway does not own the lane, or the row has a later epoch (somebody
    /// resumed the webhook), which the next [`Self::own_lanes`] tells.
    ///
    /// # Errors
    /// Any; try again.
    pub async fn save_breaker(
        &self,
        queue_id: i64,
        gateway_id: i64,
        breaker: &Breaker,
        failing_since_ms: Option<i64>,
    ) -> Result<bool, Error> {
        let saved = sqlx::query(
            "UPDATE postrider.webhooks SET breaker = $3, failing_since = $4
             WHERE queue_id = $1 AND owner = $2 AND owner_until > now()
               AND (breaker ->> 'epoch')::bigint <= ($3::jsonb ->> 'epoch')::bigint",
        )
        .bind(queue_id)
        .bind(gateway_id)
        .bind(sqlx::types::Json(breaker))
        .bind(failing_since_ms.and_then(DateTime::from_timestamp_millis))
        .execute(&self.pool)
        .await?;
        Ok(saved.rows_affected() == 1)
    }

    /// Stores a breaker that was just half-opened for a probe; the probe may be
    /// sent only if this says so. Exactly one in the cluster can: the state must
    /// be of a later epoch than the stored one, and its gateway must own the lane
    /// still, so that an owner that slept through its time is too late.
    ///
    /// # Errors
    /// Any; then no probe may be sent.
    pub async fn begin_probe(
        &self,
        queue_id: i64,
        gateway_id: i64,
        half_open: &Breaker,
    ) -> Result<bool, Error> {
        let begun = sqlx::query(
            "UPDATE postrider.webhooks SET breaker = $3
             WHERE queue_id = $1 AND owner = $2 AND owner_until > now() AND status = 'active'
               AND (breaker ->> 'epoch')::bigint < ($3::jsonb ->> 'epoch')::bigint",
        )
        .bind(queue_id)
        .bind(gateway_id)
        .bind(sqlx::types::Json(half_open))
        .execute(&self.pool)
        .await?;
        Ok(begun.rows_affected() == 1)
    }
}
