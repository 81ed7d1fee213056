//! What the database can answer instead of what was asked: the one place where
//! errors of Postgres and of the driver are sorted, by what can be done.
//!
//! Two questions, and [`judge`] answers both. What does the caller do:
//!
//! | kind | means | answer |
//! | --- | --- | --- |
//! | [`Retry`](Error::Retry) | it had no effect; run it again | 503 if that fails too |
//! | [`Unavailable`](Error::Unavailable) | away, starting, busy, read-only | 503 `database-unavailable` |
//! | [`Unavailable`](Error::Unavailable), refused | the configuration may be wrong | the end at the start, 503 later |
//! | [`StorageFull`](Error::StorageFull) | no room left | 503 `storage-full` |
//! | [`Inconsistent`](Error::Inconsistent) | a bug, or a strange schema | 500 |
//!
//! And what becomes of the connection: it goes back to the pool, or it is thrown
//! away, or all that rest are thrown away with it ([`Connection`]).
//!
//! A connection that is found dead before anything was sent is not an error
//! here: the [pool](super::pool) opens another.

use std::sync::Arc;

/// A store error. Cheap to clone: one failed statement answers every request
/// that was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database is away, starting, read-only or out of connections: try
    /// again. Whether a write took effect is not known.
    #[error("the database is unavailable: {0}")]
    Unavailable(Arc<sqlx::Error>),
    /// The database takes no writes: a standby, or set so.
    #[error("the database is read-only")]
    ReadOnly,
    /// The statement was given up for another's sake (a deadlock, for instance).
    /// It had no effect and may be run again.
    #[error("the database gave the statement up: {0}")]
    Retry(Arc<sqlx::Error>),
    /// The database's disk is full.
    #[error("the database is out of disk space: {0}")]
    StorageFull(Arc<sqlx::Error>),
    /// The gateway has more requests in hand than it may keep.
    #[error("too many requests are waiting for the database")]
    Overloaded,
    /// Somebody else changed it at the same time.
    #[error("the resource was changed at the same time")]
    Conflict,
    /// The queue has messages, and this setting changes only while it has none.
    #[error("the queue is not empty")]
    NotEmpty,
    /// Anything else: a bug, or a schema that somebody changed.
    #[error("the database answered with an error: {0}")]
    Inconsistent(Arc<sqlx::Error>),
    /// The code that ran the statement panicked; what the statement did is not
    /// known.
    #[error("the gateway has a bug: its log says where")]
    Panicked,
    /// The server is older than what the statements need.
    #[error("Postgres {0} is too old: Postrider needs 14 or newer")]
    TooOld(String),
    /// Migrations could not be applied.
    #[error("the schema could not be brought up to date: {0}")]
    Migrate(Arc<sqlx::migrate::MigrateError>),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let kind = judge(&error).0;
        let error = Arc::new(error);
        match kind {
            Kind::Retry => Self::Retry(error),
            Kind::Unavailable | Kind::Refused => Self::Unavailable(error),
            Kind::Full => Self::StorageFull(error),
            Kind::Inconsistent => Self::Inconsistent(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
        match error {
            Execute(error) => error.into(),
            // Each is a transaction, and tried again as a whole.
            ExecuteMigration(error, _) if judge(&error).0 != Kind::Inconsistent => error.into(),
            other => Self::Migrate(Arc::new(other)),
        }
    }
}

impl Error {
    /// Whether a table lacks the partition a row belongs in: the remedy is to
    /// make it and try again.
    #[must_use]
    pub fn is_missing_partition(&self) -> bool {
        matches!(self, Self::Inconsistent(e) if sqlstate(e).as_deref() == Some("23514")
            && e.to_string().contains("no partition of relation"))
    }

    /// Whether a row that was referred to went away at the same moment, or one
    /// that refers to what was to be deleted came: looking again tells.
    #[must_use]
    pub fn is_broken_reference(&self) -> bool {
        matches!(self, Self::Inconsistent(e) if sqlstate(e).as_deref() == Some("23503"))
    }

