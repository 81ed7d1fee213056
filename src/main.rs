//! Arguments → configuration → [`App`] → run until a signal.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use postrider::app::{App, Database, another_admin_key};
use postrider::config::{Cli, Command, Config};
use postrider::{http, spans, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// How long the last spans may take to be exported.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Faster than glibc's for the many small and short-lived pieces of a request. It
/// keeps its lists apart from what they are lists of: a piece that nobody has written
/// to takes no memory, such as the buffer for the answer of a receiver that waits. With
/// mimalloc, which is as fast, 10,000 of them took 158 MiB instead of 133.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    refuse_huge_pages();
    let cli = Cli::read();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A sentence for people, causes after colons.
            let _ = writeln!(std::io::stderr(), "postrider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the system gives transparent huge pages to all, they hold whole what a
/// waiting receiver has touched a part of: under mimalloc, which asks for them, 10,000
/// took 238 MB with them and 163 without. The private Postgres inherits it, which its
/// manual recommends for its own memory too.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // An old kernel or a sandbox; there is no log yet, and it works without.
        let _ = writeln!(std::io::stderr(), "postrider: huge pages stay on: {error}");
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Serve) {
        Command::Openapi => print_json(&http::document()),
        Command::Config => print_json(&cli.config),
        Command::Serve => runtime(&cli.config)?.block_on(serve_traced(&cli.config)),
        Command::Migrate => runtime(&cli.config)?.block_on(migrate(&cli.config)),
        Command::AdminKey => runtime(&cli.config)?.block_on(admin_key(&cli.config)),
    }
}

fn runtime(config: &Config) -> anyhow::Result<tokio::runtime::Runtime> {
    telemetry::start(&config.log, config.log_format)
        .map_err(|error| anyhow::anyhow!("--log: {error}"))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting threads")
}

/// Each waiting receiver is an open file, and the usual soft limit is 1,024: up
/// to the hard one, which is there for programs that do so.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

async fn serve_traced(config: &Config) -> anyhow::Result<()> {
    let exporter = spans::start();
    let served = serve(config).await;
    if let Some(exporter) = exporter {
        exporter.shut_down(LAST_SPANS).await;
    }
    served
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    raise_open_files();
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    // Even without TLS: it would end the process.
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
    // A signal also ends the wait for a database that is away.
    let app = tokio::select! {
        app = App::start(config) => app?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    if let Some(key) = app.admin_key() {
        // Not in the log, which others may read.
        print(&format!(
            "Admin API key, shown this once (send it as Authorization: Bearer KEY):\n{key}\n"
        ))?;
    }
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => app.reload(),
        }
    }
    tracing::info!("stopping; once more to stop at once");
    tokio::select! {
        stopped = app.shut_down() => Ok(stopped?),
        _ = interrupt.recv() => anyhow::bail!("stopped at once"),
        _ = terminate.recv() => anyhow::bail!("stopped at once"),
    }
}

async fn migrate(config: &Config) -> anyhow::Result<()> {
    let database = Database::open(config).await?;
    let migrated = database.store(config).await;
    if let Ok(store) = &migrated {
        store.close().await;
        tracing::info!("the schema is up to date");
    }
    database.close().await?;
    migrated?;
    Ok(())
}

async fn admin_key(config: &Config) -> anyhow::Result<()> {
    let database = Database::open(config).await?;
    let made = async {
        let store = database.store(config).await?;
        let key = another_admin_key(&store).await;
        store.close().await;
        key
    }
    .await;
    database.close().await?;
    print(&format!("{}\n", made?))
}

fn print_json<T: serde::Serialize>(value: &T) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn print(text: &str) -> anyhow::Result<()> {
    // Whoever reads may stop reading, as `head` does.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
