//! Webhooks as they are stored: settings, status, sealed secrets. What the push
//! worker needs of them is in [`lanes`], what it did in [`attempts`].
//!
//! Secrets come here sealed and leave sealed: neither the database nor this room
//! ever has the key.

mod attempts;
mod lanes;
mod resend;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

pub use attempts::{AttemptFilter, PushAttempt, PushOutcomeKind, PushRecord};
pub use lanes::Lane;
pub use resend::Resent;

use super::{Error, Store};
use crate::domain::{
    Breaker, BreakerSettings, DisableReason, Seconds, WebhookSettings, WebhookStatus,
};

pub(super) const STATEMENTS: [&[(&str, &str)]; 3] =
    [attempts::STATEMENTS, lanes::STATEMENTS, resend::STATEMENTS];

/// A webhook as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// The queue that it consumes; its key.
    pub queue_id: i64,
    /// Its settings.
    pub settings: WebhookSettings,
    /// Whether it is pushed to.
    pub status: WebhookStatus,
    /// Why it is disabled.
    pub reason: Option<DisableReason>,
    /// Since when it has this status.
    pub status_since: DateTime<Utc>,
    /// The secrets that sign now, sealed, the newest first: one or two.
    pub secrets: Vec<Vec<u8>>,
    /// Until when the older of two signs.
    pub old_secret_until: Option<DateTime<Utc>>,
    /// Its circuit breaker, at most a second old while its endpoint is well.
    pub breaker: Breaker,
    /// When the first of its failures was, if there has been no success since.
    pub failing_since: Option<DateTime<Utc>>,
    /// Counts changes of the settings, from 1.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a put did.
#[derive(Debug)]
pub struct WebhookPut {
    /// The webhook as it is now.
    pub webhook: Webhook,
    /// Whether it was not there before: then the secret that was given is its.
    pub created: bool,
}

/// How long the secret before signs along after a rotation.
pub const OVERLAP: Seconds = Seconds::new(24 * 3600);

/// The columns of a webhook, and whether the older secret signs still. By name:
/// a gateway of this version goes on when a later one adds a column.
const SELECT: &str = "SELECT
    w.queue_id, w.url, w.headers, w.timeout_ms, w.max_in_flight, w.rate_limit_per_second,
    w.breaker_failure_rate, w.breaker_window, w.breaker_min_calls, w.breaker_open_ms,
    w.disable_after_ms, w.status, w.status_reason, w.status_since, w.secret, w.old_secret,
    w.old_secret_until, w.breaker, w.failing_since, w.version, w.created_at, w.updated_at,
    w.old_secret_until > now() AS old_secret_signs";

/// A reset of the breaker, of a later epoch than whatever the lane's owner has
/// in hand: it takes this one when it next renews.
const RESET: &str = "jsonb_build_object(
        'epoch', (w.breaker ->> 'epoch')::bigint + 1000000, 'state', 'closed', 'window', '')";

