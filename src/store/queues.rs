//! Queues and their settings.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Error, Store, Turn};
use crate::domain::{
    Backoff, DeadLetterSettings, OnBlocked, Overflow, QueueName, QueueSettings, RateLimit,
    RetrySettings, Seconds,
};

/// A queue as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The internal id; never shown.
    pub id: i64,
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: QueueSettings,
    /// Whether a fair message was ever published to it.
    pub fair_seen: bool,
    /// Counts changes of the settings, from 1.
    pub version: i64,
    /// The version of its schema that publishes are checked with.
    pub schema_version: Option<i32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub updated_at: DateTime<Utc>,
}

impl Queue {
    /// Whether messages of it may wait for their key's turn.
    #[must_use]
    pub fn has_lines(&self) -> bool {
        self.settings.ordered || self.fair_seen
    }

    /// Whether a receiver may get several messages of one key at once.
    #[must_use]
    pub fn has_runs(&self) -> bool {
        self.settings.ordered && self.settings.max_in_flight.is_none()
    }

    /// The turns that end when these messages are settled: none unless it is ordered.
    pub fn turns_of(&self, message_ids: impl Iterator<Item = i64>) -> Vec<Turn> {
        if !self.settings.ordered {
            return Vec::new();
        }
        message_ids
            .map(|message_id| Turn::message(self.id, message_id))
            .collect()
    }
}

/// What a put did.
#[derive(Debug)]
pub struct Put {
    /// The queue as it is now.
    pub queue: Arc<Queue>,
    /// Whether it was not there before.
    pub created: bool,
}

const COLUMNS: &str = "id, name, lease_ms, max_attempts, backoff_initial_ms, backoff_multiplier,
    backoff_max_ms, backoff_jitter, message_ttl_ms, delay_ms, max_ready, overflow,
    max_message_bytes, dedup_window_ms, dead_letter_enabled, dead_letter_keep_expired,
    dead_letter_retention_ms, retry_every_ms, retry_max_rounds, max_in_flight, publish_per_second,
    receive_per_second, rate_burst, ordered, on_blocked, fair, fair_seen, version, schema_version,
    created_at, updated_at";

/// Whether one of the patterns $4 of names takes `name`; null takes all.
pub(super) const SEEN: &str = "($4::text[] IS NULL OR EXISTS (
    SELECT FROM unnest($4) AS pattern
    WHERE CASE WHEN right(pattern, 1) = '*' THEN starts_with(name, left(pattern, -1))
        ELSE name = pattern END))";

const CREATE: &str = "
    WITH made AS (
        INSERT INTO postrider.queues (
            name, lease_ms, max_attempts, backoff_initial_ms, backoff_multiplier, backoff_max_ms,
            backoff_jitter, message_ttl_ms, delay_ms, max_ready, overflow, max_message_bytes,
            dedup_window_ms, dead_letter_enabled, dead_letter_keep_expired,
            dead_letter_retention_ms, retry_every_ms, retry_max_rounds, max_in_flight,
            publish_per_second, receive_per_second, rate_burst, ordered, on_blocked, fair,
            fair_seen)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25, $25)
        ON CONFLICT (name) DO NOTHING
        RETURNING *
    ), counted AS (
        INSERT INTO postrider.queue_counts (queue_id) SELECT id FROM made
    )
    SELECT * FROM made";

/// As [`CREATE`]'s, if topic $26 is there.
pub(super) const INSERT_FOR_TOPIC: &str = "
    INSERT INTO postrider.queues (
        name, lease_ms, max_attempts, backoff_initial_ms, backoff_multiplier, backoff_max_ms,
        backoff_jitter, message_ttl_ms, delay_ms, max_ready, overflow, max_message_bytes,
        dedup_window_ms, dead_letter_enabled, dead_letter_keep_expired,
        dead_letter_retention_ms, retry_every_ms, retry_max_rounds, max_in_flight,
        publish_per_second, receive_per_second, rate_burst, ordered, on_blocked, fair, fair_seen)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20, $21, $22, $23, $24, $25, $25
    FROM postrider.topics
    WHERE topics.name = $26
    ON CONFLICT (name) DO NOTHING";

