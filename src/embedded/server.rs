//! The server's process: starting it, taking over one that runs, ending it.
//!
//! What an earlier life left in the cluster, and what is done about it:
//!
//! | found | done |
//! | --- | --- |
//! | a live server that listens where ours would | taken over |
//! | a live server that is shutting down | waited for; then a new one |
//! | a live server that listens elsewhere | stopped; then a new one |
//! | no server, but processes that it left | given a moment, then ended |
//! | a pid file of a dead server, of a zombie, of somebody else's process | removed |
//!
//! The order matters: a pid file is removed only when nothing works in the
//! cluster any more, since two servers on one cluster would destroy it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::account::Account;
use super::binaries::Binaries;
use super::folders::Folders;
use super::process::{self, PidFile, Status};
use super::settings;

/// How often a start and an end are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often a server that is not our child is checked to be alive.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// How long a start may take. After a crash the server reads all of the WAL
/// since the last checkpoint first: minutes, on a slow disk.
const READY_WITHIN: Duration = Duration::from_mins(30);

/// How often a start that takes long is reported.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// The steps of a stop, and the patience for each: fast (no more sessions, a
/// last checkpoint), immediate (nothing is lost; the next start recovers), by
/// force. The first leaves a gateway time to exit within 10 s.
const STOPS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(6)),
    (Signal::QUIT, Duration::from_secs(7)),
    (Signal::KILL, Duration::from_secs(5)),
];

/// The steps against processes that lost their server: they notice and leave;
/// those busy with a statement are interrupted, those that are stuck killed.
const ENDS: [(Option<Signal>, Duration); 3] = [
    (None, Duration::from_millis(300)),
    (Some(Signal::QUIT), Duration::from_secs(2)),
    (Some(Signal::KILL), Duration::from_secs(5)),
];

/// A live server. Dropped, it is told to shut down.
#[derive(Debug)]
pub(super) struct Server {
    pid: u32,
    cluster: PathBuf,
    /// `None` for a server that an earlier gateway started.
    child: Option<Child>,
}

/// Starts a server on a cluster that nothing works in.
pub(super) fn spawn(
    folders: &Folders,
    account: &Account,
    binaries: &Binaries,
    settings: &[OsString],
) -> Result<Server, Error> {
    let log = folders.open_log()?;
    let also_log = log.try_clone().map_err(Error::io("open", &folders.log))?;
    let mut command = account.command(&binaries.postgres);
    command
        .arg("-D")
        .arg(&folders.cluster)
        // Where Postgres would go by itself: so it can be told from the start.
        .current_dir(&folders.cluster)
        .envs(settings::MEMORY)
        .stdout(also_log)
        .stderr(log);
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    let child = command
        .spawn()
        .map_err(Error::io("run", &binaries.postgres))?;
    Ok(Server {
        pid: child.id().unwrap_or_default(),
        cluster: folders.cluster.clone(),
        child: Some(child),
    })
}

/// A server that already works in the cluster, once it is ready; else makes
/// sure that nothing does.
pub(super) async fn take_over(folders: &Folders) -> Result<Option<Server>, Error> {
    if let Some(PidFile { pid, status, .. }) = PidFile::read(&folders.cluster)
        && process::serves(pid, &folders.cluster)
    {
        let mut server = Server {
            pid,
            cluster: folders.cluster.clone(),
            child: None,
        };
        tracing::info!("found a server of an earlier gateway at work (process {pid})");
        if status == Status::Stopping {
            // A shutdown may be of the kind that waits for every client.
            server.stop(folders).await?;
            return Ok(None);
        }
        match server.until_ready(folders, folders.log_length()).await {
            Ok(()) if listens_where_ours_would(folders) => return Ok(Some(server)),
            Ok(()) => {
                tracing::info!(
                    "it does not listen in {}: replacing it",
                    folders.socket.display()
                );
                server.stop(folders).await?;
                return Ok(None);
            }
            Err(error) => tracing::warn!("it did not last: {error}"),
        }
    }
    clear(folders).await?;
    Ok(None)
}