impl Store {
    /// The webhook of a queue.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn webhook(&self, queue_id: i64) -> Result<Option<Webhook>, Error> {
        self.one_webhook(
            format!("{SELECT} FROM postrider.webhooks AS w WHERE w.queue_id = $1"),
            queue_id,
        )
        .await
    }

    /// Makes the webhook of a queue, if it has none and the queue is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn create_webhook(
        &self,
        queue_id: i64,
        settings: &WebhookSettings,
        sealed_secret: &[u8],
    ) -> Result<Option<Webhook>, Error> {
        let create = format!(
            "WITH w AS (
                INSERT INTO postrider.webhooks (
                    queue_id, url, headers, timeout_ms, max_in_flight, rate_limit_per_second,
                    breaker_failure_rate, breaker_window, breaker_min_calls, breaker_open_ms,
                    disable_after_ms, secret)
                SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
                FROM postrider.queues WHERE id = $1
                ON CONFLICT (queue_id) DO NOTHING
                RETURNING *
             )
             {SELECT} FROM w"
        );
        let row = bind_settings(sqlx::query(sqlx::AssertSqlSafe(create)), queue_id, settings)
            .bind(sealed_secret)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(webhook).transpose()
    }

    /// Replaces the settings of a webhook that is at `version`. With another URL
    /// it is another endpoint, of which nothing bad is known yet: its breaker is
    /// closed.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn update_webhook(
        &self,
        queue_id: i64,
        settings: &WebhookSettings,
        version: i64,
    ) -> Result<Webhook, Error> {
        let update = format!(
            "WITH w AS (
                UPDATE postrider.webhooks AS w SET
                    url = $2, headers = $3, timeout_ms = $4, max_in_flight = $5,
                    rate_limit_per_second = $6, breaker_failure_rate = $7, breaker_window = $8,
                    breaker_min_calls = $9, breaker_open_ms = $10, disable_after_ms = $11,
                    breaker = CASE WHEN w.url = $2 THEN w.breaker ELSE {RESET} END,
                    failing_since = CASE WHEN w.url = $2 THEN w.failing_since END,
                    version = w.version + 1, updated_at = now()
                WHERE w.queue_id = $1 AND w.version = $12
                RETURNING w.*
             )
             {SELECT} FROM w"
        );
        let row = bind_settings(sqlx::query(sqlx::AssertSqlSafe(update)), queue_id, settings)
            .bind(version)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref()
            .map(webhook)
            .transpose()?
            .ok_or(Error::Conflict)
    }

    /// Makes the webhook of a queue with this secret, or replaces its settings
    /// and leaves its secret. `None` if there is no such queue. Two statements,
    /// each whole by itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted at the same time.
    pub async fn put_webhook(
        &self,
        queue_id: i64,
        settings: &WebhookSettings,
        sealed_secret: &[u8],
    ) -> Result<Option<WebhookPut>, Error> {
        for _ in 0..10 {
            let made = self
                .create_webhook(queue_id, settings, sealed_secret)
                .await?;
            if let Some(webhook) = made {
                return Ok(Some(WebhookPut {
                    webhook,
                    created: true,
                }));
            }
            let Some(old) = self.webhook(queue_id).await? else {
                if self.queue_is_gone(queue_id).await? {
                    return Ok(None);
                }
                continue;
            };
            match self.replace_webhook(old, settings).await {
                Err(Error::Conflict) => {}
                other => {
                    return Ok(Some(WebhookPut {
                        webhook: other?,
                        created: false,
                    }));
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Replaces the settings of a webhook that was read before, if they are
    /// others.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted since.
    pub async fn replace_webhook(
        &self,
        old: Webhook,
        settings: &WebhookSettings,
    ) -> Result<Webhook, Error> {
        if old.settings == *settings {
            return Ok(old);
        }
        self.update_webhook(old.queue_id, settings, old.version)
            .await
    }

    async fn queue_is_gone(&self, queue_id: i64) -> Result<bool, Error> {
        let row = sqlx::query("SELECT FROM postrider.queues WHERE id = $1")
            .bind(queue_id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_none())
    }

    /// Deletes the webhook of a queue; with `version`, only if it is at that.
    /// Whether it was there. The queue and its messages stay.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_webhook(&self, queue_id: i64, version: Option<i64>) -> Result<bool, Error> {
        let deleted = sqlx::query(
            "DELETE FROM postrider.webhooks
             WHERE queue_id = $1 AND ($2::bigint IS NULL OR version = $2)",
        )
        .bind(queue_id)
        .bind(version)
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Stops pushing until [`Self::resume_webhook`]. A disabled webhook stays
    /// disabled. `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn pause_webhook(&self, queue_id: i64) -> Result<Option<Webhook>, Error> {
        self.one_webhook(
            format!(
                "WITH w AS (
                    UPDATE postrider.webhooks AS w SET
                        status = CASE w.status WHEN 'active' THEN 'paused' ELSE w.status END,
                        status_since =
                            CASE w.status WHEN 'active' THEN now() ELSE w.status_since END
                    WHERE w.queue_id = $1
                    RETURNING w.*
                 )
                 {SELECT} FROM w"
            ),
            queue_id,
        )
        .await
    }

    /// Pushes again, whether it was paused or disabled, with a closed breaker.
    /// `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn resume_webhook(&self, queue_id: i64) -> Result<Option<Webhook>, Error> {
        self.one_webhook(
            format!(
                "WITH w AS (
                    UPDATE postrider.webhooks AS w SET
                        status = 'active',
                        status_reason = NULL,
                        status_since =
                            CASE w.status WHEN 'active' THEN w.status_since ELSE now() END,
                        breaker = {RESET},
                        failing_since = NULL
                    WHERE w.queue_id = $1
                    RETURNING w.*
                 )
                 {SELECT} FROM w"
            ),
            queue_id,
        )
        .await
    }

    /// Gives a webhook up. Whether this call did: of several that try, one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn disable_webhook(
        &self,
        queue_id: i64,
        reason: DisableReason,
    ) -> Result<bool, Error> {
        let disabled = sqlx::query(
            "UPDATE postrider.webhooks
             SET status = 'disabled', status_reason = $2, status_since = now()
             WHERE queue_id = $1 AND status <> 'disabled'",
        )
        .bind(queue_id)
        .bind(reason.as_str())
        .execute(&self.pool)
        .await?;
        Ok(disabled.rows_affected() == 1)
    }

    /// Gives a webhook a new secret; the one before signs along for
    /// [`OVERLAP`], an even older one no more. `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn rotate_webhook_secret(
        &self,
        queue_id: i64,
        sealed_secret: &[u8],
    ) -> Result<Option<Webhook>, Error> {
        let rotate = format!(
            "WITH w AS (
                UPDATE postrider.webhooks AS w SET
                    secret = $2, old_secret = w.secret,
                    old_secret_until = now() + $3 * interval '1 ms'
                WHERE w.queue_id = $1
                RETURNING w.*
             )
             {SELECT} FROM w"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(rotate))
            .bind(queue_id)
            .bind(sealed_secret)
            .bind(OVERLAP.as_millis())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(webhook).transpose()
    }

    async fn one_webhook(&self, sql: String, queue_id: i64) -> Result<Option<Webhook>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(queue_id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(webhook).transpose()
    }
}

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_settings<'q>(
    query: PgQuery<'q>,
    queue_id: i64,
    settings: &'q WebhookSettings,
) -> PgQuery<'q> {
    let breaker = &settings.circuit_breaker;
    query
        .bind(queue_id)
        .bind(&settings.url)
        .bind(sqlx::types::Json(&settings.headers))
        .bind(settings.timeout.as_millis())
        .bind(settings.max_in_flight.cast_signed())
        .bind(settings.rate_limit_per_second)
        .bind(breaker.failure_rate)
        .bind(breaker.window.cast_signed())
        .bind(breaker.min_calls.cast_signed())
        .bind(breaker.open.as_millis())
        .bind(settings.disable_after.as_millis())
}

