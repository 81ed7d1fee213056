//! Subscriptions: what binds a topic to a queue.
//!
//! A subscription feeds a queue that was there before, or has one of its own,
//! named after the two, which is made and deleted with it. Which of both it is
//! stays so for its life.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::topics::{TRIES, name};
use super::{Error, Store, queues, statements};
use crate::domain::{QueueName, QueueSettings};

statements! {
    DELETE_SUBSCRIPTION = "delete_subscription";
}

/// A subscription as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The internal id; never shown.
    pub id: i64,
    /// Its name.
    pub name: QueueName,
    /// The queue that it feeds.
    pub queue: QueueName,
    /// Whether the queue was made for it and goes with it.
    pub owns_queue: bool,
    /// Which messages, as the user wrote it; `None` is all.
    pub filter: Option<Value>,
    /// Counts changes, from 1.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a subscription is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// The queue to feed; `None`: one of its own.
    pub queue: Option<QueueName>,
    /// Which messages, a valid filter; `None` is all.
    pub filter: Option<Value>,
}

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeRefusal {
    /// There is no such topic.
    NoTopic,
    /// There is no such queue.
    NoQueue(QueueName),
    /// The queue that it would make is there already.
    QueueExists(QueueName),
    /// The name of the queue that it would make is not valid: too long.
    NoQueueName,
    /// It owns its queue and should feed another, or the reverse.
    FixedQueue,
}

const COLUMNS: &str = "s.id, s.name, q.name AS queue, s.owns_queue, s.filter::text AS filter,
    s.version, s.created_at, s.updated_at";

const CREATE: &str = "
    INSERT INTO postrider.subscriptions (topic_id, name, queue_id, owns_queue, filter)
    SELECT t.id, $2, q.id, false, $4::text::json
    FROM postrider.topics AS t, postrider.queues AS q
    WHERE t.name = $1 AND q.name = $3
    ON CONFLICT ON CONSTRAINT subscription_name_is_unique DO NOTHING";

/// The queue and the subscription, both or none: where the queue's name is taken
/// nothing is made, where the subscription's is the statement fails.
const CREATE_WITH_QUEUE: &str = "
    , counted AS (
        INSERT INTO postrider.queue_counts (queue_id) SELECT id FROM made
    )
    INSERT INTO postrider.subscriptions (topic_id, name, queue_id, owns_queue, filter)
    SELECT t.id, $27, made.id, true, $28::text::json
    FROM postrider.topics AS t, made
    WHERE t.name = $26";

