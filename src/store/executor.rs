//! A [`Pool`] as sqlx runs statements on it.

use std::pin::Pin;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Either, Execute, Executor, SqlStr};

use super::pool::Pool;

/// What a statement fails with whose connection was cut.
pub(super) fn was_cut() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the connection to the database has gone silent",
    ))
}

/// Runs a method of [`Executor`] on a connection of the pool.
macro_rules! on_a_connection {
    ($pool:expr, |$connection:ident| $work:expr) => {{
        let pool = $pool.clone();
        async move {
            let mut taken = pool.take().await?;
            let result = {
                let ($connection, cut) = taken.parts()?;
                tokio::select! {
                    biased;
                    result = $work => result,
                    () = cut.cancelled() => Err(was_cut()),
                }
            };
            taken.end(result)
        }
    }};
}

type Answer<'e, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'e>>;
type Stream<'e, T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, sqlx::Error>> + Send + 'e>>;

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    /// All at once: nothing here reads more rows than fit into memory.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Stream<'e, Either<PgQueryResult, PgRow>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let all = on_a_connection!(self, |connection| connection
            .fetch_many(query)
            .try_collect::<Vec<_>>());
        Box::pin(
            stream::once(all)
                .map_ok(|all| stream::iter(all).map(Ok))
                .try_flatten(),
        )
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> Answer<'e, Vec<PgRow>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(on_a_connection!(self, |connection| connection.fetch_all(query)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> Answer<'e, Option<PgRow>>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(on_a_connection!(self, |connection| connection.fetch_optional(query)))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> Answer<'e, PgStatement>
    where
        'p: 'e,
    {
        Box::pin(on_a_connection!(self, |connection| connection.prepare_with(sql, parameters)))
    }
}
