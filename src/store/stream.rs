//! What a topic retains, in commit order.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Cursor, Envelope, Error, Store, statements};

statements! {
    STREAM = "stream";
}

/// A message of a topic's stream.
#[derive(Debug, Clone)]
pub struct Retained {
    /// Its id, the same in every queue.
    pub message_id: i64,
    /// What was published.
    pub envelope: Envelope,
}

impl Store {
    /// Messages of a topic's stream from behind `after`, published at `since` or
    /// later; and where to go on: behind the last of them, or where this began.
    ///
    /// # Errors
    /// Any.
    pub async fn stream(
        &self,
        topic_id: i64,
        after: Option<Cursor>,
        since: Option<DateTime<Utc>>,
        limit: i64,
    ) -> Result<(Vec<Retained>, Cursor), Error> {
        let (xid, message_id) = match after {
            Some(Cursor::Stream { xid, message_id }) => (xid, message_id),
            _ => (0, 0),
        };
        let rows = sqlx::query(STREAM)
            .bind(topic_id)
            .bind(xid.to_string())
            .bind(message_id)
            .bind(since)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        let mut next = Cursor::Stream { xid, message_id };
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            let message_id = row.try_get("message_id")?;
            next = Cursor::Stream {
                xid: row.try_get("xid")?,
                message_id,
            };
            messages.push(Retained {
                message_id,
                envelope: Envelope::of(&row)?,
            });
        }
        Ok((messages, next))
    }
}