    /// Whether somebody else made a row of the same name at the same moment.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Inconsistent(e) if sqlstate(e).as_deref() == Some("23505"))
    }

    /// Whether the statement had no effect and may be run again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retry(_))
    }

    /// Whether it may be over without anybody changing the gateway.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_)
            | Self::ReadOnly
            | Self::Retry(_)
            | Self::StorageFull(_)
            | Self::Overloaded => true,
            Self::Conflict
            | Self::NotEmpty
            | Self::Inconsistent(_)
            | Self::Panicked
            | Self::TooOld(_)
            | Self::Migrate(_) => false,
        }
    }

    /// What the driver said, where that is where it comes from.
    pub(super) fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Unavailable(error)
            | Self::Retry(error)
            | Self::StorageFull(error)
            | Self::Inconsistent(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the server knows neither this role nor this database, or not this
    /// password: at the start, waiting does not mend that.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Unavailable(error) if matches!(judge(error).0, Kind::Refused))
    }
}

/// A driver's error for the log. Of what Postgres says only the message and the
/// names of what it is about: its detail quotes rows, bodies included.
pub struct Logged<'a>(pub &'a sqlx::Error);

impl std::fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(error) = self.0.as_database_error() else {
            return self.0.fmt(f);
        };
        let code = error.code().unwrap_or_default();
        write!(f, "{} (SQLSTATE {code}", error.message())?;
        for (what, name) in [("table", error.table()), ("constraint", error.constraint())] {
            if let Some(name) = name {
                write!(f, ", {what} {name}")?;
            }
        }
        f.write_str(")")
    }
}

/// What the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Run it again.
    Retry,
    /// Try later.
    Unavailable,
    /// Try later, unless this is the start: the configuration may be wrong.
    Refused,
    /// Make room.
    Full,
    /// Look into the log.
    Inconsistent,
}

/// What becomes of the connection that it came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Back to the pool.
    Keep,
    /// Away with it: it is dead, or nobody knows what it will answer next.
    Drop,
    /// Away with it and with all others: they lead to a server that has ended its
    /// sessions, or is no longer the one to write to. Kept, each would fail once,
    /// and after a fail-over they would go on finding the old primary.
    DropAll,
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(std::borrow::Cow::into_owned)
}

/// Sorts an error.
pub(super) fn judge(error: &sqlx::Error) -> (Kind, Connection) {
    match error {
        sqlx::Error::Database(database) => {
            judge_state(&database.code().unwrap_or_default(), database.message())
        }
        // The socket broke, or what came over it made no sense.
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => (Kind::Unavailable, Connection::DropAll),
        sqlx::Error::Protocol(_) => (Kind::Unavailable, Connection::Drop),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            (Kind::Unavailable, Connection::Keep)
        }
        // A row that does not look as the code thinks.
        _ => (Kind::Inconsistent, Connection::Keep),
    }
}

/// Sorts what Postgres said, by its SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) and, where
/// that is too coarse, by its words.
fn judge_state(code: &str, message: &str) -> (Kind, Connection) {
    use Connection::{Drop, DropAll, Keep};
    use Kind::{Full, Inconsistent, Refused, Retry, Unavailable};
    match code {
        // deadlock_detected, serialization_failure.
        "40P01" | "40001" => (Retry, Keep),
        // in_failed_sql_transaction: left in one by somebody, so nothing was done.
        // The prepared statement is gone or no longer fits, as after a migration;
        // another connection prepares it anew.
        "25P02" | "26000" => (Retry, Drop),
        "0A000" if message.contains("cached plan") => (Retry, Drop),

        // disk_full, whatever it was that could not grow: a table, an index, a
        // segment of the log, a temporary file.
        "53100" => (Full, Keep),
        // Some file systems say it by other codes: a quota, a limit on files.
        "53000" | "54000" | "58000" | "58030" | "XX000" if is_about_room(message) => (Full, Keep),
        // A session that ended because of it.
        "57P01" | "57P02" | "57P03" if is_about_room(message) => (Full, DropAll),

        // read_only_sql_transaction: a standby since a fail-over, or set so.
        // admin_shutdown, crash_shutdown, cannot_connect_now.
        "25006" | "57P01" | "57P02" | "57P03" => (Unavailable, DropAll),
        // idle session time-out, idle_in_transaction_session_timeout.
        "57P05" | "25P03" => (Unavailable, Drop),
        // database_dropped; unknown database; wrong password or role.
        "57P04" | "3D000" | "28000" | "28P01" => (Refused, Drop),
        // insufficient_resources: memory, connections, a configured limit. A
        // statement or a lock that took too long. system_error, io_error.
        "53000" | "53200" | "53300" | "53400" | "57014" | "55P03" | "58000" | "58030" => {
            (Unavailable, Keep)
        }
        // connection_exception.
        code if code.starts_with("08") => (Unavailable, DropAll),
        _ => (Inconsistent, Keep),
    }
}