const UPDATE: &str = "
    UPDATE postrider.queues SET
        lease_ms = $2, max_attempts = $3, backoff_initial_ms = $4, backoff_multiplier = $5,
        backoff_max_ms = $6, backoff_jitter = $7, message_ttl_ms = $8, delay_ms = $9,
        max_ready = $10, overflow = $11, max_message_bytes = $12, dedup_window_ms = $13,
        dead_letter_enabled = $14, dead_letter_keep_expired = $15, dead_letter_retention_ms = $16,
        retry_every_ms = $17, retry_max_rounds = $18, max_in_flight = $19,
        publish_per_second = $20, receive_per_second = $21, rate_burst = $22, ordered = $23,
        on_blocked = $24, fair = $25, fair_seen = fair_seen OR $25,
        version = version + 1, updated_at = now()
    WHERE name = $1 AND version = $26
      AND (ordered = $23 OR postrider.is_empty_for_good(id))
    RETURNING *";

impl Store {
    /// The queue of this name, at most about a second old.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn queue(&self, name: &QueueName) -> Result<Option<Arc<Queue>>, Error> {
        match self.queues.by_name(name) {
            Some(queue) => Ok(Some(queue)),
            None => self.queue_now(name).await,
        }
    }

    /// The queue of this name, from the database.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn queue_now(&self, name: &QueueName) -> Result<Option<Arc<Queue>>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.queues WHERE name = $1"
        )))
        .bind(name.as_str())
        .fetch_optional(&self.hot)
        .await?;
        if let Some(row) = row {
            Ok(Some(self.queues.insert(queue(&row)?)))
        } else {
            self.queues.remove(name);
            Ok(None)
        }
    }

    /// The queue of this internal id, at most about a second old.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn queue_by_id(&self, id: i64) -> Result<Option<Arc<Queue>>, Error> {
        if let Some(queue) = self.queues.by_id(id) {
            return Ok(Some(queue));
        }
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.queues WHERE id = $1"
        )))
        .bind(id)
        .fetch_optional(&self.hot)
        .await?;
        row.map(|row| Ok(self.queues.insert(queue(&row)?)))
            .transpose()
    }

    /// Makes the queue, if it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn create_queue(
        &self,
        name: &QueueName,
        settings: &QueueSettings,
    ) -> Result<Option<Arc<Queue>>, Error> {
        bind_settings(sqlx::query(CREATE), name, settings)
            .fetch_optional(&self.pool)
            .await?
            .map(|row| Ok(self.queues.insert(queue(&row)?)))
            .transpose()
    }

    /// Makes the queue, or replaces its settings if it is there. Two statements,
    /// each whole by itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted at the same time.
    pub async fn put_queue(
        &self,
        name: &QueueName,
        settings: &QueueSettings,
    ) -> Result<Put, Error> {
        for _ in 0..10 {
            if let Some(queue) = self.create_queue(name, settings).await? {
                return Ok(Put {
                    queue,
                    created: true,
                });
            }
            let Some(old) = self.queue_now(name).await? else {
                continue;
            };
            if old.settings == *settings {
                return Ok(Put {
                    queue: old,
                    created: false,
                });
            }
            match self.update_queue(name, settings, old.version).await {
                Err(Error::Conflict) => {}
                other => {
                    return Ok(Put {
                        queue: other?,
                        created: false,
                    });
                }
            }
        }
        Err(Error::Conflict)
    }

    /// Replaces the settings of a queue that is at `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not; [`Error::NotEmpty`] if `ordered` would change
    /// while it has messages.
    pub async fn update_queue(
        &self,
        name: &QueueName,
        settings: &QueueSettings,
        version: i64,
    ) -> Result<Arc<Queue>, Error> {
        let row = bind_settings(sqlx::query(UPDATE), name, settings)
            .bind(version)
            .fetch_optional(&self.pool)
            .await?;
        // Its bound counts for topics that feed it.
        self.topologies.forget();
        match row {
            Some(row) => Ok(self.queues.insert(queue(&row)?)),
            None => match self.queue_now(name).await? {
                Some(now) if now.version == version && now.settings.ordered != settings.ordered => {
                    Err(Error::NotEmpty)
                }
                _ => Err(Error::Conflict),
            },
        }
    }

    /// Up to `limit` queues in order of name, from behind `after`; of those whose
    /// name one of the patterns `seen` takes, if there are any.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_queues(
        &self,
        prefix: &str,
        after: &str,
        seen: Option<&[String]>,
        limit: i64,
    ) -> Result<Vec<Queue>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.queues
             WHERE name > $1 AND starts_with(name, $2) AND name >= $2 AND {SEEN}
             ORDER BY name
             LIMIT $3"
        )))
        .bind(after)
        .bind(prefix)
        .bind(limit)
        .bind(seen)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(queue).collect()
    }
}

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

