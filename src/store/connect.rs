//! One connection to the database, ready to be used.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::{ConnectOptions, SESSION};

/// A connection with the session's settings, and the server's process.
pub(super) async fn connect(options: &ConnectOptions) -> Result<(PgConnection, i32), sqlx::Error> {
    let mut raw = PgConnection::connect_with(options).await?;
    let row = sqlx::raw_sql(SESSION).fetch_one(&mut raw).await?;
    let pid = row.try_get(0)?;
    Ok((raw, pid))
}

/// Ends a wait with an error of the network's kind.
pub(super) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(too_late()))
}

/// What did not end in time fails with this.
pub(super) fn too_late() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time").into()
}
