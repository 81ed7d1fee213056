//! Schedules and their settings. How their ticks are published: [`fire`].

mod fire;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::queues::SEEN;
use super::topics::{TRIES, name};
use super::{Error, Store, statements};
use crate::domain::{
    CatchUp, Content, Cron, Headers, Message, QueueName, RoutingKey, ScheduleSettings, Seconds,
    Target,
};

pub(super) use fire::Looked;
pub use fire::{Fired, ScheduleFailure};

statements! {
    SCHEDULES_DUE = "schedules_due";
    SCHEDULES_DONE = "schedules_done";
    SCHEDULES_NEXT = "schedules_next";
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The internal id.
    pub id: i64,
    /// Its name.
    pub name: QueueName,
    /// Its settings.
    pub settings: ScheduleSettings,
    /// The next tick; `None`: it is paused, or there is none.
    pub next_run: Option<DateTime<Utc>>,
    /// The last tick that a message was published for.
    pub last_run: Option<DateTime<Utc>>,
    /// Why the last tick had no message: a code, words, when.
    pub last_error: Option<(String, String, DateTime<Utc>)>,
    /// Counts changes of the settings, from 1.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its settings were last changed.
    pub updated_at: DateTime<Utc>,
}

const CREATE: &str = "
    INSERT INTO postrider.schedules
        (name, cron, timezone, queue, topic, routing_key, body, content_type, headers, key, priority,
         delay_ms, ttl_ms, correlation_id, reply_to, paused, catch_up, next_run)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
    ON CONFLICT (name) DO NOTHING
    RETURNING *";

/// A tick that is due and was not published yet stays so, unless what says when it
/// is has changed.
const UPDATE: &str = "
    UPDATE postrider.schedules SET
        cron = $2, timezone = $3, queue = $4, topic = $5, routing_key = $6, body = $7,
        content_type = $8, headers = $9, key = $10, priority = $11, delay_ms = $12, ttl_ms = $13,
        correlation_id = $14, reply_to = $15, paused = $16, catch_up = $17,
        next_run = CASE
            WHEN cron = $2 AND timezone = $3 AND paused = $16 THEN next_run ELSE $18 END,
        version = version + 1, updated_at = now()
    WHERE name = $1 AND version = $19
    RETURNING *";

/// Binds name and settings: $1 to $18.
macro_rules! settings_of {
    ($query:expr, $name:expr, $settings:expr, $next_run:expr) => {{
        let ScheduleSettings {
            cron,
            target,
            message,
            paused,
            catch_up,
        } = $settings;
        let (queue, topic, routing_key) = match target {
            Target::Queue(queue) => (Some(queue.as_str()), None, None),
            Target::Topic(topic, key) => (None, Some(topic.as_str()), Some(key.as_str())),
        };
        let headers = (!message.headers.is_empty()).then_some(sqlx::types::Json(&message.headers));
        $query
            .bind($name.as_str())
            .bind(cron.as_str())
            .bind(cron.zone())
            .bind(queue)
            .bind(topic)
            .bind(routing_key)
            .bind(&message.content.body[..])
            .bind(message.content.content_type.as_deref())
            .bind(headers)
            .bind(message.key.as_deref())
            .bind(message.priority)
            .bind(message.delay.map(Seconds::as_millis))
            .bind(message.ttl.map(Seconds::as_millis))
            .bind(message.correlation_id.as_deref())
            .bind(message.reply_to.as_deref())
            .bind(paused)
            .bind(catch_up.as_str())
            .bind($next_run)
    }};
}

impl Store {
    /// The schedule of this name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn schedule(&self, name: &QueueName) -> Result<Option<Schedule>, Error> {
        sqlx::query("SELECT * FROM postrider.schedules WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?
            .map(|row| schedule(&row))
            .transpose()
    }

    /// The first tick of these settings from now on, by the database's clock.
    async fn first_run(&self, settings: &ScheduleSettings) -> Result<Option<DateTime<Utc>>, Error> {
        if settings.paused {
            return Ok(None);
        }
        let now = sqlx::query("SELECT now()").fetch_one(&self.pool).await?;
        Ok(settings.cron.next(now.try_get(0)?))
    }

