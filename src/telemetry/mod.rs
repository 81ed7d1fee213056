//! Logging: what, how, and what never.
//!
//! A log is read by more people than a message is, so neither bodies nor secrets
//! are in it, at any level. For our own lines that is a matter of writing them.
//! For those of libraries it is not: some print headers, statements or URLs when
//! they are asked for much. So nobody can ask: see [`is_allowed`].

mod requests;

use std::io::IsTerminal as _;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use requests::{Answered, RequestLine, RequestLog};

use crate::config::LogFormat;

/// Starts logging to standard error.
///
/// # Errors
/// If the filter is not one.
pub fn start(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    // Statements of ours that fail are logged by us; Postgres' notices are of no
    // use to an operator.
    let filter = EnvFilter::try_new(filter)?
        .add_directive("sqlx::postgres::notice=off".parse()?)
        .add_directive("sqlx::query=off".parse()?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .with(filter_fn(is_allowed))
            .init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(filter_fn(is_allowed))
            .init(),
    }
    Ok(())
}

/// Whatever the filter asks for: of libraries nothing below `info`, where hyper,
/// h2, reqwest, rustls and sqlx show parts of what goes over the wire.
fn is_allowed(of: &Metadata<'_>) -> bool {
    let is_ours = of.target().split("::").next() == Some("postrider");
    is_ours || *of.level() <= Level::INFO
}
