//! Several statements as one: all of them take effect, or none.
//!
//! What runs in a transaction is given as a function, since it may have to run
//! again: a partition was missing and was made, or the database gave the
//! transaction up for another's sake.
//!
//! A future that is dropped in the middle takes its connection with it, and with
//! that the transaction ends without effect; no connection goes back to the pool
//! inside one (transact-rs/sqlx#4393). Nevertheless callers run it in tasks that
//! nobody cancels: what a client wanted done is done, whether it waits or not.
//!
//! A transaction is short: [`LONGEST`] and the time-outs in [`BEGIN`] bound it
//! below [`SETTLING`](super::watermark::SETTLING), on which the watermarks rest.
//! It has a connection of the pool that the workers use, not of the hot paths; and
//! what is looked up meanwhile (a queue, a schema) takes one of the hot paths' for
//! an instant, since there may be no other of the first.

use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;

use super::connect::too_late;
use super::executor::was_cut;
use super::pool::{Pool, Taken};
use super::{Error, Store};

/// Each statement and each pause between two of them ends in time: the positions
/// that a publish has drawn must be committed, or be gone, within a minute.
const BEGIN: &str = "BEGIN;
    SET LOCAL statement_timeout = '10s';
    SET LOCAL lock_timeout = '5s';
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// In a transaction that has failed COMMIT would say that all is well, and roll
/// back; the SELECT fails.
const COMMIT: &str = "SELECT 1; COMMIT";

/// From its beginning to its COMMIT.
const LONGEST: Duration = Duration::from_secs(20);

/// How long the end of one that has failed may take.
const ROLLBACK: Duration = Duration::from_secs(1);

/// How often one that had no effect is run again.
const RETRIES: usize = 3;

/// A transaction that runs.
pub struct Transaction {
    pub(super) store: Store,
    taken: Taken,
}

/// How a transaction is to end.
#[derive(Debug)]
pub enum End<T> {
    /// What it did is to last.
    Commit(T),
    /// It is to be as if it had not been.
    Rollback(T),
}

/// Where a statement runs.
pub(super) enum On<'c> {
    /// By itself: it commits when it ends.
    Alone(&'c Pool),
    /// In a transaction.
    Within(&'c mut PgConnection),
}

impl On<'_> {
    pub(super) async fn fetch_all(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        match self {
            Self::Alone(pool) => query.fetch_all(*pool).await,
            Self::Within(connection) => query.fetch_all(&mut **connection).await,
        }
    }

    /// Whether another statement may be tried where this one failed.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

impl Transaction {
    /// Where its statements run.
    pub(super) fn on(&mut self) -> Result<On<'_>, sqlx::Error> {
        let (connection, _) = self.taken.parts()?;
        Ok(On::Within(connection))
    }

    /// The same, and the store that it is a transaction of.
    pub(super) fn on_store(&mut self) -> Result<(&Store, On<'_>), sqlx::Error> {
        let (connection, _) = self.taken.parts()?;
        Ok((&self.store, On::Within(connection)))
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        let (connection, _) = self.taken.parts()?;
        sqlx::raw_sql(sql).execute(connection).await?;
        Ok(())
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

impl Store {
    /// Runs several statements in one transaction, for who runs it again by itself if
    /// that is an [`Error::Retry`], as batchers do.
    ///
    /// # Errors
    /// Any; of [`Error::Unavailable`] it is not known whether it took effect.
    pub async fn transaction<T: Send>(
        &self,
        work: impl for<'t> Fn(&'t mut Transaction) -> BoxFuture<'t, Result<End<T>, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        self.transaction_within(LONGEST, work).await
    }

    /// The same, and again if it had no effect and may have one next time.
    ///
    /// # Errors
    /// Any.
    pub(super) async fn transaction_again<T: Send>(
        &self,
        work: impl for<'t> Fn(&'t mut Transaction) -> BoxFuture<'t, Result<End<T>, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        let mut retries = 0;
        loop {
            match self.transaction_within(LONGEST, &work).await {
                Err(error) if error.is_retryable() && retries < RETRIES => retries += 1,
                ended => return ended,
            }
        }
    }

    /// The same with another bound from its beginning to its COMMIT, for tests that
    /// cannot wait.
    ///
    /// # Errors
    /// Any.
    pub async fn transaction_within<T: Send>(
        &self,
        longest: Duration,
        work: impl for<'t> Fn(&'t mut Transaction) -> BoxFuture<'t, Result<End<T>, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        match self.try_transaction(longest, &work).await {
            Err(error) if error.is_missing_partition() => {
                // Faster than the worker that makes them ahead of need.
                self.make_partitions().await?;
                self.try_transaction(longest, &work).await
            }
            ended => ended,
        }
    }

    async fn try_transaction<T: Send>(
        &self,
        longest: Duration,
        work: &(
             impl for<'t> Fn(&'t mut Transaction) -> BoxFuture<'t, Result<End<T>, Error>> + Send + Sync
         ),
    ) -> Result<T, Error> {
        let mut transaction = Transaction {
            store: self.clone(),
            taken: self.pool.take().await?,
        };
        let cut = transaction.taken.parts()?.1.clone();
        let steps = tokio::time::timeout(longest, async {
            transaction.run(BEGIN).await?;
            let end = match work(&mut transaction).await {
                Ok(end) => end,
                Err(error) => return Ok(Err(error)),
            };
            let (end, ended) = match end {
                End::Commit(done) => (COMMIT, done),
                End::Rollback(refused) => ("ROLLBACK", refused),
            };
            transaction.run(end).await?;
            Ok(Ok(ended))
        });
        let result = tokio::select! {
            biased;
            result = steps => result,
            () = cut.cancelled() => Ok(Err(was_cut())),
        };
        let Ok(result) = result else {
            // The server is there, and at work on it. Only this connection is in the
            // middle of something: dropped, it is thrown away.
            return Err(too_late().into());
        };
        match result {
            Ok(Ok(ended)) => {
                transaction.taken.end(Ok(()))?;
                Ok(ended)
            }
            Ok(Err(error)) => {
                transaction.give_up(&error).await;
                Err(error)
            }
            // Nobody knows what the connection would answer next.
            Err(error) => {
                transaction.taken.lost(&error);
                Err(error.into())
            }
        }
    }
}

impl Transaction {
    /// Ends one that has failed at some statement, and gives the connection back if
    /// it is worth it.
    async fn give_up(mut self, error: &Error) {
        if let Some(source) = error.database()
            && self.taken.is_lost(source)
        {
            self.taken.lost(source);
            return;
        }
        let left = match tokio::time::timeout(ROLLBACK, self.run("ROLLBACK")).await {
            Ok(rolled_back) => self.taken.end(rolled_back),
            // Dropped, this connection is thrown away, and no other.
            Err(_) => Err(too_late()),
        };
        if let Err(error) = left {
            tracing::debug!(%error, "a transaction was left to its connection's end");
        }
    }
}
