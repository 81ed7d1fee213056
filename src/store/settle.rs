//! Ending leases: ack, and whatever [`decide`](crate::domain::decide) said.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;

use super::transaction::{On, Transaction};
use super::{Error, Store, statements};
use crate::domain::{Disposition, Lease, Seconds};

statements! {
    ACK = "ack";
    ACK_IN_PLACE = "ack_in_place";
    ACK_ORDERED = "ack_ordered";
    SETTLE = "settle";
    LATE = "late";
    HOLD = "hold";
    EXTEND = "extend";
}

/// What became of a receipt that no running lease matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The lease had run out, nobody has had the message since, and the ack
    /// counts.
    Acked,
    /// It was settled before with this receipt, or its message was taken out.
    Gone,
    /// The lease has run out and nobody has had the message since.
    Expired,
    /// The lease ended otherwise.
    Lost,
    /// An earlier message of its key, leased with it, is not settled; nothing was
    /// changed.
    OutOfOrder,
}

/// A lease to end in another way than by an ack.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which; token 0 for a message that nobody holds.
    pub lease: Lease,
    /// Only if it has run out by now: an extend since then wins.
    pub must_be_due: bool,
    /// What was decided.
    pub disposition: Disposition,
    /// How the attempt ended, for the history; `None` if there was none.
    pub outcome: Option<&'static str>,
    /// The consumer's reason.
    pub error: Option<String>,
}

/// How a settle went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// As decided.
    Done,
    /// The lease was no longer running; nothing was changed.
    Not(Fate),
}

impl Store {
    /// Acks leases of any queues, in one statement (and one more if any of them
    /// was not running, or if the disk is full).
    ///
    /// # Errors
    /// Any; whether the acks took effect is then not known.
    pub async fn ack(&self, leases: &[Lease]) -> Result<Vec<Settled>, Error> {
        self.ack_on(&mut On::Alone(&self.hot), leases, false).await
    }

