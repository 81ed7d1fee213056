//! Storing messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::publish_columns::Columns;
use super::room::{Bound, Bounds};
use super::transaction::{On, Transaction};
use super::{Error, Queue, Store, statements};
use crate::domain::{Message, Overflow, Seconds};

statements! {
    PUBLISH = "publish";
    PUBLISH_DEDUP = "publish_dedup";
    PUBLISH_LINED = "publish_lined";
    PUBLISH_DUPLICATES = "publish_duplicates";
}

/// One request: messages for one queue, stored all or none.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub queue: Arc<Queue>,
    /// Checked against the queue's settings.
    pub messages: Arc<Vec<Message>>,
}

/// The lease with which a message is stored, for a receiver that waits: what
/// [`Store::claim`] would give it next.
#[derive(Debug, Clone, Copy)]
pub struct Handover {
    /// Not 0.
    pub token: i64,
    /// For how long.
    pub lease: Seconds,
}

impl Publish {
    /// Whether a message can be received as soon as it is stored, as far as its times
    /// go.
    #[must_use]
    pub fn is_ready_at_once(&self, message: &Message) -> bool {
        let delay = message.delay.unwrap_or(self.queue.settings.delay);
        message.deliver_at.is_none() && delay == Seconds::ZERO
    }
}

/// One message's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its id, or the first one's with the same dedup id.
    pub id: i64,
    /// Whether nothing was stored.
    pub duplicate: bool,
    /// Milliseconds until it is ready; not positive: it is.
    pub wakes_in_ms: i64,
    /// It waits for its key's turn: [`Publish::turns`].
    pub lined_up: bool,
    /// When it was stored and its lease began, if it was handed over.
    pub leased_at: Option<DateTime<Utc>>,
}

/// Why a request was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The queue is gone.
    NoQueue,
    /// The queue is at `max_ready` and rejects.
    Full {
        /// The bound.
        max_ready: u64,
    },
}

/// One request's result.
pub type PublishResult = Result<Vec<Published>, Refusal>;

impl Store {
    /// Stores the messages of all requests in one statement. When it returns,
    /// Postgres has committed and flushed; what queues that drop their oldest are to
    /// give up is seen to after that ([`Self::drop_overflow`]).
    ///
    /// Those that have a place in `handovers`, which counts the messages of all
    /// requests, are stored as leased, if no message has a dedup id or lines up: those
    /// may have to wait for others, and a lease counts from the statement's beginning.
    /// They must be ready at once.
    ///
    /// Bounded queues cost a statement more: how full they are is asked before
    /// (`reject`) or acted on after (`drop_oldest`), so the bound can be
    /// overrun by what other writers have in flight at that moment.
    ///
    /// # Errors
    /// Any; whether the messages were stored is then not known.
    pub async fn publish(
        &self,
        requests: &[Publish],
        handovers: &HashMap<usize, Handover>,
    ) -> Result<(Vec<PublishResult>, Bounds), Error> {
        let mut on = On::Alone(&self.hot);
        self.publish_on(&mut on, requests, handovers).await
    }

    async fn publish_on(
        &self,
        on: &mut On<'_>,
        requests: &[Publish],
        handovers: &HashMap<usize, Handover>,
    ) -> Result<(Vec<PublishResult>, Bounds), Error> {
        let full = self.full_queues(on, requests).await?;
        let mut columns = Columns::default();
        let mut place = 0;
        for (request, full) in requests.iter().zip(&full) {
            let first = place;
            place += request.messages.len();
            if full.is_none() {
                if request.lines_up() {
                    columns.line_up = true;
                    self.note_fair(request).await?;
                }
                for (message, place) in request.messages.iter().zip(first..) {
                    columns.push(&request.queue, message, handovers.get(&place).copied());
                }
            }
        }
        let rows = if columns.queue_id.is_empty() {
            Vec::new()
        } else {
            self.publish_rows(on, &columns).await?
        };

        let mut results = Vec::with_capacity(requests.len());
        let mut ord = 0;
        for (request, full) in requests.iter().zip(full) {
            if let Some(refusal) = full {
                results.push(Err(refusal));
                continue;
            }
            let first = ord;
            ord += request.messages.len();
            // Rows of a queue that is gone are missing.
            let stored: Option<Vec<_>> = rows[first..ord].iter().copied().collect();
            results.push(stored.ok_or(Refusal::NoQueue));
        }
        let bounds = requests
            .iter()
            .zip(&results)
            .filter(|(request, result)| {
                request.queue.settings.overflow == Overflow::DropOldest && result.is_ok()
            })
            .filter_map(|(request, _)| {
                let bound = Bound {
                    max_ready: request.queue.settings.max_ready?,
                    has_lines: request.queue.has_lines() || request.lines_up(),
                };
                Some((request.queue.id, bound))
            })
            .collect();
        Ok((results, Bounds(bounds)))
    }

