//! Storing messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sqlx::Row as _;

use super::publish_columns::Columns;
use super::transaction::{On, Transaction};
use super::{Error, Queue, Store, Turn, statements};
use crate::domain::{Message, Overflow};

statements! {
    PUBLISH = "publish";
    PUBLISH_DEDUP = "publish_dedup";
    PUBLISH_LINED = "publish_lined";
    PUBLISH_DUPLICATES = "publish_duplicates";
    ROOM = "room";
    OVERFLOW = "overflow";
}

/// One request: messages for one queue, stored all or none.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub queue: Arc<Queue>,
    /// Checked against the queue's settings.
    pub messages: Arc<Vec<Message>>,
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

/// What a publish made a `drop_oldest` queue give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overflowed {
    /// The queue.
    pub queue_id: i64,
    /// Those that are dead letters now.
    pub dead: Vec<i64>,
    /// All of them, if its keys take turns.
    pub dropped: Vec<i64>,
}

impl Overflowed {
    /// The keys whose turn may have come.
    pub fn turns(&self) -> impl Iterator<Item = Turn> {
        self.dropped
            .iter()
            .map(|message_id| Turn::message(self.queue_id, *message_id))
    }
}

/// Queues that drop what is over their bound, and the bound of each: to be looked
/// at when a publish has committed.
#[derive(Debug, Default)]
pub struct Bounds(pub(super) HashMap<i64, Bound>);

/// What a queue may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) max_ready: u64,
    /// Whether what is dropped may have had its key's turn.
    pub(super) has_lines: bool,
}

/// One request's result.
pub type PublishResult = Result<Vec<Published>, Refusal>;

impl Store {
    /// Stores the messages of all requests in one statement. When it returns,
    /// Postgres has committed and flushed.
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
    ) -> Result<(Vec<PublishResult>, Vec<Overflowed>), Error> {
        let (results, bounds) = self.publish_on(&mut On::Alone(&self.hot), requests).await?;
        let overflowed = self.drop_overflow(bounds).await;
        Ok((results, overflowed))
    }

    async fn publish_on(
        &self,
        on: &mut On<'_>,
        requests: &[Publish],
    ) -> Result<(Vec<PublishResult>, Bounds), Error> {
        let full = self.full_queues(on, requests).await?;
        let mut columns = Columns::default();
        for (request, full) in requests.iter().zip(&full) {
            if full.is_none() {
                if request.lines_up() {
                    columns.line_up = true;
                    self.note_fair(request).await?;
                }
                for message in request.messages.iter() {
                    columns.push(&request.queue, message);
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
            });
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
        let with_dedup = columns.line_up || columns.dedup_id.iter().any(Option::is_some);
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
        let query = query.bind(&columns.schema_version);
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

    /// For each request, whether its queue has no room for it.
    async fn full_queues(
        &self,
        on: &mut On<'_>,
        requests: &[Publish],
    ) -> Result<Vec<Option<Refusal>>, Error> {
        let bound = |request: &Publish| {
            let settings = &request.queue.settings;
            settings
                .max_ready
                .filter(|_| settings.overflow == Overflow::Reject)
        };
        let ids: Vec<i64> = requests
            .iter()
            .filter(|r| bound(r).is_some())
            .map(|r| r.queue.id)
            .collect();
        if ids.is_empty() {
            return Ok(vec![None; requests.len()]);
        }
        let mut ready = self.ready_counts(on, &ids).await?;
        Ok(requests
            .iter()
            .map(|request| {
                let max_ready = bound(request)?;
                let ready = ready.entry(request.queue.id).or_default();
                let wanted = *ready + request.messages.len() as u64;
                if wanted > max_ready {
                    return Some(Refusal::Full { max_ready });
                }
                *ready = wanted;
                None
            })
            .collect())
    }

    pub(super) async fn ready_counts(
        &self,
        on: &mut On<'_>,
        ids: &[i64],
    ) -> Result<HashMap<i64, u64>, Error> {
        let query = sqlx::query(ROOM).bind(ids).bind(self.watermarks.tallies());
        let rows = on.fetch_all(query).await?;
        rows.iter()
            .map(|row| {
                let ready: i64 = row.try_get("ready")?;
                Ok((row.try_get("queue_id")?, u64::try_from(ready).unwrap_or(0)))
            })
            .collect()
    }

    /// Gives up the oldest messages of `drop_oldest` queues that a publish has
    /// made too full. If the gateway dies before, the next publish does it.
    pub async fn drop_overflow(&self, Bounds(bounds): Bounds) -> Vec<Overflowed> {
        let mut overflowed = Vec::new();
        if !bounds.is_empty()
            && let Err(error) = self.drop_excess(&bounds, &mut overflowed).await
        {
            // The messages are stored, which is what the answer promises.
            tracing::warn!(%error, "a full queue keeps its oldest messages until the next publish");
        }
        overflowed
    }

    async fn drop_excess(
        &self,
        bounds: &HashMap<i64, Bound>,
        overflowed: &mut Vec<Overflowed>,
    ) -> Result<(), Error> {
        let ids: Vec<i64> = bounds.keys().copied().collect();
        for (queue_id, ready) in self.ready_counts(&mut On::Alone(&self.hot), &ids).await? {
            let bound = bounds[&queue_id];
            if ready > bound.max_ready {
                let rows = sqlx::query(OVERFLOW)
                    .bind(queue_id)
                    .bind(i64::try_from(bound.max_ready).unwrap_or(i64::MAX))
                    .bind(self.watermarks.tallies())
                    .fetch_all(&self.hot)
                    .await?;
                let mut gone = Overflowed {
                    queue_id,
                    dead: Vec::new(),
                    dropped: Vec::new(),
                };
                for row in rows {
                    let message_id = row.try_get(0)?;
                    if bound.has_lines {
                        gone.dropped.push(message_id);
                    }
                    if row.try_get(1)? {
                        gone.dead.push(message_id);
                    }
                }
                overflowed.push(gone);
            }
        }
        Ok(())
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
    /// As [`Store::publish`]; what queues that drop their oldest are to give up is
    /// seen to after the commit ([`Store::drop_overflow`]).
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn publish(
        &mut self,
        requests: &[Publish],
    ) -> Result<(Vec<PublishResult>, Bounds), Error> {
        let (store, mut on) = self.on_store()?;
        store.publish_on(&mut on, requests).await
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