    /// The same where any of the queues is ordered: those that are leased before
    /// others of their key are acked before them, or with them.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn ack_ordered(&self, leases: &[Lease]) -> Result<Vec<Settled>, Error> {
        self.ack_on(&mut On::Alone(&self.hot), leases, true).await
    }

    async fn ack_on(
        &self,
        on: &mut On<'_>,
        leases: &[Lease],
        ordered: bool,
    ) -> Result<Vec<Settled>, Error> {
        let (queue_ids, message_ids, tokens) = columns(leases.iter());
        let began = Instant::now();
        let ack = |statement| {
            sqlx::query(statement)
                .bind(&queue_ids[..])
                .bind(&message_ids[..])
                .bind(&tokens[..])
        };
        let statement = if ordered { ACK_ORDERED } else { ACK };
        let mut rows = on.fetch_all(ack(statement)).await.map_err(Error::from);
        if on.is_alone() && matches!(rows, Err(Error::StorageFull(_))) && !ordered {
            // What makes room must not need any.
            rows = on.fetch_all(ack(ACK_IN_PLACE)).await.map_err(Error::from);
        }
        let rows = rows?;
        self.metrics.ack.record(rows.len(), began);
        let mut acked = HashSet::with_capacity(rows.len());
        let mut too_early = HashSet::new();
        for row in rows {
            if ordered && row.try_get("out_of_order")? {
                too_early.insert(key(&row)?);
                continue;
            }
            self.metrics.lease_to_ack.record_time(held_time(&row, 3)?);
            acked.insert(key(&row)?);
        }
        let mut results = vec![Settled::Done; leases.len()];
        if !too_early.is_empty() {
            for (result, lease) in results.iter_mut().zip(leases) {
                if too_early.contains(&(lease.queue_id, lease.message_id, lease.token)) {
                    *result = Settled::Not(Fate::OutOfOrder);
                }
            }
            acked.extend(too_early);
        }
        let late: Vec<usize> = (0..leases.len())
            .filter(|at| {
                let lease = &leases[*at];
                !acked.contains(&(lease.queue_id, lease.message_id, lease.token))
            })
            .collect();
        let mut running = fates_of(on, leases, &late, true, &mut results).await?;
        if !running.is_empty() {
            // Those behind one that was missed were judged without it.
            let is_behind = |at: &usize| results[*at] == Settled::Not(Fate::OutOfOrder);
            running.extend((0..leases.len()).filter(is_behind));
            let again: Vec<Lease> = running.iter().map(|at| leases[*at]).collect();
            let again = Box::pin(self.ack_on(on, &again, ordered)).await?;
            for (at, result) in running.into_iter().zip(again) {
                results[at] = result;
            }
        }
        Ok(results)
    }

    /// Ends leases as decided, in one statement (and one more if any of them was
    /// not running). The second of two settles of one lease finds it lost.
    ///
    /// # Errors
    /// Any; whether they took effect is then not known.
    pub async fn settle(&self, items: &[Settle]) -> Result<Vec<Settled>, Error> {
        self.settle_on(&mut On::Alone(&self.hot), items).await
    }

    async fn settle_on(&self, on: &mut On<'_>, items: &[Settle]) -> Result<Vec<Settled>, Error> {
        // One row a lease: the statement would settle a repeated one twice.
        let mut seen = HashSet::new();
        let unique: Vec<&Settle> = items
            .iter()
            .filter(|Settle { lease, .. }| {
                seen.insert((lease.queue_id, lease.message_id, lease.token))
            })
            .collect();
        let (queue_ids, message_ids, tokens) = columns(unique.iter().map(|item| &item.lease));
        let actions: Vec<Action> = unique.iter().map(|item| item.disposition.into()).collect();
        let query = sqlx::query(SETTLE)
            .bind(queue_ids)
            .bind(message_ids)
            .bind(tokens)
            .bind(
                unique
                    .iter()
                    .map(|item| item.must_be_due)
                    .collect::<Vec<_>>(),
            )
            .bind(actions.iter().map(|action| action.name).collect::<Vec<_>>())
            .bind(
                actions
                    .iter()
                    .map(|action| action.delay.as_millis())
                    .collect::<Vec<_>>(),
            )
            .bind(
                actions
                    .iter()
                    .map(|action| action.reason)
                    .collect::<Vec<_>>(),
            )
            .bind(unique.iter().map(|item| item.outcome).collect::<Vec<_>>())
            .bind(
                unique
                    .iter()
                    .map(|item| item.error.as_deref())
                    .collect::<Vec<_>>(),
            );
        let began = Instant::now();
        let rows = on.fetch_all(query).await?;
        self.metrics.settle.record(rows.len(), began);
        let mut done = HashSet::with_capacity(rows.len());
        for row in rows {
            done.insert(key(&row)?);
        }
        let mut results = vec![Settled::Done; items.len()];
        let late: Vec<usize> = (0..items.len())
            .filter(|at| {
                let lease = &items[*at].lease;
                !done.remove(&(lease.queue_id, lease.message_id, lease.token))
            })
            .collect();
        let leases: Vec<Lease> = items.iter().map(|item| item.lease).collect();
        let mut running = fates_of(on, &leases, &late, false, &mut results).await?;
        // A lease that must be due and is not was extended: that stands.
        running.retain(|at| !items[*at].must_be_due);
        if !running.is_empty() {
            let again: Vec<Settle> = running.iter().map(|at| items[*at].clone()).collect();
            for (at, result) in running
                .into_iter()
                .zip(Box::pin(self.settle_on(on, &again)).await?)
            {
                results[at] = result;
            }
        }
        Ok(results)
    }

    /// Moves the ends of leases. The result has the new ends.
    ///
    /// # Errors
    /// Any; whether they took effect is then not known.
    pub async fn extend(
        &self,
        items: &[(Lease, Seconds)],
    ) -> Result<Vec<Result<DateTime<Utc>, Fate>>, Error> {
        let leases: Vec<Lease> = items.iter().map(|(lease, _)| *lease).collect();
        let (queue_ids, message_ids, tokens) = columns(leases.iter());
        let lease_ms: Vec<i64> = items.iter().map(|(_, lease)| lease.as_millis()).collect();
        let began = Instant::now();
        let rows = sqlx::query(EXTEND)
            .bind(queue_ids)
            .bind(message_ids)
            .bind(tokens)
            .bind(lease_ms)
            .fetch_all(&self.hot)
            .await?;
        self.metrics.extend.record(rows.len(), began);
        let mut extended = HashMap::with_capacity(rows.len());
        for row in rows {
            extended.insert(key(&row)?, row.try_get::<DateTime<Utc>, _>(3)?);
        }
        let end = |lease: &Lease| {
            let key = (lease.queue_id, lease.message_id, lease.token);
            extended.get(&key).copied()
        };
        let mut fates = vec![Settled::Done; items.len()];
        let late: Vec<usize> = (0..leases.len())
            .filter(|at| end(&leases[*at]).is_none())
            .collect();
        let on = &mut On::Alone(&self.hot);
        fates_of(on, &leases, &late, false, &mut fates).await?;
        Ok(leases
            .iter()
            .zip(fates)
            .map(|(lease, fate)| match fate {
                Settled::Not(fate) => Err(fate),
                Settled::Done => end(lease).ok_or(Fate::Expired),
            })
            .collect())
    }
}

