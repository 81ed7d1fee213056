//! Locks that tests hold, and statements that wait for them.

use sqlx::PgConnection;

use super::{Database, eventually};
use crate::store::number;

/// A lock that is held until it is let go. Statements that wait for it give up after
/// ten seconds.
pub(crate) struct Held(PgConnection);

impl Held {
    /// On a table, in a mode as `LOCK TABLE` has it.
    pub(crate) async fn table(database: &Database, table: &str, mode: &str) -> Self {
        Self::by(
            database,
            &format!("LOCK TABLE postrider.{table} IN {mode} MODE"),
        )
        .await
    }

    /// What this statement locks.
    pub(crate) async fn by(database: &Database, sql: &str) -> Self {
        let mut connection = database.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {sql}")))
            .execute(&mut connection)
            .await
            .unwrap();
        Self(connection)
    }

    pub(crate) async fn let_go(mut self) {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut self.0)
            .await
            .unwrap();
    }
}

impl Database {
    /// How many statements that begin so wait for a lock: those of the `.sql` files
    /// do with a comment that names them.
    pub(crate) async fn stuck(&self, beginning: &str) -> i64 {
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'
               AND starts_with(query, '{beginning}')"
        );
        number(self, waiting).await
    }

    /// Waits until there are so many.
    pub(crate) async fn until_stuck(&self, beginning: &str, count: i64) {
        eventually("statements are stuck", async || {
            self.stuck(beginning).await == count
        })
        .await;
    }
}
