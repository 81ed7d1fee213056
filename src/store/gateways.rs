//! Gateways knowing of each other, and what they tell each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{CONNECT, Error, SESSION, Store, connect};

/// The channel that all gateways listen on.
const CHANNEL: &str = "postrider_ready";

/// After so long without a word the connection is tried: it may be dead, and
/// nothing else would ever tell.
const QUIET: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const ASKING: Duration = Duration::from_secs(5);

impl Store {
    /// Says that this gateway lives and how many receivers wait here; whether
    /// other gateways live too. Reads the version of the API keys along.
    ///
    /// # Errors
    /// Any.
    pub async fn heartbeat(
        &self,
        gateway_id: i64,
        waiting: &HashMap<i64, usize>,
    ) -> Result<bool, Error> {
        let asked = Instant::now();
        let row = sqlx::query(
            "WITH beat AS (
                INSERT INTO postrider.gateways (id, waiting) VALUES ($1, $2)
                ON CONFLICT (id) DO UPDATE SET seen_at = now(), waiting = excluded.waiting
             ), gone AS (
                DELETE FROM postrider.gateways
                WHERE seen_at < now() - interval '1 day' AND id <> $1
             )
             SELECT EXISTS (
                SELECT FROM postrider.gateways
                WHERE id <> $1 AND seen_at > now() - interval '10 s'),
                (SELECT keys_version FROM postrider.cluster)",
        )
        .bind(gateway_id)
        .bind(sqlx::types::Json(waiting))
        .fetch_one(&self.pool)
        .await?;
        self.keys_version.note(row.try_get(1)?, asked);
        Ok(row.try_get(0)?)
    }

    /// Takes this gateway off the list.
    ///
    /// # Errors
    /// Any.
    pub async fn farewell(&self, gateway_id: i64) -> Result<(), Error> {
        sqlx::query("DELETE FROM postrider.gateways WHERE id = $1")
            .bind(gateway_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tells the other gateways that these queues have messages ready; none is
    /// a greeting. A hint: it may be lost.
    ///
    /// # Errors
    /// Any.
    pub async fn announce(&self, gateway_id: i64, queue_ids: &[i64]) -> Result<(), Error> {
        // A payload holds 8,000 bytes; 300 ids of 20 digits fit.
        for some in queue_ids
            .chunks(300)
            .chain(queue_ids.is_empty().then_some(&[][..]))
        {
            let ids: Vec<String> = some.iter().map(i64::to_string).collect();
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(format!("{gateway_id}:{}", ids.join(",")))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Listens to the other gateways, on a connection of its own.
    ///
    /// # Errors
    /// Any.
    pub async fn announcements(&self, gateway_id: i64) -> Result<Announcements, Error> {
        let session = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(SESSION).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.pool.options().clone());
        let mut listener = PgListener::connect_with(&session).await?;
        listener.listen(CHANNEL).await?;
        Ok(Announcements {
            listener,
            gateway_id,
        })
    }
}

/// What other gateways tell.
#[derive(Debug)]
pub struct Announcements {
    listener: PgListener,
    gateway_id: i64,
}

impl Announcements {
    /// The next announcement of another gateway: its queues, none for a
    /// greeting. `None` when the connection was lost in between: what was said
    /// meanwhile is lost.
    ///
    /// # Errors
    /// Any; the caller connects anew.
    pub async fn next(&mut self) -> Result<Option<Vec<i64>>, Error> {
        loop {
            // Reading is all it does, so it can be broken off.
            let Ok(heard) = tokio::time::timeout(QUIET, self.listener.try_recv()).await else {
                let asking = sqlx::raw_sql("SELECT 1").execute(&mut self.listener);
                connect::in_time(ASKING, asking).await?;
                continue;
            };
            let Some(notification) = heard? else {
                return Ok(None);
            };
            let (from, ids) = notification.payload().split_once(':').unwrap_or_default();
            if from != self.gateway_id.to_string() {
                return Ok(Some(
                    ids.split(',').filter_map(|id| id.parse().ok()).collect(),
                ));
            }
        }
    }
}