/// Postgres passes on what the operating system said.
fn is_about_room(message: &str) -> bool {
    [
        "No space left on device",
        "Disk quota exceeded",
        "File too large",
        "could not extend file",
    ]
    .iter()
    .any(|words| message.contains(words))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLSTATE, kind, fate of the connection, message.
    const STATES: &str = r#"
        40P01 Retry Keep deadlock detected
        40001 Retry Keep could not serialize access due to concurrent update
        25P02 Retry Drop current transaction is aborted
        26000 Retry Drop prepared statement "sqlx_s_1" does not exist
        0A000 Retry Drop cached plan must not change result type
        0A000 Inconsistent Keep LOCK TABLE is not supported here
        53100 Full Keep could not extend file "base/5/16384": No space left on device
        53100 Full Keep could not write to file "pg_wal/xlogtemp.7"
        58030 Full Keep could not write block 5: No space left on device
        58030 Unavailable Keep could not read block 5: Input/output error
        58000 Full Keep could not extend file "base/5/1": Disk quota exceeded
        58000 Unavailable Keep could not fork new process
        XX000 Full Keep could not extend file "base/5/16384": File too large
        XX000 Inconsistent Keep cache lookup failed for relation 5
        57P01 Full DropAll could not write lock file: No space left on device
        57P01 Unavailable DropAll terminating connection due to administrator command
        57P02 Unavailable DropAll terminating connection because of crash of another process
        57P03 Unavailable DropAll the database system is starting up
        57P04 Refused Drop database was dropped
        57P05 Unavailable Drop terminating connection due to idle-session timeout
        25P03 Unavailable Drop terminating connection due to idle-in-transaction timeout
        25006 Unavailable DropAll cannot execute INSERT in a read-only transaction
        53000 Unavailable Keep insufficient resources
        53200 Unavailable Keep out of memory
        53300 Unavailable Keep sorry, too many clients already
        53400 Unavailable Keep configuration limit exceeded
        57014 Unavailable Keep canceling statement due to statement timeout
        55P03 Unavailable Keep canceling statement due to lock timeout
        08006 Unavailable DropAll connection failure
        08P01 Unavailable DropAll protocol violation
        28P01 Refused Drop password authentication failed for user "pr"
        28000 Refused Drop role "pr" does not exist
        3D000 Refused Drop database "pr" does not exist
        42501 Inconsistent Keep permission denied for table ready
        42P01 Inconsistent Keep relation "postrider.ready" does not exist
        23505 Inconsistent Keep duplicate key value violates unique constraint
        22P02 Inconsistent Keep invalid input syntax for type bigint"#;

    #[test]
    fn every_sqlstate_has_its_remedy() {
        for row in STATES.trim().lines() {
            let mut words = row.trim().splitn(4, ' ');
            let [code, kind, connection, message] =
                [(); 4].map(|()| words.next().expect("four words"));
            let judged = judge_state(code, message);
            assert_eq!(
                format!("{judged:?}"),
                format!("({kind}, {connection})"),
                "{row}"
            );
        }
    }

    #[test]
    fn every_error_of_the_driver_has_its_remedy() {
        use sqlx::Error as E;
        let io = |kind: std::io::ErrorKind| E::Io(kind.into());
        for (error, kind, connection) in [
            (
                io(std::io::ErrorKind::ConnectionReset),
                Kind::Unavailable,
                Connection::DropAll,
            ),
            (
                io(std::io::ErrorKind::TimedOut),
                Kind::Unavailable,
                Connection::DropAll,
            ),
            (
                E::Tls("bad certificate".into()),
                Kind::Unavailable,
                Connection::DropAll,
            ),
            (
                E::Protocol("unexpected message".into()),
                Kind::Unavailable,
                Connection::Drop,
            ),
            (E::PoolTimedOut, Kind::Unavailable, Connection::Keep),
            (E::PoolClosed, Kind::Unavailable, Connection::Keep),
            (E::WorkerCrashed, Kind::Unavailable, Connection::Keep),
            (E::RowNotFound, Kind::Inconsistent, Connection::Keep),
            (
                E::ColumnNotFound("n".into()),
                Kind::Inconsistent,
                Connection::Keep,
            ),
        ] {
            assert_eq!(judge(&error), (kind, connection), "{error}");
        }
    }
}