    /// Makes the schedule, if it is not there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn create_schedule(
        &self,
        name: &QueueName,
        settings: &ScheduleSettings,
    ) -> Result<Option<Schedule>, Error> {
        let first_run = self.first_run(settings).await?;
        settings_of!(sqlx::query(CREATE), name, settings, first_run)
            .fetch_optional(&self.pool)
            .await?
            .map(|row| schedule(&row))
            .transpose()
    }

    /// Makes the schedule, or replaces its settings if it is there; and whether it
    /// was made. A few statements, each whole by itself.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted at the same time.
    pub async fn put_schedule(
        &self,
        name: &QueueName,
        settings: &ScheduleSettings,
    ) -> Result<(Schedule, bool), Error> {
        for _ in 0..TRIES {
            if let Some(schedule) = self.create_schedule(name, settings).await? {
                return Ok((schedule, true));
            }
            let Some(old) = self.schedule(name).await? else {
                continue;
            };
            if old.settings == *settings {
                return Ok((old, false));
            }
            match self.update_schedule(name, settings, old.version).await {
                Err(Error::Conflict) => {}
                other => return Ok((other?, false)),
            }
        }
        Err(Error::Conflict)
    }

    /// Replaces the settings of a schedule that is at `version`.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn update_schedule(
        &self,
        name: &QueueName,
        settings: &ScheduleSettings,
        version: i64,
    ) -> Result<Schedule, Error> {
        let first_run = self.first_run(settings).await?;
        let row = settings_of!(sqlx::query(UPDATE), name, settings, first_run)
            .bind(version)
            .fetch_optional(&self.pool)
            .await?;
        schedule(&row.ok_or(Error::Conflict)?)
    }

    /// Deletes a schedule; with `version`, only if it is at that. Whether it was
    /// there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_schedule(
        &self,
        name: &QueueName,
        version: Option<i64>,
    ) -> Result<bool, Error> {
        let gone = sqlx::query(
            "DELETE FROM postrider.schedules
             WHERE name = $1 AND version = coalesce($2, version) RETURNING id",
        )
        .bind(name.as_str())
        .bind(version)
        .fetch_optional(&self.pool)
        .await?;
        Ok(gone.is_some())
    }

    /// Up to `limit` schedules in order of name, from behind `after`; of those
    /// whose name one of the patterns `seen` takes, if there are any.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_schedules(
        &self,
        prefix: &str,
        after: &str,
        seen: Option<&[String]>,
        limit: i64,
    ) -> Result<Vec<Schedule>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT * FROM postrider.schedules
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
        rows.iter().map(schedule).collect()
    }
}

/// What was valid when it was stored; a newer gateway's may not be here.
fn strange(error: crate::domain::Error) -> Error {
    sqlx::Error::Decode(Box::new(error)).into()
}

/// From a row of `schedules`.
fn schedule(row: &PgRow) -> Result<Schedule, Error> {
    let cron = Cron::parse(row.try_get("cron")?, row.try_get("timezone")?).map_err(strange)?;
    let target = if row.try_get::<Option<&str>, _>("queue")?.is_some() {
        Target::Queue(name(row, "queue")?)
    } else {
        let key = RoutingKey::parse(row.try_get("routing_key")?, "routing_key");
        Target::Topic(name(row, "topic")?, key.map_err(strange)?)
    };
    let headers: Option<sqlx::types::Json<Headers>> = row.try_get("headers")?;
    let body: Vec<u8> = row.try_get("body")?;
    let seconds = |column| -> Result<Option<Seconds>, Error> {
        let millis: Option<i64> = row.try_get(column)?;
        Ok(millis.map(Seconds::from_millis))
    };
    let content = Content {
        body: body.into(),
        content_type: row.try_get("content_type")?,
    };
    let headers = headers.map(|headers| headers.0).unwrap_or_default();
    let message = Message {
        key: row.try_get("key")?,
        priority: row.try_get("priority")?,
        delay: seconds("delay_ms")?,
        ttl: seconds("ttl_ms")?,
        correlation_id: row.try_get("correlation_id")?,
        reply_to: row.try_get("reply_to")?,
        ..Message::new(content, headers)
    };
    let code: Option<String> = row.try_get("last_error_code")?;
    let last_error = match code {
        Some(code) => Some((
            code,
            row.try_get("last_error")?,
            row.try_get("last_error_at")?,
        )),
        None => None,
    };
    Ok(Schedule {
        id: row.try_get("id")?,
        name: name(row, "name")?,
        settings: ScheduleSettings {
            cron,
            target,
            message,
            paused: row.try_get("paused")?,
            catch_up: CatchUp::parse(row.try_get("catch_up")?).unwrap_or_default(),
        },
        next_run: row.try_get("next_run")?,
        last_run: row.try_get("last_run")?,
        last_error,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
