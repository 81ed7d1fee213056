//! One connection to the database, ready to be used.

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

/// Whether the server may let us in a moment later.
pub(super) fn is_worth_waiting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(database) => {
            // It is starting or stopping; too many clients.
            matches!(
                database.code().as_deref(),
                Some("57P01" | "57P02" | "57P03" | "53300")
            )
        }
        _ => false,
    }
}
