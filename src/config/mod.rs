//! What can be set, by option or by environment variable, checked once.

mod database_url;
mod server;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;

pub use database_url::DatabaseUrl;
use database_url::DatabaseUrlParser;
pub use server::{Origin, Server};

use crate::domain::AllowEntry;
use crate::metrics::NAMED_QUEUES;
use crate::store::Store;

/// Message queues over plain HTTP, kept in Postgres.
///
/// Without a database URL it runs a private Postgres in the data folder, from
/// the server binaries that are installed on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "postrider",
    version,
    after_help = "Every option can also be set by the environment variable that stands beside it. \
        Traces are\nexported if OTEL_EXPORTER_OTLP_ENDPOINT is set, as the OpenTelemetry variables \
        say.\n\
        \n\
        Examples:\n  \
        postrider                                    serve on 127.0.0.1:8080, data in .postrider\n  \
        postrider --listen 0.0.0.0:8080              serve to others, too\n  \
        postrider --auth off                         ask nobody for an API key\n  \
        postrider --database-url postgres://pr@db/pr?sslmode=verify-full\n                                               \
        use that Postgres"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How.
    #[command(flatten)]
    pub config: Config,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the gateway (what happens without a command)
    Serve,
    /// Bring the database's schema up to date, and exit
    ///
    /// `serve` does it too; this is for those whose gateways may not.
    Migrate,
    /// Make an admin API key, print it, and exit
    ///
    /// For when the one that the first start printed was lost. With a private
    /// Postgres the gateway has to be stopped meanwhile.
    AdminKey,
    /// Print the `OpenAPI` document
    Openapi,
    /// Print the effective configuration as JSON, secrets hidden
    Config,
}

