//! The embedded Postgres: a private server for when no database is given.
//!
//! This module owns one cluster in a data folder and the server process that
//! runs on it:
//!
//! | in the data folder | what it is |
//! | --- | --- |
//! | `lock` | held by the one gateway that may use the folder; its process id is inside |
//! | `pg/` | the cluster |
//! | `pg.new/` | a cluster that is still being created; thrown away if found at start |
//! | `postgres.log`, `postgres.log.1` | what the server says |
//! | `socket/` | where it listens, reachable by the server's account and root only |
//!
//! The server is our own child rather than `pg_ctl`'s, in a process group of
//! its own: Ctrl-C reaches the gateway alone, which drains and only then stops
//! the server. Should the gateway be killed, the server lives on, and the next
//! start takes it over. Every other way in which a process or a machine can
//! die leaves something behind that [`Embedded::start`] cleans up: see
//! [`server`] for how the living are told from the dead.
//!
//! Postgres refuses to run as root, so under root the server runs as an
//! unprivileged account ([`account`]).

mod account;
mod binaries;
mod cluster;
mod error;
mod folders;
mod process;
mod server;
mod settings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::account::Account;
use self::binaries::Binaries;
pub use self::error::Error;
use self::folders::Folders;
use self::server::Server;

/// Where the default data folder moves when root runs the gateway in a place
/// that the server's account cannot enter, such as root's own home.
pub const SYSTEM_DATA_DIR: &str = "/var/lib/postrider";

/// The superuser of an embedded cluster.
const SUPERUSER: &str = "postgres";

/// A server that lives this long has recovered: its next death counts as the
/// first.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// The longest pause before another attempt to restart the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a running server's log is looked at, to keep it small.
const TRIM_LOG_EVERY: Duration = Duration::from_mins(1);

/// What the embedded Postgres needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds everything; made if it is missing.
    pub data_dir: PathBuf,
    /// Where to go instead when the server's account cannot enter `data_dir`
    /// and no database is there yet. [`SYSTEM_DATA_DIR`] if `data_dir` is only
    /// the default; `None`, which makes it an error, if the user chose it.
    pub fallback_dir: Option<PathBuf>,
    /// The folder of `postgres` and `initdb`, if the user named one.
    pub bin_dir: Option<PathBuf>,
}

/// A running private Postgres, and the lock on its folder.
///
/// Dropped without [`stop`](Self::stop) it asks the server to shut down and
/// does not wait for it.
#[derive(Debug)]
pub struct Embedded {
    /// Before `folders`, so that a drop signals the server before it gives up
    /// the lock.
    server: Option<Server>,
    account: Account,
    binaries: Binaries,
    folders: Folders,
    settings: Vec<OsString>,
}

impl Embedded {
    /// Takes the data folder, creates the cluster if there is none, and starts
    /// the server on it or takes over the one that runs there. Returns when it
    /// accepts connections.
    ///
    /// Dropping the future half-way is safe: what it leaves is what a crash
    /// would leave.
    ///
    /// # Errors
    ///
    /// See [`Error`]; each message says what to do.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let began = Instant::now();
        let (account, data_dir) = folders::choose(&options).await?;
        let folders = Folders::take(&data_dir, &account)?;
        let binaries = binaries::find(&options, &account, folders.cluster_version()?).await?;
        let created = cluster::ensure(&folders, &account, &binaries).await?;
        let settings = settings::for_this_machine(&folders, &account, &binaries).await;
        let mut embedded = Self {
            server: None,
            account,
            binaries,
            folders,
            settings,
        };
        let how = embedded.bring_up().await?;
        tracing::info!(
            version = embedded.version(),
            data_dir = %embedded.data_dir().display(),
            "{how} the embedded Postgres in {} ms{}",
            began.elapsed().as_millis(),
            if created { ", creation of its database included" } else { "" },
        );
        Ok(embedded)
    }

    /// The folder of the server's unix socket; its port is 5432.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.folders.socket
    }

    /// The superuser that the socket lets in, without a password.
    #[must_use]
    pub fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// The data folder in use, absolute; not the one asked for if the server's
    /// account could not enter that.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.folders.data
    }

    /// The version of the server binaries, such as `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.binaries.version.text
    }

    /// Watches over the server until `stop` is cancelled, then stops it: a
    /// server that dies is started again, at once at first, then after growing
    /// pauses.
    ///
    /// # Errors
    ///
    /// Those of [`stop`](Self::stop). A server that cannot be restarted is not
    /// one: it is logged, and tried again.
    pub async fn supervise(mut self, stop: CancellationToken) -> Result<(), Error> {
        stop.run_until_cancelled(self.keep_alive()).await;
        self.stop().await
    }

    /// Stops the server and waits until it is gone: by a fast shutdown, by an
    /// immediate one if that takes longer than a few seconds.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] if the server outlives even a kill.
    pub async fn stop(mut self) -> Result<(), Error> {
        if let Some(server) = self.server.take() {
            server.stop(&self.folders).await?;
        }
        self.folders.clear_after_stop();
        Ok(())
    }

    /// Never returns.
    async fn keep_alive(&mut self) {
        let mut deaths = 0;
        loop {
            let up_since = Instant::now();
            if let Some(server) = &mut self.server {
                let exit = Self::until_death(server, &self.folders).await;
                tracing::error!(
                    "the embedded Postgres died ({exit}) and will be restarted; it last said:\n{}",
                    self.folders.log_tail(0)
                );
            }
            self.server = None;
            if up_since.elapsed() > STABLE_AFTER {
                deaths = 0;
            }
            tokio::time::sleep(pause_after(deaths)).await;
            deaths += 1;
            let began = Instant::now();
            match self.bring_up().await {
                Ok(how) => tracing::info!(
                    "{how} the embedded Postgres again in {} ms",
                    began.elapsed().as_millis()
                ),
                Err(error) => tracing::error!("the embedded Postgres did not come back: {error}"),
            }
        }
    }

    /// Waits for the server's end and tells how it ended; keeps its log small
    /// meanwhile.
    async fn until_death(server: &mut Server, folders: &Folders) -> String {
        loop {
            match tokio::time::timeout(TRIM_LOG_EVERY, server.ended()).await {
                Ok(exit) => return exit,
                Err(_) => folders.trim_log(),
            }
        }
    }

    /// From whatever state the folder is in to a server that is ready; says
    /// how ("started", "took over").
    async fn bring_up(&mut self) -> Result<&'static str, Error> {
        if let Some(running) = server::take_over(&self.folders).await? {
            self.server = Some(running);
            return Ok("took over");
        }
        self.folders.trim_log();
        self.folders.make_socket_dir(&self.account)?;
        let log_from = self.folders.log_length();
        // Kept before it is ready: a stop in the meantime must find it.
        let server = self.server.insert(server::spawn(
            &self.folders,
            &self.account,
            &self.binaries,
            &self.settings,
        )?);
        if let Err(error) = server.until_ready(&self.folders, log_from).await {
            self.server = None;
            return Err(error);
        }
        Ok("started")
    }
}

/// None after the first death, then half a second, doubled each time.
fn pause_after(deaths: u32) -> Duration {
    match deaths {
        0 => Duration::ZERO,
        n => LONGEST_PAUSE.min(Duration::from_millis(500) * 2_u32.saturating_pow(n - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_none_to_a_bound() {
        let pauses: Vec<_> = (0..4).map(|n| pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [0, 500, 1000, 2000]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
