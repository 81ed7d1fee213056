//! One gateway with a private Postgres of its own in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::http::{Connection, put};
use crate::machine::{Processes, child_called};

/// Held while the folder of a gateway that has ended is removed: gigabytes take
/// seconds, in which the next gateway can start, but not be measured.
static REMOVAL: Mutex<()> = Mutex::const_new(());

/// A running gateway; it and its folder are gone when this is dropped.
pub(crate) struct Gateway {
    pub(crate) address: String,
    pub(crate) processes: Processes,
    pub(crate) pid: u32,
    folder: tempfile::TempDir,
    child: Child,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // As root the server runs as another user, who has to get in.
        #[cfg(unix)]
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let address = free_address()?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["--listen", &address, "--auth", "off", "--data-dir"])
            .arg(folder.path().join("data"))
            // The receivers of pushes are here.
            .args(["--webhook-allow", "127.0.0.0/8"])
            .env("POSTRIDER_LOG", "info")
            .env_remove("POSTRIDER_DATABASE_URL")
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting the gateway")?;
        let pid = child.id().context("the gateway ended at once")?;
        let mut gateway = Self {
            address,
            processes: Processes {
                server: Some(pid),
                postgres: None,
            },
            pid,
            folder,
            child,
        };
        gateway.wait_until_ready().await?;
        gateway.processes.postgres = child_called(pid, "postgres");
        drop(REMOVAL.lock().await);
        Ok(gateway)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(&self.address).await
                && let Ok(200) = connection
                    .call(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .await
            {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || started.elapsed() > Duration::from_mins(1) {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                bail!("the gateway did not start:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes a queue.
    pub(crate) async fn new_queue(&self, name: &str) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.address).await?;
        let path = format!("/v1/queues/{name}");
        // No lease may run out before its line ends.
        connection
            .expect(&put(&path, r#"{"lease_seconds":600}"#))
            .await?;
        Ok(())
    }

    /// The folder of Postgres' socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("data/socket")
    }

    /// What Postgres logs.
    pub(crate) fn postgres_log(&self) -> PathBuf {
        self.folder.path().join("data/postgres.log")
    }

    /// Postgres' own account on that server.
    pub(crate) const fn user() -> &'static str {
        "postgres"
    }

    /// A connection for looking behind the interface.
    pub(crate) async fn database(&self) -> anyhow::Result<Database> {
        Database::connect(&self.socket()).await
    }

    /// Ends it in order. Its folder goes while others start.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Ok(pid) = i32::try_from(self.pid)
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        let status = self.child.wait().await?;
        if !status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log"))?;
            bail!("the gateway ended with {status}:\n{log}");
        }
        let removal = REMOVAL.lock().await;
        // Which the runtime awaits at its end.
        tokio::task::spawn_blocking(move || {
            drop(self.folder);
            drop(removal);
        });
        Ok(())
    }
}

/// The gateway's Postgres, looked at from behind.
pub(crate) struct Database(PgConnection);

impl Database {
    async fn connect(socket: &Path) -> anyhow::Result<Self> {
        // Without a password file: nobody else's settings count here. And without the
        // gateway's own code, which would have to be built into this program, too.
        let options = PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .port(5432)
            .username(Gateway::user())
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        Ok(Self(PgConnection::connect_with(&options).await?))
    }

    /// The one number that a query answers with.
    pub(crate) async fn number(&mut self, sql: &'static str) -> anyhow::Result<f64> {
        Ok(sqlx::query(sql).fetch_one(&mut self.0).await?.try_get(0)?)
    }

    /// The one text that a query answers with.
    pub(crate) async fn text(&mut self, sql: &'static str) -> anyhow::Result<String> {
        Ok(sqlx::query(sql).fetch_one(&mut self.0).await?.try_get(0)?)
    }

    /// Runs statements.
    pub(crate) async fn run(&mut self, sql: &'static str) -> anyhow::Result<()> {
        sqlx::raw_sql(sql).execute(&mut self.0).await?;
        Ok(())
    }
}

/// A port that is free now.
pub(crate) fn free_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
