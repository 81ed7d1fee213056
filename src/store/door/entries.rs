//! Rows of the SQL door: as they are found, and as they are put aside.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::super::arrived::{Addressed, LookUp, Reason, invalid};
use super::super::transaction::Transaction;
use super::super::{Error, Store};
use super::{BYTES, DOOR, DOOR_AGAIN, DOOR_REFUSE, DOOR_REFUSE_AGAIN, DoorPass, Snapshot};
use crate::domain::{
    self, Content, Headers, Message, QueueName, RoutingKey, Seconds, Target, TraceParent,
};

/// A message as it came through the door.
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) asked_at: DateTime<Utc>,
    pub(super) queue: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) routing_key: Option<String>,
    pub(super) message: Message,
}

/// Why one is not published.
pub(super) struct Refused {
    pub(super) at: usize,
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// What a look has found.
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) now: DateTime<Utc>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) last: Option<(String, i64)>,
    pub(super) more: bool,
    /// Whether a refused message is to be tried again.
    pub(super) due: bool,
}

/// What is new.
pub(super) async fn found(transaction: &mut Transaction, pass: &DoorPass) -> Result<Found, Error> {
    let query = sqlx::query(DOOR)
        .bind(&pass.since.xmax)
        .bind(&pass.since.running)
        .bind(&pass.at.0)
        .bind(pass.at.1)
        .bind(pass.rows.max(1))
        .bind(BYTES)
        .bind(pass.since.seconds);
    let rows = transaction.on()?.fetch_all(query).await?;
    // One row is there in any case.
    let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let mut found = Found {
        entries: Vec::with_capacity(rows.len()),
        now: first.try_get("now")?,
        snapshot: Some(Snapshot::of(first)?),
        last: None,
        more: first.try_get("more")?,
        due: first.try_get("due")?,
    };
    for row in &rows {
        if let (Some(xid), Some(id)) = (row.try_get("xid")?, row.try_get("id")?) {
            found.last = Some((xid, id));
            found.entries.push(Entry::of(row)?);
        }
    }
    Ok(found)
}

/// What was refused and is to be tried again.
pub(super) async fn found_again(
    transaction: &mut Transaction,
    pass: &DoorPass,
) -> Result<Found, Error> {
    let limit = pass.rows.max(1);
    let query = sqlx::query(DOOR_AGAIN)
        .bind(limit)
        .bind(BYTES)
        .bind(pass.since.seconds);
    let rows = transaction.on()?.fetch_all(query).await?;
    let entries: Result<Vec<Entry>, Error> = rows.iter().map(Entry::of).collect();
    let now = rows.first().map(|row| row.try_get("now")).transpose()?;
    Ok(Found {
        // A look that finds nothing ends it: each try moves the next one away.
        more: !rows.is_empty(),
        entries: entries?,
        now: now.unwrap_or_default(),
        snapshot: None,
        last: None,
        due: false,
    })
}

impl Entry {
    pub(super) fn of(row: &PgRow) -> Result<Self, Error> {
        let headers: Option<sqlx::types::Json<Headers>> = row.try_get("headers")?;
        let body: Vec<u8> = row.try_get("body")?;
        let traceparent: Option<String> = row.try_get("traceparent")?;
        Ok(Self {
            id: row.try_get("id")?,
            asked_at: row.try_get("asked_at")?,
            queue: row.try_get("queue")?,
            topic: row.try_get("topic")?,
            routing_key: row.try_get("routing_key")?,
            message: Message {
                content: Content {
                    body: body.into(),
                    content_type: None,
                },
                headers: headers.map(|headers| headers.0).unwrap_or_default(),
                key: row.try_get("key")?,
                fair: None,
                priority: row.try_get("priority")?,
                delay: None,
                deliver_at: row.try_get("deliver_at")?,
                ttl: row
                    .try_get::<Option<i64>, _>("ttl_ms")?
                    .map(Seconds::from_millis),
                dedup_id: row.try_get("dedup_id")?,
                correlation_id: row.try_get("correlation_id")?,
                reply_to: row.try_get("reply_to")?,
                // As over HTTP: what is not valid is ignored.
                traceparent: traceparent.filter(|text| TraceParent::parse(text).is_some()),
                tracestate: None,
                schema_version: None,
            },
        })
    }

