//! Replies to requests.
//!
//! A reply is stored by the statement that acks its request, so that neither is
//! there without the other. It can be read, any number of times, until its time is
//! over.
//!
//! Replies live for minutes, so a table from which each is deleted would be mostly
//! dead rows. Instead there is a ring of eight slots, each for the replies whose
//! time ends in the same twenty minutes of the clock; five are in use at any time
//! (the longest time-out, and the minutes that a reply is kept), and the two that
//! have gone by last are emptied whole. They are made once, by the migration: there
//! is no partition to be missing, and one that could not be emptied in time, because
//! somebody dumps the database, only takes room until the next try.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;
use sqlx::types::Json;

use super::publish::{place, sparse};
use super::settle::{columns, held_time};
use super::{Error, Store, statements};
use crate::domain::{Asked, Content, Headers, Lease, RequestKey};

statements! {
    ASKED = "asked";
    REPLY = "reply";
    REPLIED = "replied";
    READ_REPLIES = "read_replies";
}

/// Slots of the ring, as the migration has made them.
const SLOTS: i64 = 8;

/// What one slot holds: replies whose time ends within so many milliseconds.
const SLOT_MS: i64 = 20 * 60 * 1000;

/// How long what the database said of the time is good for: its clock may be set.
const CLOCK_AGE: Duration = Duration::from_secs(10);

/// A reply, as the consumer of a request gives it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The request's lease.
    pub lease: Lease,
    /// Body and content type.
    pub content: Content,
    /// The consumer's headers.
    pub headers: Headers,
    /// What tells a request from other messages.
    pub key: Arc<RequestKey>,
}

/// What became of an [`Answer`].
#[derive(Debug, Clone)]
pub enum Answered {
    /// It is stored, and the request acked.
    Stored {
        /// The request.
        asked: Asked,
        /// When.
        replied_at: DateTime<Utc>,
    },
    /// It was before, by the same receipt.
    Again(Asked),
    /// The message asks for no reply.
    NotAsked,
    /// The request's deadline has passed. Nothing was changed.
    Late,
    /// What was leased in front of it is not settled yet. Nothing was changed.
    OutOfOrder,
    /// The lease was no longer running. Nothing was changed.
    Lost,
}

/// A reply, as it is read.
#[derive(Debug)]
pub struct Reply {
    /// When it was stored.
    pub replied_at: DateTime<Utc>,
    /// Body and content type.
    pub content: Content,
    /// Its headers.
    pub headers: Headers,
}

/// Which reply: where it is, and until when it may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// The random part of the correlation id.
    pub id: u128,
    slot: i16,
    over_at: DateTime<Utc>,
}

impl From<&Asked> for ReplyTo {
    fn from(asked: &Asked) -> Self {
        let slot = (asked.expires_at().timestamp_millis() / SLOT_MS).rem_euclid(SLOTS);
        Self {
            id: asked.id,
            slot: i16::try_from(slot).unwrap_or(0),
            over_at: asked.over_at,
        }
    }
}

/// What there is of a reply.
#[derive(Debug, Clone)]
pub enum ReplyRead {
    /// It is there.
    There(Arc<Reply>),
    /// It may come.
    Pending,
    /// It was not there in time, or its own time is over.
    Over,
}

/// The database's clock, as it was last heard.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(DateTime<Utc>, Instant)>>);

impl Clock {
    /// Notes what the database, asked then, said of the time.
    pub(super) fn note(&self, now: DateTime<Utc>, asked: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, asked));
    }

    /// What it says now, if it was heard lately. Ahead of it by the way of the
    /// question at most.
    fn now(&self) -> Option<DateTime<Utc>> {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, asked) = heard?;
        let since = Some(asked.elapsed()).filter(|since| *since < CLOCK_AGE)?;
        Some(then + TimeDelta::from_std(since).ok()?)
    }
}

