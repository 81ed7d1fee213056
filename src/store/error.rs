//! What the database can answer instead of what was asked, sorted by what the
//! caller can do about it.

use std::sync::Arc;

/// A store error. Cheap to clone: one failed statement answers every request
/// that was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The database is away, starting, read-only or out of connections: try
    /// again. Whether a write took effect is not known.
    #[error("the database is unavailable: {0}")]
    Unavailable(Arc<sqlx::Error>),
    /// The database's disk is full.
    #[error("the database is out of disk space: {0}")]
    StorageFull(Arc<sqlx::Error>),
    /// The gateway has more requests in hand than it may keep.
    #[error("too many requests are waiting for the database")]
    Overloaded,
    /// Somebody else changed it at the same time.
    #[error("the resource was changed at the same time")]
    Conflict,
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
        let kind = classify(&error);
        let error = Arc::new(error);
        match kind {
            Kind::Unavailable => Self::Unavailable(error),
            Kind::Full => Self::StorageFull(error),
            Kind::Inconsistent => Self::Inconsistent(error),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
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

    /// Whether the statement was the victim of a deadlock or serialization
    /// failure: it had no effect and may be run again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Inconsistent(e)
            if matches!(sqlstate(e).as_deref(), Some("40P01" | "40001")))
    }
}

enum Kind {
    Unavailable,
    Full,
    Inconsistent,
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(std::borrow::Cow::into_owned)
}

fn classify(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(_) => match sqlstate(error).as_deref() {
            // disk_full
            Some("53100") => Kind::Full,
            // admin, crash shutdown, cannot connect now, database dropped;
            // read-only after a fail-over; too many connections, out of
            // memory; statement or lock time-out.
            Some(
                "57P01" | "57P02" | "57P03" | "57P04" | "25006" | "53300" | "53200" | "53400"
                | "57014" | "55P03" | "58000" | "58030",
            ) => Kind::Unavailable,
            Some(code) if code.starts_with("08") => Kind::Unavailable,
            _ => Kind::Inconsistent,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        _ => Kind::Inconsistent,
    }
}