    /// The request to publish it, or why there is none.
    pub(super) async fn address(
        &self,
        store: &Store,
        now: DateTime<Utc>,
    ) -> Result<Result<Addressed, Reason>, Error> {
        let target = match self.target() {
            Ok(target) => target,
            Err(error) => return Ok(Err(invalid(&error))),
        };
        let messages = vec![self.message.clone()];
        let check = move |message: &Message, most| message.check(most, "", now);
        let remembered = LookUp::Remembered;
        store.address(&target, remembered, messages, check).await
    }

    fn target(&self) -> Result<Target, domain::Error> {
        if let Some(queue) = &self.queue {
            return Ok(Target::Queue(QueueName::parse(queue, "queue")?));
        }
        let topic = QueueName::parse(self.topic.as_deref().unwrap_or_default(), "topic")?;
        let routing_key = self.routing_key.as_deref().unwrap_or_default();
        let routing_key = RoutingKey::parse(routing_key, "routing_key")?;
        Ok(Target::Topic(topic, routing_key))
    }
}

impl Refused {
    pub(super) fn by_the_database(at: usize) -> Self {
        Self {
            at,
            reason: "internal",
            detail: "the database would not store it; the gateway's log says why".to_owned(),
        }
    }
}

pub(super) async fn note_refused(
    transaction: &mut Transaction,
    entries: &[Entry],
    refused: &[Refused],
) -> Result<(), Error> {
    let of = |field: fn(&Entry) -> Option<&str>| -> Vec<Option<&str>> {
        refused.iter().map(|r| field(&entries[r.at])).collect()
    };
    let each = || refused.iter().map(|r| &entries[r.at]);
    let headers: Vec<_> = each()
        .map(|e| (!e.message.headers.is_empty()).then_some(sqlx::types::Json(&e.message.headers)))
        .collect();
    let query = sqlx::query(DOOR_REFUSE)
        .bind(each().map(|e| e.id).collect::<Vec<_>>())
        .bind(each().map(|e| e.asked_at).collect::<Vec<_>>())
        .bind(refused.iter().map(|r| r.reason).collect::<Vec<_>>())
        .bind(refused.iter().map(|r| &*r.detail).collect::<Vec<_>>())
        .bind(of(|e| e.queue.as_deref()))
        .bind(of(|e| e.topic.as_deref()))
        .bind(of(|e| e.routing_key.as_deref()))
        .bind(
            each()
                .map(|e| &e.message.content.body[..])
                .collect::<Vec<_>>(),
        )
        .bind(headers)
        .bind(of(|e| e.message.key.as_deref()))
        .bind(each().map(|e| e.message.priority).collect::<Vec<_>>())
        .bind(each().map(|e| e.message.deliver_at).collect::<Vec<_>>())
        .bind(
            each()
                .map(|e| e.message.ttl.map(Seconds::as_millis))
                .collect::<Vec<_>>(),
        )
        .bind(of(|e| e.message.dedup_id.as_deref()))
        .bind(of(|e| e.message.correlation_id.as_deref()))
        .bind(of(|e| e.message.reply_to.as_deref()))
        .bind(of(|e| e.message.traceparent.as_deref()));
    transaction.on()?.fetch_all(query).await?;
    Ok(())
}

pub(super) async fn note_refused_again(
    transaction: &mut Transaction,
    entries: &[Entry],
    refused: &[Refused],
) -> Result<(), Error> {
    if !refused.is_empty() {
        let query = sqlx::query(DOOR_REFUSE_AGAIN)
            .bind(refused.iter().map(|r| entries[r.at].id).collect::<Vec<_>>())
            .bind(refused.iter().map(|r| r.reason).collect::<Vec<_>>())
            .bind(refused.iter().map(|r| &*r.detail).collect::<Vec<_>>());
        transaction.on()?.fetch_all(query).await?;
    }
    let is_refused: HashSet<usize> = refused.iter().map(|r| r.at).collect();
    let published: Vec<i64> = entries
        .iter()
        .enumerate()
        .filter(|(at, _)| !is_refused.contains(at))
        .map(|(_, entry)| entry.id)
        .collect();
    if !published.is_empty() {
        let query = sqlx::query("DELETE FROM postrider.door_refused WHERE id = ANY($1)");
        transaction.on()?.fetch_all(query.bind(published)).await?;
    }
    Ok(())
}