impl Store {
    /// What the database's clock says, without a question if it was heard lately:
    /// each heartbeat brings it along.
    ///
    /// # Errors
    /// Any.
    pub async fn now(&self) -> Result<DateTime<Utc>, Error> {
        if let Some(now) = self.clock.now() {
            return Ok(now);
        }
        let asked = Instant::now();
        let row = sqlx::query("SELECT now()").fetch_one(&self.pool).await?;
        let now = row.try_get(0)?;
        self.clock.note(now, asked);
        Ok(now)
    }

    /// Stores replies and acks their requests, each both or neither: one statement
    /// to read what was asked, one that does it, and one more if any was not done.
    ///
    /// # Errors
    /// Any; whether it took effect is then not known, and it may be tried again.
    pub async fn reply(&self, answers: &[Answer]) -> Result<Vec<Answered>, Error> {
        let asked = self.asked(answers).await?;
        let to_store: Vec<usize> = (0..answers.len())
            .filter(|at| matches!(asked[*at], Looked::Asked(..)))
            .collect();
        let mut results: Vec<Answered> = asked
            .iter()
            .map(|looked| match looked {
                Looked::NotAsked => Answered::NotAsked,
                Looked::Asked(..) | Looked::Gone => Answered::Lost,
            })
            .collect();
        let mut undone = Vec::new();
        for (at, row) in to_store
            .iter()
            .zip(self.store_replies(answers, &asked, &to_store).await?)
        {
            let Looked::Asked(request, _) = &asked[*at] else {
                continue;
            };
            if row.try_get("acked")? {
                self.metrics
                    .lease_to_ack
                    .record_time(held_time(&row, "held")?);
                results[*at] = Answered::Stored {
                    asked: request.clone(),
                    replied_at: row.try_get("replied_at")?,
                };
                continue;
            }
            if row.try_get("out_of_order")? {
                results[*at] = Answered::OutOfOrder;
                continue;
            }
            if row.try_get("late")? {
                results[*at] = Answered::Late;
            }
            undone.push((*at, request, answers[*at].lease.token));
        }
        self.find_replied(&undone, &mut results).await?;
        Ok(results)
    }

    /// What each message asked for.
    async fn asked(&self, answers: &[Answer]) -> Result<Vec<Looked>, Error> {
        let (queue_ids, message_ids, _) = columns(answers.iter().map(|answer| &answer.lease));
        let rows = sqlx::query(ASKED)
            .bind(queue_ids)
            .bind(message_ids)
            .fetch_all(&self.hot)
            .await?;
        let mut asked: Vec<Looked> = answers.iter().map(|_| Looked::Gone).collect();
        for row in rows {
            let at = place(row.try_get("ord")?);
            let id: Option<&str> = row.try_get("correlation_id")?;
            asked[at] = match id.and_then(|id| answers[at].key.open(id)) {
                Some(request) => {
                    let deadline = request.deadline(row.try_get("enqueued_at")?);
                    Looked::Asked(request, deadline)
                }
                None => Looked::NotAsked,
            };
        }
        Ok(asked)
    }

    /// Stores the replies at these places; a row for each.
    async fn store_replies(
        &self,
        answers: &[Answer],
        asked: &[Looked],
        at: &[usize],
    ) -> Result<Vec<sqlx::postgres::PgRow>, Error> {
        if at.is_empty() {
            return Ok(Vec::new());
        }
        let (queue_ids, message_ids, tokens) = columns(at.iter().map(|at| &answers[*at].lease));
        let (mut slots, mut ids) = (Vec::new(), Vec::new());
        let (mut deadlines, mut ends) = (Vec::new(), Vec::new());
        let (mut bodies, mut types, mut headers) = (Vec::new(), Vec::new(), Vec::new());
        for at in at {
            let Looked::Asked(request, deadline) = &asked[*at] else {
                continue;
            };
            let to = ReplyTo::from(request);
            slots.push(to.slot);
            ids.push(to.id.to_be_bytes());
            deadlines.push(*deadline);
            ends.push(request.expires_at());
            let answer = &answers[*at];
            bodies.push(&answer.content.body[..]);
            types.push(answer.content.content_type.as_deref());
            headers.push((!answer.headers.is_empty()).then_some(Json(&answer.headers)));
        }
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        let began = Instant::now();
        let rows = sqlx::query(REPLY)
            .bind(queue_ids)
            .bind(message_ids)
            .bind(tokens)
            .bind(slots)
            .bind(ids)
            .bind(deadlines)
            .bind(ends)
            .bind(bodies)
            .bind(sparse(&types))
            .bind(sparse(&headers))
            .fetch_all(&self.hot)
            .await?;
        self.metrics.reply.record(rows.len(), began);
        Ok(rows)
    }