/// From a row of `webhooks`, with `old_secret_signs`.
fn webhook(row: &PgRow) -> Result<Webhook, Error> {
    let millis = |column| Ok::<_, Error>(Seconds::from_millis(row.try_get(column)?));
    let natural = |column| Ok::<_, Error>(row.try_get::<i32, _>(column)?.cast_unsigned());
    let headers: sqlx::types::Json<BTreeMap<String, String>> = row.try_get("headers")?;
    let breaker: sqlx::types::Json<Breaker> = row.try_get("breaker")?;
    let mut secrets = vec![row.try_get("secret")?];
    let old_signs = row.try_get::<Option<bool>, _>("old_secret_signs")? == Some(true);
    if let Some(old) = row.try_get("old_secret")?
        && old_signs
    {
        secrets.push(old);
    }
    Ok(Webhook {
        queue_id: row.try_get("queue_id")?,
        settings: WebhookSettings {
            url: row.try_get("url")?,
            headers: headers.0,
            timeout: millis("timeout_ms")?,
            max_in_flight: natural("max_in_flight")?,
            rate_limit_per_second: row.try_get("rate_limit_per_second")?,
            circuit_breaker: BreakerSettings {
                failure_rate: row.try_get("breaker_failure_rate")?,
                window: natural("breaker_window")?,
                min_calls: natural("breaker_min_calls")?,
                open: millis("breaker_open_ms")?,
            },
            disable_after: millis("disable_after_ms")?,
        },
        status: match row.try_get::<&str, _>("status")? {
            "active" => WebhookStatus::Active,
            "paused" => WebhookStatus::Paused,
            _ => WebhookStatus::Disabled,
        },
        reason: match row.try_get::<Option<&str>, _>("status_reason")? {
            Some("gone") => Some(DisableReason::Gone),
            Some(_) => Some(DisableReason::Failing),
            None => None,
        },
        status_since: row.try_get("status_since")?,
        secrets,
        old_secret_until: row
            .try_get::<Option<_>, _>("old_secret_until")?
            .filter(|_| old_signs),
        breaker: breaker.0,
        failing_since: row.try_get("failing_since")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
