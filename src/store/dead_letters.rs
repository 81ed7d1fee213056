//! Messages that were given up, and how they come back.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::transaction::{On, Transaction};
use super::{Cursor, Envelope, Error, Store, Turn, statements};
use crate::domain::Seconds;

statements! {
    DEAD_LETTERS = "dead_letters";
    DEAD_LETTER = "dead_letter";
    DELETE_DEAD_LETTER = "delete_dead_letter";
    REDRIVE = "redrive";
    RETRY_CANDIDATES = "retry_candidates";
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The id it has always had.
    pub message_id: i64,
    /// When it died.
    pub dead_at: DateTime<Utc>,
    /// When it is removed.
    pub expires_at: DateTime<Utc>,
    /// Why it died.
    pub reason: String,
    /// Attempts made.
    pub attempts: i32,
    /// How often the scheduled retry has put it back before.
    pub rounds: i32,
    /// 9 first.
    pub priority: i16,
    /// The last consumer's reason.
    pub last_error: Option<String>,
    /// What was published.
    pub envelope: Envelope,
}

/// Which dead letters.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadFilter {
    /// Died of this.
    pub reason: Option<&'static str>,
    /// At this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
}

/// What to put back, and how.
#[derive(Debug, Clone)]
pub struct Redrive {
    /// Where to.
    pub to_queue_id: i64,
    /// These; `None`: what the filter says.
    pub ids: Option<Vec<i64>>,
    /// Which, without `ids`.
    pub filter: DeadFilter,
    /// At most so many.
    pub limit: i64,
    /// The time between one and the next.
    pub apart: Seconds,
    /// When the first comes.
    pub first_in: Seconds,
    /// Whether it is the scheduled retry, whose rounds are counted.
    pub scheduled: bool,
}

/// A dead letter that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The message.
    pub message_id: i64,
    /// Milliseconds until it is ready.
    pub delay_ms: i64,
    /// It waits for this key's turn.
    pub lined_up: Option<String>,
}

impl Redriven {
    /// The key whose turn may have come.
    #[must_use]
    pub fn turn(&self, queue_id: i64) -> Option<Turn> {
        Some(Turn::key(queue_id, self.lined_up.as_deref()?))
    }
}

impl Store {
    /// A page of dead letters, newest first, and where the next page begins.
    ///
    /// # Errors
    /// Any.
    pub async fn dead_letters(
        &self,
        queue_id: i64,
        filter: DeadFilter,
        after: Option<Cursor>,
        limit: i64,
    ) -> Result<(Vec<DeadLetter>, Option<Cursor>), Error> {
        let (time, message_id) = match after {
            Some(Cursor::Timed { micros, message_id }) => (
                DateTime::from_timestamp_micros(micros).unwrap_or_default(),
                message_id,
            ),
            _ => (far_future(), i64::MAX),
        };
        let rows = sqlx::query(DEAD_LETTERS)
            .bind(queue_id)
            .bind(filter.reason)
            .bind(filter.since)
            .bind(filter.until)
            .bind(time)
            .bind(message_id)
            .bind(limit + 1)
            .fetch_all(&self.pool)
            .await?;
        let page = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > page;
        let letters: Vec<DeadLetter> = rows
            .iter()
            .take(page)
            .map(dead_letter)
            .collect::<Result<_, Error>>()?;
        let next = letters.last().filter(|_| more).map(|last| Cursor::Timed {
            micros: last.dead_at.timestamp_micros(),
            message_id: last.message_id,
        });
        Ok((letters, next))
    }

    /// One dead letter.
    ///
    /// # Errors
    /// Any.
    pub async fn dead_letter(
        &self,
        queue_id: i64,
        message_id: i64,
    ) -> Result<Option<DeadLetter>, Error> {
        let row = sqlx::query(DEAD_LETTER)
            .bind(queue_id)
            .bind(message_id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(dead_letter).transpose()
    }

    /// Removes one dead letter. Whether it was there.
    ///
    /// # Errors
    /// Any.
    pub async fn delete_dead_letter(&self, queue_id: i64, message_id: i64) -> Result<bool, Error> {
        let row = sqlx::query(DELETE_DEAD_LETTER)
            .bind(queue_id)
            .bind(message_id)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }

    /// Puts dead letters back to work. Answers with those it took.
    ///
    /// # Errors
    /// Any.
    pub async fn redrive(&self, queue_id: i64, redrive: &Redrive) -> Result<Vec<Redriven>, Error> {
        redrive_on(&mut On::Alone(&self.pool), queue_id, redrive).await
    }

    /// Dead letters that the scheduled retry may put back now: queue and
    /// message.
    ///
    /// # Errors
    /// Any.
    pub async fn retry_candidates(&self, limit: i64) -> Result<Vec<(i64, i64)>, Error> {
        let rows = sqlx::query(RETRY_CANDIDATES)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect()
    }
}

impl Transaction {
    /// As [`Store::redrive`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn redrive(
        &mut self,
        queue_id: i64,
        redrive: &Redrive,
    ) -> Result<Vec<Redriven>, Error> {
        redrive_on(&mut self.on()?, queue_id, redrive).await
    }
}

pub(super) async fn redrive_on(
    on: &mut On<'_>,
    queue_id: i64,
    redrive: &Redrive,
) -> Result<Vec<Redriven>, Error> {
    let query = sqlx::query(REDRIVE)
        .bind(queue_id)
        .bind(redrive.to_queue_id)
        .bind(redrive.ids.as_deref())
        .bind(redrive.filter.reason)
        .bind(redrive.filter.since)
        .bind(redrive.filter.until)
        .bind(redrive.limit)
        .bind(redrive.apart.as_millis())
        .bind(redrive.first_in.as_millis())
        .bind(redrive.scheduled.then_some(1i32));
    let rows = on.fetch_all(query).await?;
    rows.iter()
        .map(|row| {
            Ok(Redriven {
                message_id: row.try_get("message_id")?,
                delay_ms: row.try_get("delay_ms")?,
                lined_up: row.try_get("lined_up_key")?,
            })
        })
        .collect()
}

/// Later than any dead letter.
fn far_future() -> DateTime<Utc> {
    DateTime::from_timestamp(253_402_300_799, 0).unwrap_or_default()
}

fn dead_letter(row: &PgRow) -> Result<DeadLetter, Error> {
    Ok(DeadLetter {
        message_id: row.try_get("message_id")?,
        dead_at: row.try_get("dead_at")?,
        expires_at: row.try_get("expires_at")?,
        reason: row.try_get("reason")?,
        attempts: row.try_get("attempts")?,
        rounds: row.try_get("rounds")?,
        priority: row.try_get("priority")?,
        last_error: row.try_get("last_error")?,
        envelope: Envelope::of(row)?,
    })
}