    /// Marks those that were stored before, under the same lease.
    async fn find_replied(
        &self,
        undone: &[(usize, &Asked, i64)],
        results: &mut [Answered],
    ) -> Result<(), Error> {
        if undone.is_empty() {
            return Ok(());
        }
        let tos: Vec<ReplyTo> = undone.iter().map(|(_, asked, _)| (*asked).into()).collect();
        let (slots, ids) = places(&tos);
        let tokens: Vec<i64> = undone.iter().map(|(_, _, token)| *token).collect();
        let rows = sqlx::query(REPLIED)
            .bind(slots)
            .bind(slices(&ids))
            .bind(tokens)
            .fetch_all(&self.hot)
            .await?;
        for row in rows {
            let (at, asked, _) = undone[place(row.try_get("ord")?)];
            results[at] = Answered::Again(asked.clone());
        }
        Ok(())
    }

    /// Reads the replies that are there, in one statement.
    ///
    /// # Errors
    /// Any.
    pub async fn read_replies(&self, tos: &[ReplyTo]) -> Result<Vec<ReplyRead>, Error> {
        let (slots, ids) = places(tos);
        let ends: Vec<DateTime<Utc>> = tos.iter().map(|to| to.over_at).collect();
        let began = Instant::now();
        let rows = sqlx::query(READ_REPLIES)
            .bind(slots)
            .bind(slices(&ids))
            .bind(ends)
            .fetch_all(&self.hot)
            .await?;
        self.metrics.read_replies.record(tos.len(), began);
        let mut read = vec![ReplyRead::Pending; tos.len()];
        for row in rows {
            let at = place(row.try_get("ord")?);
            read[at] = match row.try_get("replied_at")? {
                None => ReplyRead::Over,
                Some(replied_at) => {
                    let headers: Option<Json<Headers>> = row.try_get("headers")?;
                    let body: Vec<u8> = row.try_get("body")?;
                    ReplyRead::There(Arc::new(Reply {
                        replied_at,
                        content: Content {
                            body: body.into(),
                            content_type: row.try_get("content_type")?,
                        },
                        headers: headers.map(|json| json.0).unwrap_or_default(),
                    }))
                }
            };
        }
        Ok(read)
    }

    /// Empties the slots that have gone by, one transaction for all, sent as one.
    ///
    /// # Errors
    /// Any; [`Error::Unavailable`] if a lock was not to be had in time.
    pub(super) async fn drop_replies(&self) -> Result<(), Error> {
        // Of the eight, five may be written to now, and the sixth soon.
        self.run_as_one(format!(
            "SET LOCAL lock_timeout = '50ms';
            DO $$
            DECLARE
                current bigint := (extract(epoch FROM now()) * 1000)::bigint / {SLOT_MS};
                gone text;
            BEGIN
                FOR ago IN 1..2 LOOP
                    gone := 'postrider.replies_' || (current - ago) % {SLOTS};
                    IF pg_relation_size(gone::regclass) > 0 THEN
                        EXECUTE 'TRUNCATE ' || gone;
                    END IF;
                END LOOP;
            END $$"
        ))
        .await
    }
}

/// What a look at a message came to.
enum Looked {
    /// It is a request, to be answered by then.
    Asked(Asked, DateTime<Utc>),
    NotAsked,
    /// Nothing is left of it.
    Gone,
}

fn places(tos: &[ReplyTo]) -> (Vec<i16>, Vec<[u8; 16]>) {
    tos.iter().map(|to| (to.slot, to.id.to_be_bytes())).unzip()
}

fn slices(ids: &[[u8; 16]]) -> Vec<&[u8]> {
    ids.iter().map(|id| &id[..]).collect()
}
