//! What is in Postgres: looked at behind the interface.

mod connections;
mod deletion;
mod lanes;
mod midnight;
mod partitions;
mod plans;
mod priorities;
mod pushes;
mod rotation;
mod schema;
mod seen;
mod snapshots;
mod streams;
mod ten_million;
mod topic_wal;
mod watermarks;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::support::Database;

/// What was moved to stragglers was moved so long ago that prune may take it.
pub(crate) const A_MINUTE_LATER: &str =
    "UPDATE postrider.stragglers SET touched_at = touched_at - interval '61 s'";

/// Runs a statement behind the gateways' backs; answers with the rows it
/// touched.
pub(crate) async fn execute(database: &Database, sql: impl Into<String>) -> u64 {
    sqlx::query(sqlx::AssertSqlSafe(sql.into()))
        .execute(&mut database.connect().await)
        .await
        .unwrap()
        .rows_affected()
}

/// Asks for one number.
pub(crate) async fn number(database: &Database, sql: impl Into<String>) -> i64 {
    let (number,): (i64,) = sqlx::query_as(sqlx::AssertSqlSafe(sql.into()))
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    number
}

/// The internal id of a queue.
pub(crate) async fn queue_id(database: &Database, queue: &str) -> i64 {
    number(
        database,
        format!("SELECT id FROM postrider.queues WHERE name = '{queue}'"),
    )
    .await
}

/// The number in a message's id.
pub(crate) fn message_id(id: &str) -> i64 {
    postrider::domain::MessageId::parse(id).unwrap().0
}

/// A time in an answer.
#[track_caller]
pub(crate) fn time(value: &Value) -> DateTime<Utc> {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("not a time: {value}"));
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// Seconds from one time in an answer to another.
#[track_caller]
pub(crate) fn seconds_between(earlier: &Value, later: &Value) -> f64 {
    (time(later) - time(earlier)).as_seconds_f64()
}
