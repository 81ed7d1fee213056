//! The SQL door: messages that are published by a function, in a transaction of
//! the caller's own.

mod calls;
mod long;
mod ordered;
mod publish;
mod races;
mod refused;
mod roles;
mod stale;
mod woken;

use sqlx::{PgConnection, Row as _};

use crate::support::Database;

/// Runs SQL on a connection.
async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

/// What a statement is refused with: SQLSTATE, message, detail and hint.
async fn refusal(connection: &mut PgConnection, sql: &str) -> (String, String, String, String) {
    let statement = sqlx::AssertSqlSafe(sql.to_owned());
    let error = sqlx::raw_sql(statement)
        .execute(connection)
        .await
        .err()
        .unwrap_or_else(|| panic!("{sql} was not refused"));
    let error = error.into_database_error().unwrap();
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    (
        error.code().to_owned(),
        error.message().to_owned(),
        error.detail().unwrap_or_default().to_owned(),
        error.hint().unwrap_or_default().to_owned(),
    )
}

/// Rows of `door` and of `door_refused`.
async fn rows(database: &Database) -> (i64, i64) {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM postrider.door),
            (SELECT count(*) FROM postrider.door_refused)",
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    (row.get(0), row.get(1))
}
