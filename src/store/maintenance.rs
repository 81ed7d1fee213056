//! What keeps the tables from filling up with what nobody needs.

use std::time::Instant;

use sqlx::Row as _;

use super::{CONNECT, Error, Store, connect, statements};
use crate::metrics::DEAD_ROW_TABLES;

statements! {
    EXPIRE = "expire";
    PRUNE_STRAGGLERS = "prune_stragglers";
    PRUNE_DEAD = "prune_dead";
    PRUNE_DELETED = "prune_deleted";
}

impl Store {
    /// Rows handled by one statement.
    const ROWS: i64 = 1000;

    /// Makes messages due whose time to live has passed while nobody received
    /// them. Answers with their queues, and with those in which keys have lines.
    ///
    /// # Errors
    /// Any.
    pub async fn expire(&self) -> Result<(Vec<i64>, Vec<i64>), Error> {
        let (queue_ids, priorities, floors) = self.watermarks.columns(true, i64::MAX);
        let rows = sqlx::query(EXPIRE)
            .bind(Self::ROWS)
            .bind(queue_ids)
            .bind(priorities)
            .bind(floors)
            .fetch_all(&self.pool)
            .await?;
        let (mut expired, mut with_lines) = (Vec::new(), Vec::new());
        for row in rows {
            if row.try_get(1)? {
                with_lines.push(row.try_get(0)?);
            } else {
                expired.push(row.try_get(0)?);
            }
        }
        Ok((expired, with_lines))
    }

    /// Removes stragglers' bodies that no live message needs, dead letters past
    /// their retention, what deleted queues have left, and claims that are over.
    /// Whether there may be more.
    ///
    /// # Errors
    /// Any.
    pub async fn prune(&self) -> Result<bool, Error> {
        let mut more = false;
        for statement in [PRUNE_STRAGGLERS, PRUNE_DEAD, PRUNE_DELETED] {
            let row = sqlx::query(statement)
                .bind(Self::ROWS)
                .fetch_one(&self.pool)
                .await?;
            more |= row.try_get::<i64, _>(0)? >= Self::ROWS;
        }
        more |= self.prune_claims(Self::ROWS).await? >= Self::ROWS;
        sqlx::query(
            "DELETE FROM postrider.deleted_queues WHERE deleted_at < now() - interval '1 hour'",
        )
        .execute(&self.pool)
        .await?;
        Ok(more)
    }

    /// Dead rows of the narrow tables, as Postgres' statistics have it.
    ///
    /// # Errors
    /// Any.
    pub async fn hot_dead_rows(&self) -> Result<i64, Error> {
        let rows = sqlx::query(
            "SELECT pg_stat_get_dead_tuples(('postrider.' || t.name)::regclass)
             FROM unnest($1::text[]) WITH ORDINALITY AS t (name, ord)
             ORDER BY t.ord",
        )
        .bind(&DEAD_ROW_TABLES[..])
        .fetch_all(&self.pool)
        .await?;
        let mut sum = 0;
        for (row, gauge) in rows.iter().zip(&self.metrics.dead_rows) {
            let dead: i64 = row.try_get(0)?;
            gauge.set(dead);
            sum += dead;
        }
        Ok(sum)
    }

    /// Whether a statement of this gateway has found the disk full since this was
    /// last asked: then every page that a vacuum can free is wanted.
    #[must_use]
    pub fn was_full(&self) -> bool {
        // Both, so that neither remembers.
        let full = [self.pool.was_full(), self.hot.was_full()];
        full.contains(&true)
    }

    /// Vacuums the narrow tables, without cost delay and without truncation
    /// (which would lock them). One gateway at a time; whether it was this one.
    ///
    /// # Errors
    /// Any; [`Error::Inconsistent`] where the role may not vacuum.
    pub async fn vacuum_hot_tables(&self) -> Result<bool, Error> {
        // Session-level, on a connection of its own that is closed afterwards:
        // VACUUM cannot run in a transaction.
        let connecting = connect::connect(self.pool.options());
        let (mut connection, _) = connect::in_time(CONNECT, connecting).await?;
        let row = sqlx::query("SELECT pg_try_advisory_lock(hashtext('postrider vacuum'))")
            .fetch_one(&mut connection)
            .await?;
        if !row.try_get::<bool, _>(0)? {
            return Ok(false);
        }
        let began = Instant::now();
        sqlx::raw_sql("SET statement_timeout = '10min'; SET vacuum_cost_delay = 0")
            .execute(&mut connection)
            .await?;
        for table in DEAD_ROW_TABLES {
            let vacuum = format!("VACUUM (TRUNCATE false) postrider.{table}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(vacuum))
                .execute(&mut connection)
                .await?;
        }
        sqlx::Connection::close(connection).await?;
        self.metrics.vacuums.increment(1);
        self.metrics.vacuum_seconds.record_time(began.elapsed());
        Ok(true)
    }
}
