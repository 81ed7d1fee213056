//! How much was read, as Postgres counts it.

use super::{Database, eventually};

impl Database {
    /// The server's processes for gateways and stores.
    pub(crate) async fn sessions(&self) -> Vec<i32> {
        sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'postrider'",
        )
        .fetch_all(&mut self.connect().await)
        .await
        .unwrap()
    }

    /// Entries of these tables' indexes that were read, ever, and rows that were read
    /// without one. Ends the gateways' sessions: they tell of theirs when they end.
    pub(crate) async fn entries_read(&self, tables: &[&str]) -> i64 {
        let mut admin = self.connect().await;
        let ended = self.sessions().await;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM unnest($1) AS session (pid)")
            .bind(&ended)
            .execute(&mut admin)
            .await
            .unwrap();
        eventually("they have ended", async || {
            let left: i64 =
                sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)")
                    .bind(&ended)
                    .fetch_one(&mut admin)
                    .await
                    .unwrap();
            left == 0
        })
        .await;
        sqlx::query_scalar(
            "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes
                    WHERE schemaname = 'postrider' AND relname = ANY($1))::bigint
                + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables
                    WHERE schemaname = 'postrider' AND relname = ANY($1))::bigint",
        )
        .bind(tables)
        .fetch_one(&mut self.connect().await)
        .await
        .unwrap()
    }
}
