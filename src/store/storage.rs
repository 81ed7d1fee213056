//! How the storage is: who holds a snapshot, what that keeps, what is kept and
//! why.
//!
//! Whoever holds a snapshot or a transaction anywhere in the database keeps every
//! row that was deleted since. The queues bear that (claims start above what is
//! dead), the disk does not: so it is told who it is, and what to do about it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::types::Json;

use super::{Error, Store, statements};

statements! {
    STORAGE = "storage";
    SNAPSHOT_ALARM = "snapshot_alarm";
}

/// Who keeps dead rows from being removed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Holder {
    /// `session`, `standby`, `slot` or `prepared`.
    pub kind: String,
    /// The server's process; for a slot the one that reads it.
    pub pid: Option<i32>,
    /// What the session says it is; a logical slot's plugin.
    pub application: Option<String>,
    /// As whom it is logged in.
    pub role: Option<String>,
    /// Its address; none over a unix socket.
    pub client: Option<String>,
    /// `active`, `idle in transaction`, ...; `active` or `inactive` for slots.
    pub state: Option<String>,
    /// Of the slot or prepared transaction.
    pub name: Option<String>,
    /// For how long. Slots and standbys do not say: for as long as this gateway
    /// has seen it, at least.
    pub age_seconds: Option<f64>,
    /// Transactions that have begun since.
    pub transactions: i64,
    /// Whether it keeps rows of system tables only.
    pub catalog_only: bool,
    /// The oldest transaction that it may still want to see.
    xmin: Option<String>,
    /// Whether it may be older than that.
    #[serde(default)]
    pub is_older: bool,
}

impl Holder {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let pid = self.pid.unwrap_or_default();
        let name = self.name.as_deref().unwrap_or_default().replace('\'', "''");
        match self.kind.as_str() {
            "prepared" => format!(
                "Nobody has ended this prepared transaction: COMMIT PREPARED '{name}' or ROLLBACK \
                 PREPARED '{name}'."
            ),
            "slot" if self.state.as_deref() == Some("inactive") => format!(
                "Nobody reads this replication slot: start its reader, or SELECT \
                 pg_drop_replication_slot('{name}')."
            ),
            "slot" => "The reader of this replication slot lags, or a standby behind it runs a \
                 long query: end that there."
                .to_owned(),
            "standby" => {
                "A standby with hot_standby_feedback runs a long query: end it there.".to_owned()
            }
            _ if self.state.as_deref() == Some("active") => format!(
                "It runs a long statement: wait for it, or SELECT pg_cancel_backend({pid})."
            ),
            _ => format!(
                "It is idle in a transaction: end that there, or SELECT \
                 pg_terminate_backend({pid}). idle_in_transaction_session_timeout prevents it."
            ),
        }
    }
}

/// A narrow table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct HotTable {
    /// Its name.
    pub name: String,
    /// Rows, about.
    pub live_rows: i64,
    /// Deleted rows that still take room, about.
    pub dead_rows: i64,
    /// With its indexes.
    pub bytes: i64,
    /// Since it was last vacuumed.
    pub vacuumed_seconds_ago: Option<f64>,
}

/// How the storage is.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Who holds snapshots, the oldest first, ten at most; those that keep system
    /// tables only come last.
    pub holders: Vec<Holder>,
    /// The narrow tables.
    pub tables: Vec<HotTable>,
    /// Bytes of log that the whole server has written a second, lately.
    pub wal_bytes_per_second: Option<f64>,
    /// Whether the role may see what sessions of other roles hold.
    pub sees_all: bool,
    /// The role.
    pub role: String,
    /// Since when it has been told that a snapshot is held for too long.
    pub raised_at: Option<DateTime<Utc>>,
    /// When this was so.
    pub checked_at: DateTime<Utc>,
}

impl Storage {
    /// The oldest snapshot that keeps rows of the queues.
    #[must_use]
    pub fn oldest(&self) -> Option<&Holder> {
        let by_age = |a: &&Holder, b: &&Holder| {
            let age = |h: &Holder| h.age_seconds.unwrap_or_default();
            age(a).total_cmp(&age(b))
        };
        let all = self.holders.iter().filter(|holder| !holder.catalog_only);
        all.max_by(by_age)
    }

    /// Its age in seconds; 0 if there is none.
    #[must_use]
    pub fn oldest_snapshot_seconds(&self) -> f64 {
        self.oldest()
            .and_then(|holder| holder.age_seconds)
            .unwrap_or_default()
    }
}

/// Whom a partition waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptFor {
    /// New messages go there, now or soon.
    NewMessages,
    /// Messages that are not settled.
    Messages,
    /// A topic retains its messages.
    Stream,
    /// Nobody: it goes with the next round, as soon as every statement that may
    /// know of it has ended.
    Nobody,
}

/// A partition of the bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct Partition {
    /// Ids of its messages: from this one on,
    pub lo: i64,
    /// and below this one.
    pub hi: i64,
    /// With index and large bodies.
    pub bytes: i64,
    /// Live messages that have their body in it.
    pub alive: i64,
    /// Why it is there.
    pub kept_for: KeptFor,
}

/// What one gateway has seen of the storage.
#[derive(Debug, Default)]
pub(super) struct Observed(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    began: Option<Instant>,
    /// Since when each holder that says no age has held the same.
    since: HashMap<String, Instant>,
    /// Where the log was.
    wal: VecDeque<(Instant, f64)>,
}

/// Over less the rate of the log is not told.
const LEAST: Duration = Duration::from_secs(1);

/// Where the log was is remembered for so long.
const LONGEST: Duration = Duration::from_secs(25);

