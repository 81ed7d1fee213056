//! What pushes came to: stored in batches, kept for 30 days.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::store::{Cursor, Error, Store, statements};

statements! {
    RECORD_PUSHES = "record_pushes";
    PUSH_ATTEMPTS = "push_attempts";
    PUSH_FAILURES = "push_failures";
    PUSH_ATTEMPTS_OF = "push_attempts_of";
}

/// Bytes of an answer, and of an error, that are kept.
const KEPT: usize = 1024;

/// What a push came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcomeKind {
    /// 2xx.
    Delivered,
    /// Anything else, or no answer.
    Failed,
    /// 410: the endpoint wants no more.
    Gone,
    /// 429 or 503 with `Retry-After`: no attempt is used up.
    Waiting,
}

impl PushOutcomeKind {
    /// Its name in answers and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Gone => "gone",
            Self::Waiting => "waiting",
        }
    }
}

/// A push that has ended, to be stored.
#[derive(Debug, Clone)]
pub struct PushRecord {
    /// The queue of the webhook.
    pub queue_id: i64,
    /// The message.
    pub message_id: i64,
    /// The number of the lease.
    pub token: i64,
    /// 1 first.
    pub attempt: u32,
    /// When it began: by this machine's clock, of which only the time passed
    /// since then reaches the database.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
    /// What it came to.
    pub outcome: PushOutcomeKind,
    /// The status of the answer.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer's body; a kilobyte of it is kept.
    pub answer: Vec<u8>,
}

/// A push that has ended, as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PushAttempt {
    /// The message.
    pub message_id: i64,
    /// 1 first.
    pub attempt: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: i32,
    /// `delivered`, `failed`, `gone` or `waiting`.
    pub outcome: String,
    /// The status of the answer.
    pub status: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The beginning of the answer's body.
    pub answer: Option<Vec<u8>>,
}

/// Which attempts.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttemptFilter {
    /// Of this message.
    pub message_id: Option<i64>,
    /// Answered with this status.
    pub status: Option<u16>,
    /// That came to this.
    pub outcome: Option<PushOutcomeKind>,
}

impl AttemptFilter {
    /// Whether none that it wants was delivered.
    fn only_failures(&self) -> bool {
        self.outcome
            .is_some_and(|outcome| outcome != PushOutcomeKind::Delivered)
            || self
                .status
                .is_some_and(|status| !(200..300).contains(&status))
    }
}

impl Store {
    /// Stores what pushes came to, in one statement (and again, where the day's
    /// partition had to be made first).
    ///
    /// # Errors
    /// Any; the attempts may then be lost, which costs their listing only.
    pub async fn record_pushes(&self, pushes: &[PushRecord]) -> Result<(), Error> {
        match self.run_record(pushes).await {
            Err(error) if error.is_missing_partition() => {
                self.make_partitions().await?;
                self.run_record(pushes).await
            }
            other => other,
        }
    }

    async fn run_record(&self, pushes: &[PushRecord]) -> Result<(), Error> {
        fn column<T>(pushes: &[PushRecord], of: impl Fn(&PushRecord) -> T) -> Vec<T> {
            pushes.iter().map(of).collect()
        }
        let began = Instant::now();
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        sqlx::query(RECORD_PUSHES)
            .bind(column(pushes, |p| p.queue_id))
            .bind(column(pushes, |p| p.message_id))
            .bind(column(pushes, |p| p.token))
            .bind(column(pushes, |p| {
                i32::try_from(p.attempt).unwrap_or(i32::MAX)
            }))
            .bind(column(pushes, |p| millis(p.started.elapsed())))
            .bind(column(pushes, |p| {
                i32::try_from(millis(p.duration)).unwrap_or(i32::MAX)
            }))
            .bind(column(pushes, |p| p.outcome.as_str()))
            .bind(column(pushes, |p| {
                p.status.and_then(|status| i16::try_from(status).ok())
            }))
            .bind(column(pushes, |p| p.error.as_deref().map(storable)))
            .bind(
                pushes
                    .iter()
                    .map(|p| (!p.answer.is_empty()).then(|| &p.answer[..p.answer.len().min(KEPT)]))
                    .collect::<Vec<_>>(),
            )
            .execute(&self.pool)
            .await?;
        self.metrics.record_push.record(pushes.len(), began);
        Ok(())
    }

    /// A page of a webhook's attempts, newest first, and where the next page
    /// begins.
    ///
    /// # Errors
    /// Any.
    pub async fn push_attempts(
        &self,
        queue_id: i64,
        filter: AttemptFilter,
        after: Option<Cursor>,
        limit: i64,
    ) -> Result<(Vec<PushAttempt>, Option<Cursor>), Error> {
        let (micros, before) = match after {
            Some(Cursor::Timed { micros, message_id }) => (micros, message_id),
            // Later than any attempt.
            _ => (253_402_300_799_000_000, i64::MAX),
        };
        let statement = match filter {
            AttemptFilter {
                message_id: Some(_),
                ..
            } => PUSH_ATTEMPTS_OF,
            filter if filter.only_failures() => PUSH_FAILURES,
            _ => PUSH_ATTEMPTS,
        };
        let mut query = sqlx::query(statement)
            .bind(queue_id)
            .bind(DateTime::from_timestamp_micros(micros).unwrap_or_default())
            .bind(before)
            .bind(filter.status.and_then(|status| i16::try_from(status).ok()))
            .bind(filter.outcome.map(PushOutcomeKind::as_str))
            .bind(limit + 1);
        if let Some(message_id) = filter.message_id {
            query = query.bind(message_id);
        }
        let rows = query.fetch_all(&self.pool).await?;
        let page = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > page;
        let attempts: Vec<PushAttempt> = rows
            .iter()
            .take(page)
            .map(|row| {
                Ok(PushAttempt {
                    message_id: row.try_get("message_id")?,
                    attempt: row.try_get("attempt")?,
                    started_at: row.try_get("started_at")?,
                    duration_ms: row.try_get("duration_ms")?,
                    outcome: row.try_get("outcome")?,
                    status: row.try_get("status")?,
                    error: row.try_get("error")?,
                    answer: row.try_get("answer")?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let next = attempts.last().filter(|_| more).map(|last| Cursor::Timed {
            micros: last.started_at.timestamp_micros(),
            message_id: last.message_id,
        });
        Ok((attempts, next))
    }
}

/// At most [`KEPT`] bytes of a text, without what Postgres cannot store.
fn storable(text: &str) -> String {
    let mut end = text.len().min(KEPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_between_characters() {
        let long = format!("{}ü", "x".repeat(KEPT - 1));
        assert_eq!(storable(&long), "x".repeat(KEPT - 1));
        assert_eq!(storable("a\0b"), "ab");
    }
}
