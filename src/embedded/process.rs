//! Telling which process serves a cluster.
//!
//! A process id by itself proves nothing: after a crash it may belong to
//! somebody else, or to a zombie that nobody has reaped. What tells a server
//! is where it works: the cluster is the working folder of Postgres' processes,
//! and the system lets go of it when a process dies.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// What `postmaster.pid` in the cluster says about the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) port: u16,
    pub(super) socket: PathBuf,
    pub(super) status: Status,
}

/// How far the server is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Not accepting connections yet, or not told.
    #[default]
    Starting,
    Ready,
    Stopping,
}

impl PidFile {
    pub(super) fn path(cluster: &Path) -> PathBuf {
        cluster.join("postmaster.pid")
    }

    /// `None` if there is none, or a standalone backend's.
    pub(super) fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path(cluster)).ok()?)
    }

    /// Its lines: process id, cluster, start time, port, socket folder, first
    /// listen address, shared memory, status. The server writes the later ones
    /// as it gets there.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim_end);
        let pid = lines.next()?.parse().ok()?;
        Some(Self {
            pid,
            port: lines
                .nth(2)
                .and_then(|line| line.parse().ok())
                .unwrap_or_default(),
            socket: lines.next().unwrap_or_default().into(),
            status: match lines.nth(2) {
                Some("ready") => Status::Ready,
                Some("stopping") => Status::Stopping,
                _ => Status::Starting,
            },
        })
    }
}

/// Whether the process is alive, one of Postgres', and at work in the cluster.
#[cfg(target_os = "linux")]
pub(super) fn serves(pid: u32, cluster: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let process = Path::new("/proc").join(pid.to_string());
    // By identity, not by name: it may have been renamed or mounted elsewhere.
    let (Ok(works_in), Ok(cluster)) = (fs::metadata(process.join("cwd")), fs::metadata(cluster))
    else {
        return false;
    };
    // Whoever looks around in the cluster with a shell is none of ours.
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    (works_in.dev(), works_in.ino()) == (cluster.dev(), cluster.ino())
        && matches!(name.trim_end(), "postgres" | "postmaster" | "initdb")
}

/// Every process that [`serves`] the cluster.
#[cfg(target_os = "linux")]
pub(super) fn all_that_serve(cluster: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| serves(pid, cluster))
        .collect()
}

/// Whether the process was started on the cluster: its command line says so.
#[cfg(not(target_os = "linux"))]
pub(super) fn serves(pid: u32, cluster: &Path) -> bool {
    let output = std::process::Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).contains(&format!("-D {} ", cluster.display()))
    })
}

/// Only the server itself can be told here, not its backends, which end by
/// themselves when it does.
#[cfg(not(target_os = "linux"))]
pub(super) fn all_that_serve(cluster: &Path) -> Vec<u32> {
    PidFile::read(cluster)
        .map(|file| file.pid)
        .filter(|&pid| serves(pid, cluster))
        .into_iter()
        .collect()
}

/// Sends a signal; that the process is gone already is no error.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Err(error) = rustix::process::kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!("cannot signal process {pid}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_as_far_as_it_is_written() {
        let whole =
            "4711\n/data/pg\n1795467857\n5432\n/data/socket\n\n  5432001  65536\nready   \n";
        let expected = PidFile {
            pid: 4711,
            port: 5432,
            socket: "/data/socket".into(),
            status: Status::Ready,
        };
        assert_eq!(PidFile::parse(whole), Some(expected));
        let early = PidFile {
            pid: 4711,
            ..PidFile::default()
        };
        assert_eq!(PidFile::parse("4711\n"), Some(early));
        let stopping = whole.replace("ready   ", "stopping");
        assert_eq!(
            PidFile::parse(&stopping).map(|file| file.status),
            Some(Status::Stopping)
        );
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("-4711\n"), None, "a standalone backend");
    }

    #[test]
    fn a_process_that_is_not_postgres_serves_nothing() -> std::io::Result<()> {
        assert!(!serves(std::process::id(), &std::env::current_dir()?));
        assert!(all_that_serve(&std::env::current_dir()?).is_empty());
        Ok(())
    }
}