impl Observed {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Gives an age to those that have none.
    fn age(&mut self, holders: &mut [Holder], now: Instant) {
        let began = *self.began.get_or_insert(now);
        let mut since = HashMap::new();
        for holder in holders.iter_mut().filter(|h| h.age_seconds.is_none()) {
            let Holder {
                kind,
                name,
                pid,
                xmin,
                ..
            } = &holder;
            let key = format!("{kind} {name:?} {pid:?} {xmin:?}");
            let first = self.since.get(&key).copied().unwrap_or(now);
            holder.age_seconds = Some(now.duration_since(first).as_secs_f64());
            holder.is_older = first == began;
            since.insert(key, first);
        }
        self.since = since;
    }

    /// The rate of the log since the oldest place that is remembered.
    fn rate(&mut self, wal: f64, now: Instant) -> Option<f64> {
        self.wal
            .retain(|(at, _)| now.duration_since(*at) <= LONGEST);
        let rate = self.wal.front().and_then(|(at, before)| {
            let over = now.duration_since(*at);
            // It goes back when another server takes over.
            (over >= LEAST && wal >= *before).then(|| (wal - before) / over.as_secs_f64())
        });
        // Far apart, so that asking often does not shorten the memory.
        if self
            .wal
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= LEAST)
        {
            self.wal.push_back((now, wal));
        }
        rate
    }
}

impl Store {
    /// Looks how the storage is.
    ///
    /// # Errors
    /// Any.
    pub async fn storage(&self) -> Result<Storage, Error> {
        let row = sqlx::query(STORAGE).fetch_one(&self.pool).await?;
        let Json(mut holders): Json<Vec<Holder>> = row.try_get("holders")?;
        let Json(tables): Json<Vec<HotTable>> = row.try_get("tables")?;
        let wal: Option<f64> = row.try_get("wal_bytes")?;
        let now = Instant::now();
        let mut seen = self.storage.lock();
        seen.age(&mut holders, now);
        Ok(Storage {
            holders,
            tables,
            wal_bytes_per_second: wal.and_then(|wal| seen.rate(wal, now)),
            sees_all: row.try_get("sees_all")?,
            role: row.try_get("role")?,
            raised_at: row.try_get("raised_at")?,
            checked_at: row.try_get("checked_at")?,
        })
    }

    /// Whether it is to be told now that the oldest snapshot is `threshold` old
    /// or older, or that none is any more: below half of that, so that one that
    /// wavers tells nothing. Of several gateways one tells it.
    ///
    /// # Errors
    /// Any; whether it was noted is then not known.
    pub async fn snapshot_news(
        &self,
        storage: &Storage,
        threshold: u32,
    ) -> Result<Option<bool>, Error> {
        let (age, threshold) = (storage.oldest_snapshot_seconds(), f64::from(threshold));
        let raised = storage.raised_at.is_some();
        // Another gateway may know for how much longer.
        let unsure = storage
            .holders
            .iter()
            .any(|h| h.is_older && !h.catalog_only);
        let raise = if age >= threshold && !raised {
            true
        } else if raised && age * 2.0 < threshold && !unsure {
            false
        } else {
            return Ok(None);
        };
        let row = sqlx::query(SNAPSHOT_ALARM)
            .bind(raise)
            .fetch_one(&self.pool)
            .await?;
        Ok(row.try_get::<bool, _>(0)?.then_some(raise))
    }

    /// The partitions of bodies and why each is there, from the oldest on; live
    /// messages are counted up to `most` in each. A statement, and one or two for
    /// each partition: what is counted changes meanwhile.
    ///
    /// # Errors
    /// Any.
    pub async fn partitions(&self, most: i64) -> Result<Vec<Partition>, Error> {
        let rows = sqlx::query(
            "SELECT lo, hi,
                coalesce(pg_total_relation_size(to_regclass('postrider.messages_' || lo)), 0),
                hi > (SELECT last_value FROM postrider.message_ids)
             FROM postrider.message_partitions ORDER BY lo",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut partitions = Vec::with_capacity(rows.len());
        for row in rows {
            let (lo, hi, is_new) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
            let alive = self.alive(lo, hi, most).await?;
            let kept_for = if is_new {
                KeptFor::NewMessages
            } else if alive > 0 {
                KeptFor::Messages
            } else if self.retains(lo, hi).await? {
                KeptFor::Stream
            } else {
                KeptFor::Nobody
            };
            partitions.push(Partition {
                lo,
                hi,
                bytes: row.try_get(2)?,
                alive,
                kept_for,
            });
        }
        Ok(partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_the_log_is_over_what_is_remembered_of_it() {
        let (mut seen, began) = (Seen::default(), Instant::now());
        for (seconds, wal, rate) in [
            (0.0, 1e6, None),
            // Too short to tell.
            (0.5, 9e6, None),
            (2.0, 9e6, Some(4e6)),
            (10.0, 41e6, Some(4e6)),
            (10.1, 41.4e6, Some(4e6)),
            // The first is forgotten: from the one at 2 s on.
            (26.0, 33e6, Some(1e6)),
            // Another server, whose log is shorter, until the old one's is forgotten.
            (27.0, 1e6, None),
            (50.0, 3.4e6, None),
            (52.0, 3.5e6, Some(1e5)),
        ] {
            let told = seen.rate(wal, began + Duration::from_secs_f64(seconds));
            match (told, rate) {
                (Some(told), Some(rate)) => {
                    assert!((told / rate - 1.0).abs() < 0.01, "{told} at {seconds} s");
                }
                (told, rate) => assert_eq!(told, rate, "at {seconds} s"),
            }
        }
    }
}