fn listens_where_ours_would(folders: &Folders) -> bool {
    PidFile::read(&folders.cluster)
        .is_some_and(|file| file.socket == folders.socket && file.port == 5432)
}

/// Ends whatever still works in the cluster, then removes the pid file.
async fn clear(folders: &Folders) -> Result<(), Error> {
    let pid_file = PidFile::path(&folders.cluster);
    let stale = fs::read(&pid_file).ok();
    end_leftovers(&folders.cluster).await?;
    // One that was written since is a live server's, which ours will refuse to
    // join.
    if stale.is_none() || fs::read(&pid_file).ok() != stale {
        return Ok(());
    }
    tracing::warn!("the database was not shut down cleanly and will recover");
    fs::remove_file(&pid_file).map_err(Error::io("remove", pid_file))
}

/// Ends the processes that a killed server, or a killed initdb, left in a
/// cluster.
pub(super) async fn end_leftovers(cluster: &Path) -> Result<(), Error> {
    let mut left = process::all_that_serve(cluster);
    for (signal, patience) in ENDS {
        if let Some(signal) = signal {
            for &pid in &left {
                tracing::warn!("ending process {pid}, left behind in {}", cluster.display());
                process::signal(pid, signal);
            }
        }
        let until = Instant::now() + patience;
        while !left.is_empty() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
            left = process::all_that_serve(cluster);
        }
    }
    match left.first() {
        None => Ok(()),
        Some(&pid) => Err(Error::StillRunning {
            pid,
            path: cluster.to_owned(),
        }),
    }
}

impl Server {
    /// Waits until it accepts connections. `log_from` is where in the log its
    /// own words begin.
    pub(super) async fn until_ready(
        &mut self,
        folders: &Folders,
        log_from: u64,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let mut reported = began;
        loop {
            let ready = PidFile::read(&self.cluster)
                .is_some_and(|file| file.pid == self.pid && file.status == Status::Ready);
            if ready {
                return Ok(());
            }
            let ended = match self.try_ended() {
                None if began.elapsed() > READY_WITHIN => Some("it takes too long".to_owned()),
                ended => ended,
            };
            if let Some(status) = ended {
                return Err(Error::DidNotStart {
                    status,
                    log: folders.log.clone(),
                    tail: folders.log_tail(log_from),
                });
            }
            if reported.elapsed() > REPORT_EVERY {
                reported = Instant::now();
                tracing::info!(
                    "the database is not ready after {} s; recovery after a crash can take \
                     minutes. Its log: {}",
                    began.elapsed().as_secs(),
                    folders
                        .log_tail(log_from)
                        .lines()
                        .last()
                        .unwrap_or_default()
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for its end, and tells how it came.
    pub(super) async fn ended(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return child
                .wait()
                .await
                .map_or_else(|e| e.to_string(), |s| s.to_string());
        }
        loop {
            if let Some(status) = self.try_ended() {
                return status;
            }
            sleep(CHECK_EVERY).await;
        }
    }

    /// How it ended, if it has.
    fn try_ended(&mut self) -> Option<String> {
        match &mut self.child {
            Some(child) => child.try_wait().ok()?.map(|status| status.to_string()),
            None => (!process::serves(self.pid, &self.cluster)).then(|| "it is gone".to_owned()),
        }
    }

    /// Stops it by the gentlest means that works, and leaves nothing behind.
    pub(super) async fn stop(mut self, folders: &Folders) -> Result<(), Error> {
        for (signal, patience) in STOPS {
            if self.try_ended().is_none() {
                process::signal(self.pid, signal);
            }
            if timeout(patience, self.ended()).await.is_ok() {
                return clear(folders).await;
            }
            tracing::warn!(
                "the database did not stop on {signal:?} within {} s",
                patience.as_secs()
            );
        }
        Err(Error::StillRunning {
            pid: self.pid,
            path: self.cluster.clone(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.try_ended().is_none() {
            process::signal(self.pid, Signal::INT);
        }
    }
}