/// Fills in what became of the leases at `late`. Answers with those whose
/// lease is there after all: it has run out and nobody has dealt with it
/// yet, or its row moved between the look and the delete.
async fn fates_of(
    on: &mut On<'_>,
    leases: &[Lease],
    late: &[usize],
    is_ack: bool,
    results: &mut [Settled],
) -> Result<Vec<usize>, Error> {
    let mut running = Vec::new();
    if late.is_empty() {
        return Ok(running);
    }
    let (queue_ids, message_ids, tokens) = columns(late.iter().map(|at| &leases[*at]));
    let query = sqlx::query(LATE)
        .bind(queue_ids)
        .bind(message_ids)
        .bind(tokens)
        .bind(vec![is_ack; late.len()]);
    let rows = on.fetch_all(query).await?;
    for (row, at) in rows.iter().zip(late) {
        let fate = row.try_get::<&str, _>("fate")?;
        if fate == "running" {
            running.push(*at);
        }
        results[*at] = Settled::Not(match fate {
            "acked" => Fate::Acked,
            "gone" => Fate::Gone,
            "running" | "expired" => Fate::Expired,
            _ => Fate::Lost,
        });
    }
    Ok(running)
}

impl Transaction {
    /// Locks leases that this transaction is about to settle by several statements.
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub(super) async fn hold(&mut self, leases: &[Lease]) -> Result<(), Error> {
        let (queue_ids, message_ids, tokens) = columns(leases.iter());
        let query = sqlx::query(HOLD)
            .bind(queue_ids)
            .bind(message_ids)
            .bind(tokens);
        self.on()?.fetch_all(query).await?;
        Ok(())
    }

    /// As [`Store::ack`], or [`Store::ack_ordered`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn ack(&mut self, leases: &[Lease], ordered: bool) -> Result<Vec<Settled>, Error> {
        let (store, mut on) = self.on_store()?;
        store.ack_on(&mut on, leases, ordered).await
    }

    /// As [`Store::settle`].
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn settle(&mut self, items: &[Settle]) -> Result<Vec<Settled>, Error> {
        let (store, mut on) = self.on_store()?;
        store.settle_on(&mut on, items).await
    }
}

/// The lease that a row is about: queue, message, token. The message alone is
/// not enough: an older receipt of it may be in the same batch.
fn key(row: &PgRow) -> Result<(i64, i64, i64), Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

/// How long a lease was held until its ack, by the database's clock.
pub(super) fn held_time<I: sqlx::ColumnIndex<PgRow>>(
    row: &PgRow,
    column: I,
) -> Result<Duration, Error> {
    let held: PgInterval = row.try_get(column)?;
    let micros = i64::from(held.days) * 86_400_000_000 + held.microseconds;
    Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

pub(super) fn columns<'a>(
    leases: impl Iterator<Item = &'a Lease>,
) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let mut columns = (Vec::new(), Vec::new(), Vec::new());
    for lease in leases {
        columns.0.push(lease.queue_id);
        columns.1.push(lease.message_id);
        columns.2.push(lease.token);
    }
    columns
}

/// A disposition as `settle.sql` spells it.
struct Action {
    name: &'static str,
    delay: Seconds,
    reason: Option<&'static str>,
}

impl From<Disposition> for Action {
    fn from(disposition: Disposition) -> Self {
        let (name, delay, reason) = match disposition {
            Disposition::Requeue(delay) => ("requeue", delay, None),
            Disposition::Release => ("release", Seconds::ZERO, None),
            Disposition::Postpone(delay) => ("postpone", delay, None),
            Disposition::DeadLetter(reason) => {
                ("dead-letter", Seconds::ZERO, Some(reason.as_str()))
            }
            Disposition::Drop => ("drop", Seconds::ZERO, None),
            Disposition::Expire => ("expire", Seconds::ZERO, None),
        };
        Self {
            name,
            delay,
            reason,
        }
    }
}