    /// What became of each row, in order; `None` if its queue is gone.
    async fn publish_rows(
        &self,
        on: &mut On<'_>,
        columns: &Columns<'_>,
    ) -> Result<Vec<Option<Published>>, Error> {
        let rows = match self.run_publish(on, columns).await {
            Err(e) if e.is_missing_partition() && on.is_alone() => {
                // Faster than the worker that makes them ahead of need.
                self.make_partitions().await?;
                self.run_publish(on, columns).await?
            }
            other => other?,
        };
        let mut published = vec![None; columns.queue_id.len()];
        let mut unseen = Vec::new();
        let handed_over = !columns.with_dedup() && !columns.token.is_empty();
        for row in rows {
            let place = place(row.try_get("ord")?);
            let id: Option<i64> = row.try_get("id")?;
            if id.is_none() {
                unseen.push(place);
            }
            published[place] = Some(Published {
                id: id.unwrap_or(0),
                duplicate: row.try_get("duplicate")?,
                wakes_in_ms: row.try_get("wakes_in_ms")?,
                lined_up: columns.line_up && row.try_get("lines_up")?,
                leased_at: if handed_over {
                    row.try_get("leased_at")?
                } else {
                    None
                },
            });
        }
        if handed_over {
            // Their leases are worth a look for the watermarks as those of a claim are.
            let stored = published.iter().flatten();
            let leased = stored.filter(|message| message.leased_at.is_some());
            self.watermarks.claimed(leased.count());
        }
        if !unseen.is_empty() {
            self.look_up_duplicates(on, columns, &unseen, &mut published)
                .await?;
        }
        Ok(published)
    }

    async fn run_publish(
        &self,
        on: &mut On<'_>,
        columns: &Columns<'_>,
    ) -> Result<Vec<sqlx::postgres::PgRow>, Error> {
        let with_dedup = columns.with_dedup();
        let statement = match (columns.line_up, with_dedup) {
            (true, _) => PUBLISH_LINED,
            (false, true) => PUBLISH_DEDUP,
            (false, false) => PUBLISH,
        };
        let mut query = sqlx::query(statement)
            .bind(&columns.queue_id)
            .bind(&columns.body)
            .bind(sparse(&columns.content_type))
            .bind(sparse(&columns.headers))
            .bind(sparse(&columns.key))
            .bind(&columns.priority)
            .bind(&columns.delay_ms)
            .bind(sparse(&columns.deliver_at))
            .bind(&columns.ttl_ms)
            .bind(&columns.own_ttl)
            .bind(sparse(&columns.correlation_id))
            .bind(sparse(&columns.reply_to))
            .bind(sparse(&columns.traceparent))
            .bind(sparse(&columns.tracestate));
        if with_dedup {
            query = query.bind(&columns.dedup_id).bind(&columns.dedup_window_ms);
        }
        if columns.line_up {
            query = query.bind(&columns.fair);
        }
        query = query.bind(&columns.schema_version);
        if !with_dedup {
            query = query.bind(&columns.token).bind(&columns.lease_ms);
        }
        let began = Instant::now();
        let rows = on.fetch_all(query).await?;
        self.metrics.publish.record(rows.len(), began);
        Ok(rows)
    }

    async fn look_up_duplicates(
        &self,
        on: &mut On<'_>,
        columns: &Columns<'_>,
        unseen: &[usize],
        published: &mut [Option<Published>],
    ) -> Result<(), Error> {
        let queue_ids: Vec<i64> = unseen.iter().map(|at| columns.queue_id[*at]).collect();
        let dedup_ids: Vec<Option<&str>> = unseen.iter().map(|at| columns.dedup_id[*at]).collect();
        for (at, id) in duplicates(on, &queue_ids, &dedup_ids).await? {
            if let Some(result) = &mut published[unseen[at]] {
                result.id = id;
            }
        }
        Ok(())
    }

    /// Whether each of these dedup ids of a queue or topic belongs to a message.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn are_published(&self, of: i64, dedup_ids: &[&str]) -> Result<bool, Error> {
        let mut ids = dedup_ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let ids: Vec<Option<&str>> = ids.into_iter().map(Some).collect();
        let mut on = On::Alone(&self.hot);
        let known = duplicates(&mut on, &vec![of; ids.len()], &ids).await?;
        Ok(known.len() == ids.len())
    }
}

/// Which messages dedup ids of queues or topics belong to: the place of each
/// that belongs to any, and the message.
pub(super) async fn duplicates(
    on: &mut On<'_>,
    of: &[i64],
    dedup_ids: &[Option<&str>],
) -> Result<Vec<(usize, i64)>, Error> {
    let query = sqlx::query(PUBLISH_DUPLICATES).bind(of).bind(dedup_ids);
    let rows = on.fetch_all(query).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(id) = row.try_get("id")? {
            found.push((place(row.try_get("ord")?), id));
        }
    }
    Ok(found)
}

impl Transaction {
    /// As [`Store::publish`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn publish(
        &mut self,
        requests: &[Publish],
    ) -> Result<(Vec<PublishResult>, Bounds), Error> {
        let (store, mut on) = self.on_store()?;
        store.publish_on(&mut on, requests, &HashMap::new()).await
    }
}

/// The place in an array whose rows Postgres counts from one.
pub(super) fn place(ord: i64) -> usize {
    usize::try_from(ord - 1).unwrap_or(usize::MAX)
}

/// A column for the statement: unnest fills a short array up with nulls, and
/// most messages leave most of their fields out.
pub(super) fn sparse<T>(column: &[Option<T>]) -> &[Option<T>] {
    if column.iter().all(Option::is_none) {
        &[]
    } else {
        column
    }
}

/// Makes `value` the last of a column that is to have `rows`. While no row has any
/// it stays empty and takes no room: [`sparse`], from the start.
pub(super) fn push_rare<T: Clone>(column: &mut Vec<Option<T>>, rows: usize, value: Option<T>) {
    if value.is_some() || !column.is_empty() {
        column.resize(rows - 1, None);
        column.push(value);
    }
}