pub(super) fn bind_settings<'q>(
    query: PgQuery<'q>,
    name: &'q QueueName,
    settings: &'q QueueSettings,
) -> PgQuery<'q> {
    let dead = &settings.dead_letter;
    query
        .bind(name.as_str())
        .bind(settings.lease.as_millis())
        .bind(settings.max_attempts.cast_signed())
        .bind(settings.backoff.initial.as_millis())
        .bind(settings.backoff.multiplier)
        .bind(settings.backoff.max.as_millis())
        .bind(settings.backoff.jitter)
        .bind(settings.message_ttl.as_millis())
        .bind(settings.delay.as_millis())
        .bind(settings.max_ready.map(u64::cast_signed))
        .bind(match settings.overflow {
            Overflow::Reject => "reject",
            Overflow::DropOldest => "drop_oldest",
        })
        .bind(settings.max_message_bytes.cast_signed())
        .bind(settings.dedup_window.as_millis())
        .bind(dead.enabled)
        .bind(dead.keep_expired)
        .bind(dead.retention.as_millis())
        .bind(dead.retry.every.as_millis())
        .bind(dead.retry.max_rounds.cast_signed())
        .bind(settings.max_in_flight.map(u32::cast_signed))
        .bind(settings.rate_limit.publish_per_second)
        .bind(settings.rate_limit.receive_per_second)
        .bind(settings.rate_limit.burst.map(u32::cast_signed))
        .bind(settings.ordered)
        .bind(settings.on_blocked.as_str())
        .bind(settings.fair)
}

fn queue(row: &PgRow) -> Result<Queue, Error> {
    let millis = |column| Ok::<_, Error>(Seconds::from_millis(row.try_get(column)?));
    let natural = |column| Ok::<_, Error>(row.try_get::<i32, _>(column)?.cast_unsigned());
    let some_natural = |column| {
        let number = row.try_get::<Option<i32>, _>(column)?;
        Ok::<_, Error>(number.map(i32::cast_unsigned))
    };
    let name: String = row.try_get("name")?;
    let name = QueueName::parse(&name, "name")
        .map_err(|e| Error::from(sqlx::Error::Decode(Box::new(e))))?;
    Ok(Queue {
        id: row.try_get("id")?,
        name,
        settings: QueueSettings {
            lease: millis("lease_ms")?,
            max_attempts: natural("max_attempts")?,
            backoff: Backoff {
                initial: millis("backoff_initial_ms")?,
                multiplier: row.try_get("backoff_multiplier")?,
                max: millis("backoff_max_ms")?,
                jitter: row.try_get("backoff_jitter")?,
            },
            message_ttl: millis("message_ttl_ms")?,
            delay: millis("delay_ms")?,
            max_ready: row
                .try_get::<Option<i64>, _>("max_ready")?
                .map(i64::cast_unsigned),
            overflow: overflow(row)?,
            max_in_flight: some_natural("max_in_flight")?,
            rate_limit: RateLimit {
                publish_per_second: row.try_get("publish_per_second")?,
                receive_per_second: row.try_get("receive_per_second")?,
                burst: some_natural("rate_burst")?,
            },
            ordered: row.try_get("ordered")?,
            on_blocked: match row.try_get::<&str, _>("on_blocked")? {
                "dead_letter_key" => OnBlocked::DeadLetterKey,
                _ => OnBlocked::Wait,
            },
            fair: row.try_get("fair")?,
            max_message_bytes: natural("max_message_bytes")?,
            dedup_window: millis("dedup_window_ms")?,
            dead_letter: DeadLetterSettings {
                enabled: row.try_get("dead_letter_enabled")?,
                keep_expired: row.try_get("dead_letter_keep_expired")?,
                retention: millis("dead_letter_retention_ms")?,
                retry: RetrySettings {
                    every: millis("retry_every_ms")?,
                    max_rounds: natural("retry_max_rounds")?,
                },
            },
        },
        fair_seen: row.try_get("fair_seen")?,
        version: row.try_get("version")?,
        schema_version: row.try_get("schema_version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// What a queue does at its bound.
pub(super) fn overflow(row: &PgRow) -> Result<Overflow, Error> {
    Ok(match row.try_get::<&str, _>("overflow")? {
        "drop_oldest" => Overflow::DropOldest,
        _ => Overflow::Reject,
    })
}
