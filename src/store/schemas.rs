//! Schemas of queues and topics, in versions, and those that are compiled.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::arrived::Reason;
use super::{Error, Store, statements};
use crate::domain::{self, Compatibility, Message, QueueName, Schema, UniqueNames};

statements! {
    PUT_QUEUE_SCHEMA = "put_queue_schema";
    PUT_TOPIC_SCHEMA = "put_topic_schema";
}

/// Whose schema: by the internal id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaOf {
    /// A queue's.
    Queue(i64),
    /// A topic's.
    Topic(i64),
}

/// One version of a schema.
#[derive(Debug, Clone)]
pub struct SchemaVersion {
    /// 1 first.
    pub version: i32,
    /// The JSON text.
    pub schema: String,
    /// How it was compared with the version before it.
    pub compatibility: Compatibility,
    /// When it was put.
    pub created_at: DateTime<Utc>,
}

/// Why there is no schema to check with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSchema {
    /// There is no such version; or its owner is gone.
    Gone,
    /// This gateway cannot compile it.
    Unusable,
}

/// A version to come.
#[derive(Debug, Clone, Copy)]
pub struct NewSchema<'a> {
    /// The version in force.
    pub active: Option<i32>,
    /// The last version so far; 0: there was none.
    pub after: i32,
    /// The JSON text.
    pub schema: &'a str,
    /// How it was compared.
    pub compatibility: Compatibility,
}

impl SchemaOf {
    fn column(self) -> &'static str {
        match self {
            Self::Queue(_) => "queue_id",
            Self::Topic(_) => "topic_id",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Queue(_) => "queues",
            Self::Topic(_) => "topics",
        }
    }

    /// The internal id, which no other queue or topic has.
    #[must_use]
    pub fn id(self) -> i64 {
        match self {
            Self::Queue(id) | Self::Topic(id) => id,
        }
    }
}

impl Store {
    /// Stores a version and puts it in force; when.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another is in force or was the last, or its owner is gone.
    pub async fn put_schema(
        &self,
        of: SchemaOf,
        name: &QueueName,
        new: NewSchema<'_>,
    ) -> Result<DateTime<Utc>, Error> {
        let row = sqlx::query(match of {
            SchemaOf::Queue(_) => PUT_QUEUE_SCHEMA,
            SchemaOf::Topic(_) => PUT_TOPIC_SCHEMA,
        })
        .bind(of.id())
        .bind(new.after)
        .bind(new.schema)
        .bind(new.compatibility.as_str())
        .bind(new.active)
        .fetch_optional(&self.pool)
        .await
        .map_err(Error::from);
        self.forget_schema(of, name);
        match row {
            Ok(Some(row)) => Ok(row.try_get(0)?),
            Ok(None) => Err(Error::Conflict),
            // Two at the same moment.
            Err(error) if error.is_taken() => Err(Error::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Takes the schema out of force, if it is `version`. Whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_schema(
        &self,
        of: SchemaOf,
        name: &QueueName,
        version: i32,
    ) -> Result<bool, Error> {
        let done = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE postrider.{} SET schema_version = NULL WHERE id = $1 AND schema_version = $2",
            of.table()
        )))
        .bind(of.id())
        .bind(version)
        .execute(&self.pool)
        .await?;
        self.forget_schema(of, name);
        Ok(done.rows_affected() == 1)
    }

