//! Topics and their settings. What a publish needs of them, it reads through
//! [`topology`](super::topology).

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::queues::SEEN;
use super::{Error, Store, statements};
use crate::domain::{QueueName, Seconds, TopicSettings};

statements! {
    DELETE_TOPIC = "delete_topic";
}

/// A topic as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The internal id, which no queue has; never shown.
    pub id: i64,
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: TopicSettings,
    /// Counts changes of the settings, from 1.
    pub version: i64,
    /// The version of its schema that publishes are checked with.
    pub schema_version: Option<i32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub updated_at: DateTime<Utc>,
}

const COLUMNS: &str = "id, name, retention_ms, max_message_bytes, dedup_window_ms, version,
    schema_version, created_at, updated_at";

/// How often a change that somebody else's got in the way of is tried again.
pub(super) const TRIES: usize = 10;

impl Store {
    /// The topic of this name, from the database.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn topic_now(&self, name: &QueueName) -> Result<Option<Topic>, Error> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.topics WHERE name = $1"
        )))
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?
        .map(|row| topic(&row))
        .transpose()
    }

    /// Makes the topic, if it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn create_topic(
        &self,
        name: &QueueName,
        settings: &TopicSettings,
    ) -> Result<Option<Topic>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO postrider.topics (name, retention_ms, max_message_bytes, dedup_window_ms)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO NOTHING
             RETURNING {COLUMNS}"
        )))
        .bind(name.as_str())
        .bind(settings.retention.as_millis())
        .bind(settings.max_message_bytes.cast_signed())
        .bind(settings.dedup_window.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        self.topologies.forget();
        row.map(|row| topic(&row)).transpose()
    }

    /// Makes the topic, or replaces its settings if it is there; and whether it
    /// was made. Two statements, each whole by itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted at the same time.
    pub async fn put_topic(
        &self,
        name: &QueueName,
        settings: &TopicSettings,
    ) -> Result<(Topic, bool), Error> {
        for _ in 0..TRIES {
            if let Some(topic) = self.create_topic(name, settings).await? {
                return Ok((topic, true));
            }
            let Some(old) = self.topic_now(name).await? else {
                continue;
            };
            if old.settings == *settings {
                return Ok((old, false));
            }
            match self.update_topic(name, settings, old.version).await {
                Err(Error::Conflict) => {}
                other => return Ok((other?, false)),
            }
        }
        Err(Error::Conflict)
    }

    /// Replaces the settings of a topic that is at `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn update_topic(
        &self,
        name: &QueueName,
        settings: &TopicSettings,
        version: i64,
    ) -> Result<Topic, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE postrider.topics SET
                retention_ms = $2, max_message_bytes = $3, dedup_window_ms = $4,
                version = version + 1, updated_at = now()
             WHERE name = $1 AND version = $5
             RETURNING {COLUMNS}"
        )))
        .bind(name.as_str())
        .bind(settings.retention.as_millis())
        .bind(settings.max_message_bytes.cast_signed())
        .bind(settings.dedup_window.as_millis())
        .bind(version)
        .fetch_optional(&self.pool)
        .await?;
        self.topologies.forget();
        topic(&row.ok_or(Error::Conflict)?)
    }

    /// Deletes a topic with its subscriptions and the queues that these own.
    /// With `version`, only if it is at that. Whether it was there.
    ///
    /// # Errors
    /// [`Error::Conflict`] if its subscriptions kept changing meanwhile.
    pub async fn delete_topic(
        &self,
        name: &QueueName,
        version: Option<i64>,
    ) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let result = sqlx::query(DELETE_TOPIC)
                .bind(name.as_str())
                .bind(version)
                .fetch_one(&self.pool)
                .await
                .map_err(Error::from);
            match result {
                Err(error) if error.is_broken_reference() || error.is_retryable() => {}
                other => return self.forget_deleted(&other?),
            }
        }
        Err(Error::Conflict)
    }

    /// After a statement that deleted something and its own queues: whether it
    /// did.
    pub(super) fn forget_deleted(&self, row: &PgRow) -> Result<bool, Error> {
        let queue_ids: Vec<i64> = row.try_get("queue_ids")?;
        self.queues.remove_ids(&queue_ids);
        self.topologies.forget();
        Ok(row.try_get::<i64, _>("gone")? == 1)
    }

    /// Up to `limit` topics in order of name, from behind `after`; of those whose
    /// name one of the patterns `seen` takes, if there are any.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_topics(
        &self,
        prefix: &str,
        after: &str,
        seen: Option<&[String]>,
        limit: i64,
    ) -> Result<Vec<Topic>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.topics
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
        rows.iter().map(topic).collect()
    }
}

/// A name that the database holds, which is valid by its CHECK.
pub(super) fn name(row: &PgRow, column: &'static str) -> Result<QueueName, Error> {
    let name: String = row.try_get(column)?;
    QueueName::parse(&name, column).map_err(|e| sqlx::Error::Decode(Box::new(e)).into())
}

/// From the columns of `topics`.
pub(super) fn topic(row: &PgRow) -> Result<Topic, Error> {
    Ok(Topic {
        id: row.try_get("id")?,
        name: name(row, "name")?,
        settings: TopicSettings {
            retention: Seconds::from_millis(row.try_get("retention_ms")?),
            max_message_bytes: row.try_get::<i32, _>("max_message_bytes")?.cast_unsigned(),
            dedup_window: Seconds::from_millis(row.try_get("dedup_window_ms")?),
        },
        version: row.try_get("version")?,
        schema_version: row.try_get("schema_version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
