//! `GET /v1/health/storage`: how the storage is, and what to do about it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::{NoParams, Query};
use super::problem::Problem;
use super::{SharedGateway, reply};
use crate::domain::MessageId;
use crate::store::{Holder, HotTable, KeptFor, Partition, Storage};

/// Dead rows of the narrow tables that are more than what a vacuum every few
/// seconds leaves. There is no event of them: whoever keeps them is told of as
/// `storage.snapshot_held`, and their number is the metric `postrider_dead_rows`.
const DEAD_ROWS: i64 = 1_000_000;

/// Live messages are counted so far in each partition.
const COUNTED: i64 = 10_000;

/// How the storage is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StorageHealth {
    /// `ok`, or `warning` if something threatens the queues.
    status: StorageStatus,
    /// What does, in words, and what to do about it.
    warnings: Vec<String>,
    /// What could not be seen, and how to let the gateway see it.
    notes: Vec<String>,
    /// Who keeps dead rows from being removed for the longest time; null if nobody
    /// does, or nobody that can be seen.
    oldest_snapshot: Option<Snapshot>,
    /// Whoever does, at most ten; those that keep rows of system tables only come
    /// last.
    snapshots: Vec<Snapshot>,
    /// Since when `storage.snapshot_held` has been told; null if it is not so.
    snapshot_warned_at: Option<DateTime<Utc>>,
    /// The narrow tables, which change with every call.
    tables: Vec<Table>,
    /// Where the bodies are, the oldest first.
    partitions: Vec<BodyPartition>,
    /// Bytes of write-ahead log that the whole server writes a second, over the
    /// last 25 seconds at most; null if it has not been watched for long enough.
    #[schema(example = 1_250_000.0)]
    wal_bytes_per_second: Option<f64>,
    /// When this was so.
    checked_at: DateTime<Utc>,
}

/// In one word.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StorageStatus {
    Ok,
    Warning,
}

/// Somebody who holds a snapshot or a transaction.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Snapshot {
    /// `session`; `standby` (one with `hot_standby_feedback`); `slot` (of
    /// replication); `prepared` (a prepared transaction).
    #[schema(example = "session")]
    kind: String,
    /// The server's process; of a slot the one that reads it.
    pid: Option<i32>,
    /// What the session calls itself; of a logical slot its plugin.
    #[schema(example = "psql")]
    application: Option<String>,
    /// The role that it is logged in as.
    user: Option<String>,
    /// Its address; null over a unix socket.
    client: Option<String>,
    /// What it does, as `pg_stat_activity` has it; of a slot `active` or
    /// `inactive`.
    #[schema(example = "idle in transaction")]
    state: Option<String>,
    /// The name of the slot or prepared transaction.
    name: Option<String>,
    /// For how long. Slots and standbys do not say: since this gateway has seen it.
    age_seconds: Option<f64>,
    /// Transactions that have begun since.
    transactions: i64,
    /// Whether it keeps rows of system tables only, and none of the queues'.
    catalog_only: bool,
    /// What to do if it is too old.
    what_to_do: String,
}

/// A narrow table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Table {
    /// Its name.
    #[schema(example = "ready")]
    name: String,
    /// Rows, as Postgres' statistics have it.
    live_rows: i64,
    /// Deleted rows that still take room, as Postgres' statistics have it.
    dead_rows: i64,
    /// Its size with its indexes.
    bytes: i64,
    /// Since it was last vacuumed.
    vacuumed_seconds_ago: Option<f64>,
}

/// A partition of the bodies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BodyPartition {
    /// The table's name.
    #[schema(example = "messages_1000000")]
    name: String,
    /// The first id that belongs in it.
    #[schema(value_type = String)]
    first_id: MessageId,
    /// Its size with index and large bodies.
    bytes: i64,
    /// Live messages whose body is in it; counted up to 10,000.
    alive: i64,
    /// Why it is there: `new_messages` (they go there, now or soon), `messages`
    /// (that are not settled), `stream` (a topic retains them), `nobody` (it is
    /// dropped within seconds).
    kept_for: KeptForName,
}

/// Why a partition is there.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KeptForName {
    NewMessages,
    Messages,
    Stream,
    Nobody,
}