/// All settings of the gateway.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Config {
    /// Address to serve on; port 0 takes a free one
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// Whether requests need an API key
    ///
    /// `off` lets whoever reaches the gateway do everything, so it is only taken
    /// with a loopback address.
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_AUTH",
        default_value = "required"
    )]
    pub auth: Auth,

    /// API keys that are not known which one address may show in a minute
    ///
    /// Beyond it they are answered with 429; keys that are good go on.
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_FAILED_LOGINS_PER_MINUTE",
        default_value = "120",
        value_name = "N"
    )]
    pub failed_logins_per_minute: NonZeroU32,

    /// Folder of the private Postgres
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_DATA_DIR",
        default_value = ".postrider",
        value_name = "FOLDER"
    )]
    pub data_dir: PathBuf,

    /// Whether nobody set the folder.
    #[arg(skip)]
    #[serde(skip)]
    pub data_dir_is_default: bool,

    /// Use this Postgres instead of a private one
    ///
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE; TLS as `?sslmode=` says
    /// (disable, prefer, require, verify-ca, verify-full).
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        value_parser = DatabaseUrlParser
    )]
    pub database_url: Option<DatabaseUrl>,

    /// Connections to the database, at most
    #[arg(
        long, global = true, env = "POSTRIDER_DATABASE_CONNECTIONS", default_value_t = 12,
        value_name = "N", value_parser = clap::value_parser!(u32).range(4..=1000)
    )]
    pub database_connections: u32,

    /// Folder with Postgres' server binaries, if they are not found
    #[arg(long, global = true, env = "POSTRIDER_PG_BIN", value_name = "FOLDER")]
    pub pg_bin: Option<PathBuf>,

    /// Messages in one partition; a partition is dropped when all are settled
    #[arg(
        long, global = true, env = "POSTRIDER_PARTITION_MESSAGES",
        default_value_t = Store::PARTITION_SIZE, value_name = "N",
        value_parser = clap::value_parser!(i64).range(100..=1_000_000_000)
    )]
    pub partition_messages: i64,

    /// File with the key that webhooks' secrets are sealed with
    ///
    /// 32 bytes as 64 hex digits (`openssl rand -hex 32`) or in base64. By
    /// default `secret.key` in the data folder, made at the first start. With
    /// --database-url there is no default, since all gateways need the same key:
    /// without one, no webhook can be made.
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_SECRET_KEY_FILE",
        value_name = "FILE"
    )]
    pub secret_key_file: Option<PathBuf>,

    /// Let webhooks reach these addresses, besides the public ones
    ///
    /// May be given several times, or with commas between. Nothing private is
    /// reached that is not named here, loopback included; so 0.0.0.0/0 names
    /// everything that is private, too. Without a port it is any port; otherwise
    /// webhooks reach 80, 443, 8080 and 8443. IPv6 in brackets: `[fd00::]/8:443`.
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_WEBHOOK_ALLOW",
        value_name = "CIDR[:PORT]",
        value_delimiter = ','
    )]
    pub webhook_allow: Vec<AllowEntry>,

    /// Messages ready in a queue that are told of as `queue.backlog_high`; where
    /// the queue has a `max_ready`, four fifths of that
    #[arg(
        long, global = true, env = "POSTRIDER_BACKLOG_HIGH", default_value_t = 100_000,
        value_name = "N", value_parser = clap::value_parser!(i64).range(1..)
    )]
    pub backlog_high: i64,

    /// Age of a snapshot or transaction, held anywhere in the database, that is
    /// told of as `storage.snapshot_held`
    #[arg(
        long, global = true, env = "POSTRIDER_SNAPSHOT_AGE_WARNING_SECONDS", default_value_t = 300,
        value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub snapshot_age_warning_seconds: u32,

    /// Days that the attempts of pushes to webhooks are kept
    #[arg(
        long, global = true, env = "POSTRIDER_PUSH_ATTEMPT_DAYS", default_value_t = 30,
        value_name = "DAYS", value_parser = clap::value_parser!(i64).range(1..=3650)
    )]
    pub push_attempt_days: i64,

    /// Requests in hand at a time, at most; more are answered 503 at once
    ///
    /// Receivers that wait for messages do not count.
    #[arg(
        long, global = true, env = "POSTRIDER_MAX_REQUESTS", default_value_t = 4096,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_requests: u32,

    /// Memory for the bodies of requests while they arrive, in MiB; bodies beyond
    /// it are answered 503 at once
    #[arg(
        long, global = true, env = "POSTRIDER_BODY_MEMORY_MIB", default_value_t = 128,
        value_name = "MIB", value_parser = clap::value_parser!(u32).range(16..=1_048_576)
    )]
    pub body_memory_mib: u32,

    /// Queues, and webhooks, that the metrics show by name
    ///
    /// The oldest queues are; what the others count is summed up as `(other)`.
    #[arg(
        long, global = true, env = "POSTRIDER_METRICS_QUEUES",
        default_value_t = NAMED_QUEUES, value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=100_000)
    )]
    pub metrics_queues: u32,

    /// What to log: a level (error, warn, info, debug, trace) or a filter such
    /// as `info,postrider::http=debug`
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// How to log, to standard error
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_LOG_FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,

    /// Which requests are logged, one line each; of those that failed at most 100
    /// refusals and 100 failures a second
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_LOG_REQUESTS",
        default_value = "failed"
    )]
    pub log_requests: LogRequests,

    /// How long requests in hand may take after a signal to stop
    #[arg(
        long, global = true, env = "POSTRIDER_DRAIN_SECONDS", default_value_t = 5,
        value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600)
    )]
    pub drain_seconds: u64,

    /// The HTTP server.
    #[command(flatten)]
    #[serde(flatten)]
    pub server: Server,
}

/// Whether requests need an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// All but those for health and documentation.
    Required,
    /// None.
    Off,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which requests are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogRequests {
    /// Every one.
    All,
    /// Those that were refused (4xx, as `info`) or failed (5xx, as `warn`), save
    /// health checks.
    Failed,
    /// None.
    Off,
}

impl Cli {
    /// Reads the arguments and the environment; ends the program with a message
    /// if they are wrong, or with the help that was asked for.
    #[must_use]
    pub fn read() -> Self {
        let matches = Self::command().get_matches();
        let is_default = |matches: &clap::ArgMatches| {
            matches.value_source("data_dir") == Some(ValueSource::DefaultValue)
        };
        // A global option may stand before or after the command.
        let data_dir_is_default =
            is_default(&matches) && matches.subcommand().is_none_or(|(_, sub)| is_default(sub));
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        cli.config.data_dir_is_default = data_dir_is_default;
        cli
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