impl Store {
    /// A subscription, from the database.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn subscription_now(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
    ) -> Result<Option<Subscription>, Error> {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS}
             FROM postrider.topics AS t
             JOIN postrider.subscriptions AS s ON s.topic_id = t.id
             JOIN postrider.queues AS q ON q.id = s.queue_id
             WHERE t.name = $1 AND s.name = $2"
        )))
        .bind(topic.as_str())
        .bind(subscription.as_str())
        .fetch_optional(&self.pool)
        .await?
        .map(|row| read(&row))
        .transpose()
    }

    /// Makes a subscription, and a queue if it is to have its own; `None` if it
    /// is there. One statement makes all.
    ///
    /// # Errors
    /// [`Error::Conflict`] if what it refers to kept changing.
    pub async fn create_subscription(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
        wanted: &Subscribe,
    ) -> Result<Result<Option<Subscription>, SubscribeRefusal>, Error> {
        let filter = wanted.filter.as_ref().map(Value::to_string);
        let own = QueueName::parse(&format!("{topic}.{subscription}"), "subscription");
        for _ in 0..TRIES {
            let made = match (&wanted.queue, &own) {
                (Some(queue), _) => {
                    sqlx::query(CREATE)
                        .bind(topic.as_str())
                        .bind(subscription.as_str())
                        .bind(queue.as_str())
                        .bind(&filter)
                        .execute(&self.pool)
                        .await
                }
                (None, Ok(own)) => {
                    let settings = QueueSettings::default();
                    let statement = format!(
                        "WITH made AS ({} RETURNING id) {CREATE_WITH_QUEUE}",
                        queues::INSERT_FOR_TOPIC
                    );
                    queues::bind_settings(
                        sqlx::query(sqlx::AssertSqlSafe(statement)),
                        own,
                        &settings,
                    )
                    .bind(topic.as_str())
                    .bind(subscription.as_str())
                    .bind(&filter)
                    .execute(&self.pool)
                    .await
                }
                (None, Err(_)) => return Ok(Err(SubscribeRefusal::NoQueueName)),
            };
            self.topologies.forget();
            match made.map_err(Error::from) {
                Ok(done) if done.rows_affected() == 1 => {
                    if let Some(made) = self.subscription_now(topic, subscription).await? {
                        return Ok(Ok(Some(made)));
                    }
                    // Made, and deleted since by somebody else.
                    return Err(Error::Conflict);
                }
                Ok(_) => {}
                Err(error)
                    if error.is_broken_reference() || error.is_taken() || error.is_retryable() => {}
                Err(error) => return Err(error),
            }
            // Why not?
            if self.subscription_now(topic, subscription).await?.is_some() {
                return Ok(Ok(None));
            }
            if self.topic_now(topic).await?.is_none() {
                return Ok(Err(SubscribeRefusal::NoTopic));
            }
            match (&wanted.queue, &own) {
                (Some(queue), _) if self.queue_now(queue).await?.is_none() => {
                    return Ok(Err(SubscribeRefusal::NoQueue(queue.clone())));
                }
                (None, Ok(own)) if self.queue_now(own).await?.is_some() => {
                    return Ok(Err(SubscribeRefusal::QueueExists(own.clone())));
                }
                _ => {}
            }
        }
        Err(Error::Conflict)
    }

    /// Makes a subscription, or changes the one that is there; and whether it
    /// was made. Statements that are each whole by themselves.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it was changed or deleted at the same time.
    pub async fn put_subscription(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
        wanted: &Subscribe,
    ) -> Result<Result<(Subscription, bool), SubscribeRefusal>, Error> {
        for _ in 0..TRIES {
            let Some(old) = self.subscription_now(topic, subscription).await? else {
                match self
                    .create_subscription(topic, subscription, wanted)
                    .await?
                {
                    Ok(Some(made)) => return Ok(Ok((made, true))),
                    Ok(None) => continue,
                    Err(refusal) => return Ok(Err(refusal)),
                }
            };
            match self.update_subscription(&old, wanted).await {
                Err(Error::Conflict) => {}
                other => return Ok(other?.map(|changed| (changed, false))),
            }
        }
        Err(Error::Conflict)
    }

    /// Changes a subscription that is as `old` says, if there is anything to
    /// change.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it is not.
    pub async fn update_subscription(
        &self,
        old: &Subscription,
        wanted: &Subscribe,
    ) -> Result<Result<Subscription, SubscribeRefusal>, Error> {
        let same_queue = match &wanted.queue {
            Some(queue) => *queue == old.queue,
            None => old.owns_queue,
        };
        if same_queue && wanted.filter == old.filter {
            return Ok(Ok(old.clone()));
        }
        let queue = wanted.queue.as_ref().unwrap_or(&old.queue);
        if !same_queue && (old.owns_queue || wanted.queue.is_none()) {
            return Ok(Err(SubscribeRefusal::FixedQueue));
        }
        let Some(queue) = self.queue_now(queue).await? else {
            return Ok(Err(SubscribeRefusal::NoQueue(queue.clone())));
        };
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH s AS (
                UPDATE postrider.subscriptions SET
                    queue_id = $3, filter = $4::text::json, version = version + 1,
                    updated_at = now()
                WHERE id = $1 AND version = $2
                RETURNING *
             )
             SELECT {COLUMNS} FROM s JOIN postrider.queues AS q ON q.id = s.queue_id"
        )))
        .bind(old.id)
        .bind(old.version)
        .bind(queue.id)
        .bind(wanted.filter.as_ref().map(Value::to_string))
        .fetch_optional(&self.pool)
        .await
        .map_err(Error::from);
        self.topologies.forget();
        match row {
            Ok(Some(row)) => Ok(Ok(read(&row)?)),
            Ok(None) => Err(Error::Conflict),
            Err(error) if error.is_broken_reference() => {
                Ok(Err(SubscribeRefusal::NoQueue(queue.name.clone())))
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a subscription, and the queue that it owns. With `version`, only
    /// if it is at that. Whether it was there.
    ///
    /// # Errors
    /// [`Error::Conflict`] if what feeds its queue kept changing meanwhile.
    pub async fn delete_subscription(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
        version: Option<i64>,
    ) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let result = sqlx::query(DELETE_SUBSCRIPTION)
                .bind(topic.as_str())
                .bind(subscription.as_str())
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

    /// Up to `limit` subscriptions of a topic in order of name, from behind
    /// `after`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_subscriptions(
        &self,
        topic_id: i64,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Subscription>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS}
             FROM postrider.subscriptions AS s
             JOIN postrider.queues AS q ON q.id = s.queue_id
             WHERE s.topic_id = $1 AND s.name > $2 AND starts_with(s.name, $3) AND s.name >= $3
             ORDER BY s.name
             LIMIT $4"
        )))
        .bind(topic_id)
        .bind(after)
        .bind(prefix)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

/// The filter in a row, as JSON.
pub(super) fn filter(row: &PgRow) -> Result<Option<Value>, Error> {
    row.try_get::<Option<&str>, _>("filter")?
        .map(serde_json::from_str)
        .transpose()
        .map_err(|e| sqlx::Error::Decode(Box::new(e)).into())
}

fn read(row: &PgRow) -> Result<Subscription, Error> {
    Ok(Subscription {
        id: row.try_get("id")?,
        name: name(row, "name")?,
        queue: name(row, "queue")?,
        owns_queue: row.try_get("owns_queue")?,
        filter: filter(row)?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}