    /// One version.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn schema_version(
        &self,
        of: SchemaOf,
        version: i32,
    ) -> Result<Option<SchemaVersion>, Error> {
        let column = of.column();
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT version, schema, compatibility, created_at FROM postrider.schemas
             WHERE {column} = $1 AND version = $2"
        )))
        .bind(of.id())
        .bind(version)
        .fetch_optional(&self.hot)
        .await?;
        row.map(|row| read(&row)).transpose()
    }

    /// Up to `limit` versions in order, from behind `after`; without their schemas.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_schemas(
        &self,
        of: SchemaOf,
        after: i32,
        limit: i64,
    ) -> Result<Vec<SchemaVersion>, Error> {
        let column = of.column();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT version, '' AS schema, compatibility, created_at FROM postrider.schemas
             WHERE {column} = $1 AND version > $2
             ORDER BY {column}, version
             LIMIT $3"
        )))
        .bind(of.id())
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// The number of the last version, in force or not; 0: there never was one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn last_schema_version(&self, of: SchemaOf) -> Result<i32, Error> {
        let column = of.column();
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT version FROM postrider.schemas
             WHERE {column} = $1
             ORDER BY {column} DESC, version DESC
             LIMIT 1"
        )))
        .bind(of.id())
        .fetch_optional(&self.pool)
        .await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// A version, compiled, which may take a while the first time.
    ///
    /// # Errors
    /// Any.
    pub async fn schema(
        &self,
        of: SchemaOf,
        version: i32,
    ) -> Result<Result<Arc<Schema>, NoSchema>, Error> {
        if let Some(schema) = self.schemas.get((of, version)) {
            return Ok(Ok(schema));
        }
        let Some(stored) = self.schema_version(of, version).await? else {
            return Ok(Err(NoSchema::Gone));
        };
        let compiling = tokio::task::spawn_blocking(move || {
            let UniqueNames(schema) =
                serde_json::from_str(&stored.schema).map_err(|error| error.to_string())?;
            Schema::compile(&schema).map_err(|error| error.to_string())
        });
        match compiling
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
        {
            Ok(schema) => {
                let schema = Arc::new(schema);
                self.keep_schema(of, version, &schema);
                Ok(Ok(schema))
            }
            // It compiled when it was put: by another version of the gateway.
            Err(error) => {
                tracing::error!(?of, version, error, "a stored schema does not compile");
                Ok(Err(NoSchema::Unusable))
            }
        }
    }

    /// Checks a message that did not come over HTTP with this version; or the code of
    /// a refusal, and the same in words. What was published before under its dedup id
    /// is let through: it is not stored.
    pub(super) async fn check_by_schema(
        &self,
        of: SchemaOf,
        version: i32,
        message: &Message,
    ) -> Result<Result<(), Reason>, Error> {
        let unusable = || ("internal", "this gateway cannot use the schema".to_owned());
        let schema = match self.schema(of, version).await? {
            Ok(schema) => schema,
            // Its owner is gone, which the publish will find.
            Err(NoSchema::Gone) => return Ok(Ok(())),
            Err(NoSchema::Unusable) => return Ok(Err(unusable())),
        };
        let checked = if message.content.body.len() <= Schema::INLINE {
            schema.check_content(&message.content, Schema::MAX_NAMED)
        } else {
            let content = message.content.clone();
            let checking = tokio::task::spawn_blocking(move || {
                schema.check_content(&content, Schema::MAX_NAMED)
            });
            match checking.await {
                Ok(checked) => checked,
                Err(_) => return Ok(Err(unusable())),
            }
        };
        let Err(mut parts) = checked else {
            return Ok(Ok(()));
        };
        if let Some(dedup_id) = &message.dedup_id
            && self.are_published(of.id(), &[dedup_id.as_str()]).await?
        {
            return Ok(Ok(()));
        }
        for part in &mut parts {
            part.pointer.insert_str(0, "/body");
        }
        let parts = domain::Error::Invalid(parts);
        let detail = format!("version {version} of the schema: {parts}");
        Ok(Err(("schema-violation", detail)))
    }

    /// Keeps a compiled version.
    pub fn keep_schema(&self, of: SchemaOf, version: i32, schema: &Arc<Schema>) {
        self.schemas.keep((of, version), schema);
    }

    /// This gateway goes by the change at once, others within a second.
    fn forget_schema(&self, of: SchemaOf, name: &QueueName) {
        match of {
            SchemaOf::Queue(_) => self.queues.remove(name),
            SchemaOf::Topic(_) => self.topologies.forget(),
        }
    }
}

fn read(row: &PgRow) -> Result<SchemaVersion, Error> {
    let compatibility: &str = row.try_get("compatibility")?;
    let known = Compatibility::ALL
        .iter()
        .find(|(_, text)| *text == compatibility);
    Ok(SchemaVersion {
        version: row.try_get("version")?,
        schema: row.try_get("schema")?,
        compatibility: known.map_or(Compatibility::None, |(known, _)| *known),
        created_at: row.try_get("created_at")?,
    })
}

/// Compiled versions, at most: each takes some kilobytes, and as much as its
/// patterns take. All are given up when there would be more.
const KEPT: usize = 256;

type Versions = HashMap<(SchemaOf, i32), Arc<Schema>>;

/// Versions that this gateway has checked messages with. A version never changes,
/// so what is kept is never old; which one counts, the queue or topic says.
#[derive(Debug, Default)]
pub(super) struct Compiled(RwLock<Versions>);

impl Compiled {
    fn get(&self, key: (SchemaOf, i32)) -> Option<Arc<Schema>> {
        let kept = self
            .0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.get(&key).map(Arc::clone)
    }

    fn keep(&self, key: (SchemaOf, i32), schema: &Arc<Schema>) {
        let mut kept = self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Arc::clone(schema));
    }
}
