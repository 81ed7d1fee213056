//! Looking at messages without taking them, and taking one out.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Envelope, Error, Queue, Store, statements};

statements! {
    BROWSE_READY = "browse_ready";
    BROWSE_PARKED = "browse_parked";
    BROWSE_LINED_UP = "browse_lined_up";
    MESSAGE = "message";
    HISTORY = "history";
    CANCEL = "cancel";
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be received.
    Ready,
    /// A consumer has it.
    Leased,
    /// It waits for a time.
    Delayed,
    /// It is a dead letter.
    Dead,
}

/// Which page of which messages to look at.
#[derive(Debug, Clone, Copy)]
pub struct Peek {
    /// Not [`State::Dead`].
    pub state: State,
    /// From behind this one.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: i64,
}

/// Where a page ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// In the order of receiving.
    Ready {
        /// 9 to 0; -1: those that wait for their key's turn.
        priority: i16,
        /// Place in it; of those that wait the message.
        position: i64,
    },
    /// In the order of a time.
    Timed {
        /// Microseconds since 1970.
        micros: i64,
        /// The message.
        message_id: i64,
    },
    /// In the order of a topic's stream.
    Stream {
        /// The transaction.
        xid: i64,
        /// The message.
        message_id: i64,
    },
}

/// A stored message.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its id.
    pub message_id: i64,
    /// Where it is.
    pub state: State,
    /// Attempts made, a running one included.
    pub attempts: i32,
    /// 9 first.
    pub priority: i16,
    /// When its lease ends or its wait is over.
    pub wake_at: Option<DateTime<Utc>>,
    /// End of its time to live; of a dead letter, of its retention.
    pub expires_at: DateTime<Utc>,
    /// What was published.
    pub envelope: Envelope,
}

/// One attempt in a message's history.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// 1 first.
    pub attempt: i32,
    /// When its lease began.
    pub leased_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<DateTime<Utc>>,
    /// `running`, `nacked`, `rejected`, `lease-expired`, or `returned`: an earlier message of
    /// its key failed that was received with it, and no attempt is used up.
    pub outcome: String,
    /// The consumer's reason.
    pub error: Option<String>,
}

impl Store {
    /// A page of messages in one state, and where the next page begins.
    ///
    /// # Errors
    /// Any.
    pub async fn peek(
        &self,
        queue_id: i64,
        peek: Peek,
    ) -> Result<(Vec<Stored>, Option<Cursor>), Error> {
        let mut lined_up_from = usize::MAX;
        let rows = if peek.state == State::Ready {
            let (priority, position) = match peek.after {
                Some(Cursor::Ready { priority, position }) => (priority, position),
                _ => (9, 0),
            };
            let mut rows = if priority < 0 {
                Vec::new()
            } else {
                sqlx::query(BROWSE_READY)
                    .bind(queue_id)
                    .bind(i32::from(priority))
                    .bind(position)
                    .bind(peek.limit + 1)
                    .fetch_all(&self.pool)
                    .await?
            };
            lined_up_from = rows.len();
            let room = peek.limit + 1 - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let may_line_up = room > 0
                && (self.queue_by_id(queue_id).await?).is_some_and(|queue| queue.has_lines());
            if may_line_up {
                let lined_up = sqlx::query(BROWSE_LINED_UP)
                    .bind(queue_id)
                    .bind(if priority < 0 { position } else { 0 })
                    .bind(room)
                    .fetch_all(&self.pool)
                    .await?;
                rows.extend(lined_up);
            }
            rows
        } else {
            let (micros, message_id) = match peek.after {
                Some(Cursor::Timed { micros, message_id }) => (micros, message_id),
                _ => (0, 0),
            };
            sqlx::query(BROWSE_PARKED)
                .bind(queue_id)
                .bind(peek.state == State::Leased)
                .bind(DateTime::from_timestamp_micros(micros).unwrap_or_default())
                .bind(message_id)
                .bind(peek.limit + 1)
                .fetch_all(&self.pool)
                .await?
        };
        let page = usize::try_from(peek.limit).unwrap_or(0);
        let next = match rows.get(page.saturating_sub(1)) {
            Some(last) if rows.len() > page => Some(match last.try_get("wake_at")? {
                Some::<DateTime<Utc>>(wake_at) => Cursor::Timed {
                    micros: wake_at.timestamp_micros(),
                    message_id: last.try_get("message_id")?,
                },
                None => Cursor::Ready {
                    priority: if page > lined_up_from {
                        -1
                    } else {
                        last.try_get("priority")?
                    },
                    position: last.try_get("position")?,
                },
            }),
            _ => None,
        };
        let messages = rows
            .iter()
            .take(page)
            .map(stored)
            .collect::<Result<_, Error>>()?;
        Ok((messages, next))
    }

    /// One message of a queue, wherever it is, with its attempts. Two
    /// statements: the history is for people and need not be of the same
    /// instant.
    ///
    /// # Errors
    /// Any.
    pub async fn message(
        &self,
        queue_id: i64,
        message_id: i64,
    ) -> Result<Option<(Stored, Vec<Attempt>)>, Error> {
        let row = sqlx::query(MESSAGE)
            .bind(queue_id)
            .bind(message_id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let rows = sqlx::query(HISTORY)
            .bind(queue_id)
            .bind(message_id)
            .fetch_all(&self.pool)
            .await?;
        let history = rows
            .iter()
            .map(|row| {
                Ok(Attempt {
                    attempt: row.try_get("attempt")?,
                    leased_at: row.try_get("leased_at")?,
                    ended_at: row.try_get("ended_at")?,
                    outcome: row.try_get("outcome")?,
                    error: row.try_get("error")?,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Some((stored(&row)?, history)))
    }

    /// Takes one message out of a queue, wherever it is. Whether it was there.
    ///
    /// One that moves at the same moment (its turn comes, it is claimed) is in neither
    /// place for a statement that waited for it: so a queue with lines is asked twice.
    ///
    /// # Errors
    /// Any.
    pub async fn cancel(&self, queue: &Queue, message_id: i64) -> Result<bool, Error> {
        for _ in 0..=usize::from(queue.has_lines()) {
            let row = sqlx::query(CANCEL)
                .bind(queue.id)
                .bind(message_id)
                .fetch_one(&self.pool)
                .await?;
            if row.try_get::<i64, _>(0)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn stored(row: &PgRow) -> Result<Stored, Error> {
    Ok(Stored {
        message_id: row.try_get("message_id")?,
        state: match row.try_get::<&str, _>("state")? {
            "ready" => State::Ready,
            "leased" => State::Leased,
            "delayed" => State::Delayed,
            _ => State::Dead,
        },
        attempts: row.try_get("attempts")?,
        priority: row.try_get("priority")?,
        wake_at: row.try_get("wake_at")?,
        expires_at: row.try_get("expires_at")?,
        envelope: Envelope::of(row)?,
    })
}
