//! Whether the database is there, and what to do when a connection to it is not.
//!
//! A network that is cut without a word leaves connections on which nothing ever
//! comes: no error, for a quarter of an hour or for ever. Statements would wait on
//! them, and with them everything that is batched behind. So a watchdog
//! ([`Store::watch`]) looks once a second, in memory, for statements that take
//! long, and only if there are any asks the server, over a new connection,
//! whether it still works on them. A statement that it does not work on gets no
//! answer any more: the wait ends with an error, and the pools are thrown away,
//! since what has killed one connection has killed those that rest.
//!
//! If the server cannot even be asked, twice, it is away, and so are all its
//! connections. A server that is merely slow (a lock, a disk) answers that it is
//! at work, and is left to it; statements' own time-outs end that.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::Mutex;

use super::connect::{self, in_time};
use super::pool::{Pool, Stuck};
use super::{Error, Store};

/// A statement that takes longer is asked after.
const LONG: Duration = Duration::from_secs(2);

/// Longer than anything that the server's time-outs allow, which count for each
/// statement of those that are sent together: whatever it says, no answer will
/// come.
const TOO_LONG: Duration = Duration::from_mins(2);

/// How long the server may take to say how it is: who asks for readiness does not
/// wait for long.
const ASKING: Duration = Duration::from_secs(2);

/// How long it may take to say what it works on.
const WATCHING: Duration = Duration::from_secs(3);

/// How long the probe's connection may take to show that it lives, before another
/// is made.
const PING: Duration = Duration::from_millis(500);

/// Before the server is asked once more: a statement may just be arriving.
const AGAIN: Duration = Duration::from_millis(300);

/// A connection that asks how the server is, beside the pools: whatever those
/// are busy with or stuck in, it answers.
#[derive(Debug, Default)]
pub(super) struct Probe(Mutex<Option<PgConnection>>);

impl Probe {
    pub(super) async fn close(&self) {
        if let Some(connection) = self.0.lock().await.take() {
            // It is dead already, or dies of this.
            let _ = connection.close().await;
        }
    }
}

impl Store {
    /// Whether the database can be written to; its version, such as `17.2`.
    /// Answers within two seconds, whatever the pools are stuck in.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::ReadOnly`].
    pub async fn ready(&self) -> Result<String, Error> {
        let row = in_time(ASKING, async {
            let mut place = self.probe.0.lock().await;
            // Out of its place: if this is dropped half-way, so is that.
            let rested = match place.take() {
                Some(mut connection) => {
                    let alive = in_time(PING, connection.ping()).await.is_ok();
                    alive.then_some(connection)
                }
                None => None,
            };
            let mut connection = match rested {
                Some(connection) => connection,
                None => connect::connect(self.pool.options()).await?.0,
            };
            let row = sqlx::query(
                "SELECT current_setting('server_version'),
                    current_setting('transaction_read_only')::boolean",
            )
            .fetch_one(&mut connection)
            .await?;
            // After a fail-over a new connection may find the new primary.
            if !row.try_get(1)? {
                *place = Some(connection);
            }
            Ok(row)
        })
        .await?;
        if row.try_get(1)? {
            return Err(Error::ReadOnly);
        }
        Ok(row.try_get(0)?)
    }

    /// Looks for statements that no answer will come to, and ends the wait for
    /// them. How many there were. To be called once a second; without such
    /// statements it asks the database nothing.
    pub async fn watch(&self) -> usize {
        let pools = [&self.pool, &self.hot];
        let long = stuck(&pools, LONG);
        if long.is_empty() {
            return 0;
        }
        let mut dead = self.without_answer(&long).await;
        if !dead.is_empty() {
            // The answer may be here and not yet read, or the statement on its way.
            tokio::time::sleep(AGAIN).await;
            let still = stuck(&pools, LONG);
            dead.retain(|one| still.iter().any(|other| other.ticket == one.ticket));
            dead = self.without_answer(&dead).await;
        }
        if dead.is_empty() {
            return 0;
        }
        tracing::warn!(
            statements = dead.len(),
            "connections to the database have gone silent: all are replaced"
        );
        for pool in pools {
            pool.renew();
            pool.cut(&dead);
        }
        dead.len()
    }

    /// Which of these statements the server does not work on, or has for too long.
    async fn without_answer(&self, statements: &[Stuck]) -> Vec<Stuck> {
        if statements.is_empty() {
            return Vec::new();
        }
        let pids: Vec<i32> = statements.iter().map(|one| one.pid).collect();
        let running = sqlx::query(
            // State is null where activities are not tracked.
            "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
             WHERE pid = ANY($1) AND application_name = 'postrider'
               AND state IS DISTINCT FROM 'idle'",
        )
        .bind(pids);
        // Not the probe's connection: whoever asks for readiness would wait for
        // this, which may take longer.
        let asking = async {
            let (mut connection, _) = connect::connect(self.pool.options()).await?;
            let row = running.fetch_one(&mut connection).await?;
            // Closed or not, the answer is there.
            let _ = connection.close().await;
            Ok(row)
        };
        let running: Option<Vec<i32>> = match in_time(WATCHING, asking).await {
            Ok(row) => row.try_get(0).ok(),
            // Nobody there, so nobody at work.
            Err(sqlx::Error::Io(_)) => Some(Vec::new()),
            // It said something, so it is there.
            Err(error) => {
                tracing::debug!(%error, "the database did not say what it works on");
                None
            }
        };
        let without = |one: &&Stuck| {
            let idle = running
                .as_ref()
                .is_some_and(|pids| !pids.contains(&one.pid));
            idle || one.age > TOO_LONG
        };
        statements.iter().filter(without).copied().collect()
    }
}

fn stuck(pools: &[&Pool], longer: Duration) -> Vec<Stuck> {
    pools.iter().flat_map(|pool| pool.stuck(longer)).collect()
}