/// How the storage is
///
/// Who holds a snapshot, which keeps dead rows from being removed; the tables that
/// suffer from it; why each partition of bodies is still there; how much is written
/// to the write-ahead log. Counts live messages, so ask it now and then, not every
/// second.
#[utoipa::path(
    get, path = "/v1/health/storage", tag = "Operations",
    responses((status = 200, description = "How it is", body = StorageHealth)),
)]
pub(crate) async fn storage_health(
    State(gateway): State<SharedGateway>,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let store = gateway.broker.store();
    let storage = store.storage().await?;
    let partitions = store.partitions(COUNTED).await?;
    let warnings = warnings(&storage, gateway.snapshot_age_warning);
    let health = StorageHealth {
        status: if warnings.is_empty() {
            StorageStatus::Ok
        } else {
            StorageStatus::Warning
        },
        warnings,
        notes: notes(&storage),
        oldest_snapshot: storage.oldest().map(Snapshot::from),
        snapshots: storage.holders.iter().map(Snapshot::from).collect(),
        snapshot_warned_at: storage.raised_at,
        tables: storage.tables.iter().map(Table::from).collect(),
        partitions: partitions.iter().map(BodyPartition::from).collect(),
        wal_bytes_per_second: storage.wal_bytes_per_second,
        checked_at: storage.checked_at,
    };
    Ok(reply(StatusCode::OK, &health))
}

fn warnings(storage: &Storage, threshold: u32) -> Vec<String> {
    let mut warnings = Vec::new();
    let age = storage.oldest_snapshot_seconds();
    if let Some(holder) = storage.oldest()
        && age >= f64::from(threshold)
    {
        let who = match (&holder.name, holder.pid) {
            (Some(name), _) => format!("\"{name}\""),
            (None, Some(pid)) => format!("{pid}"),
            (None, None) => String::new(),
        };
        let application = holder.application.as_deref().unwrap_or_default();
        warnings.push(format!(
            "The {kind} {who} ({application}) has held a snapshot for {age:.0} s. Rows that were \
             deleted since cannot be removed, and the tables grow. {what_to_do}",
            kind = holder.kind,
            what_to_do = holder.remedy(),
        ));
    }
    let dead: i64 = storage.tables.iter().map(|table| table.dead_rows).sum();
    if dead > DEAD_ROWS {
        warnings.push(format!(
            "The narrow tables have {dead} dead rows. Somebody holds a snapshot, or the role \
             \"{}\" may not VACUUM them.",
            storage.role
        ));
    }
    warnings
}

fn notes(storage: &Storage) -> Vec<String> {
    let mut notes = Vec::new();
    if !storage.sees_all {
        notes.push(format!(
            "Snapshots of other roles' sessions are not seen: GRANT pg_monitor TO \"{}\".",
            storage.role
        ));
    }
    notes
}

impl From<&Holder> for Snapshot {
    fn from(holder: &Holder) -> Self {
        let what_to_do = holder.remedy();
        let Holder {
            kind,
            pid,
            application,
            role,
            client,
            state,
            name,
            age_seconds,
            transactions,
            catalog_only,
            ..
        } = holder.clone();
        Self {
            kind,
            pid,
            application,
            user: role,
            client,
            state,
            name,
            age_seconds,
            transactions,
            catalog_only,
            what_to_do,
        }
    }
}

impl From<&HotTable> for Table {
    fn from(table: &HotTable) -> Self {
        let HotTable {
            name,
            live_rows,
            dead_rows,
            bytes,
            vacuumed_seconds_ago,
        } = table.clone();
        Self {
            name,
            live_rows,
            dead_rows,
            bytes,
            vacuumed_seconds_ago,
        }
    }
}

impl From<&Partition> for BodyPartition {
    fn from(partition: &Partition) -> Self {
        Self {
            name: format!("messages_{}", partition.lo),
            first_id: MessageId(partition.lo),
            bytes: partition.bytes,
            alive: partition.alive,
            kept_for: match partition.kept_for {
                KeptFor::NewMessages => KeptForName::NewMessages,
                KeptFor::Messages => KeptForName::Messages,
                KeptFor::Stream => KeptForName::Stream,
                KeptFor::Nobody => KeptForName::Nobody,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The narrow tables with so many dead rows each.
    fn with_dead_rows(dead: &[i64]) -> Storage {
        let table = |dead_rows: &i64| HotTable {
            name: "ready".to_owned(),
            live_rows: 0,
            dead_rows: *dead_rows,
            bytes: 0,
            vacuumed_seconds_ago: None,
        };
        Storage {
            holders: Vec::new(),
            tables: dead.iter().map(table).collect(),
            wal_bytes_per_second: None,
            sees_all: true,
            role: "gateway".to_owned(),
            raised_at: None,
            checked_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn more_than_a_million_dead_rows_in_all_tables_are_warned_of() {
        assert_eq!(warnings(&with_dead_rows(&[400_000, 600_000]), 300).len(), 0);
        let warned = warnings(&with_dead_rows(&[400_000, 600_001]), 300);
        assert_eq!(warned.len(), 1, "{warned:?}");
        for said in ["1000001 dead rows", "\"gateway\""] {
            assert!(warned[0].contains(said), "{warned:?}");
        }
    }
}
