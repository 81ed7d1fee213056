//! The data folder: choosing it, holding it, and what lies in it.
//!
//! Under root the data folder stays root's and the server's account may only
//! pass through it; `pg` and `socket` are the account's. A gateway run by root
//! may find itself in a folder of an ordinary user, so files are opened without
//! following links and owners are changed on the link itself.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::account::Account;
use super::{Error, Options};

/// The longest path of a unix socket, in bytes: what `sockaddr_un` holds, less
/// the final zero.
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The port is only ever part of this name.
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Short folders for a socket whose own would be too long, the first that is
/// writable. In `/run` only root can make one, so nobody can be there first;
/// a user's own runtime folder would go away when they log out.
const SHORT_PLACES: [&str; 2] = ["/run", "/tmp"];

/// A log longer than this, in bytes, becomes `postgres.log.1`.
const LONGEST_LOG: u64 = 10 * 1024 * 1024;

/// How much of the log's end is shown, in bytes and in lines.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 10;

/// The data folder, held.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) data: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) half_made: PathBuf,
    pub(super) log: PathBuf,
    pub(super) socket: PathBuf,
    /// Closed, and with it unlocked, when the gateway ends in whatever way.
    /// Not passed on to the server: files are opened close-on-exec.
    _lock: File,
}

/// Which cluster there is.
#[derive(Debug)]
pub(super) struct ClusterVersion {
    pub(super) path: PathBuf,
    pub(super) major: u32,
}

/// Settles on an account and a data folder that it can enter; makes the folder.
pub(super) async fn choose(options: &Options) -> Result<(Account, PathBuf), Error> {
    let wanted =
        std::path::absolute(&options.data_dir).map_err(Error::io("resolve", &options.data_dir))?;
    let account = Account::choose(&wanted.join("pg")).await?;
    let closed = match prepare(&wanted, &account).await {
        Ok(data) => return Ok((account, data)),
        Err(error) => error,
    };
    // A database that is there but out of reach is not to be replaced by
    // another, empty one.
    let has_cluster = wanted.join("pg").exists();
    match (&closed, &options.fallback_dir) {
        (
            Error::CannotEnter {
                account: name,
                closed,
            },
            Some(fallback),
        ) if !has_cluster => {
            tracing::warn!(
                "keeping data in {} instead of {}: Postgres refuses to run as root, and `{name}`, \
                 which it runs as, may not enter {}",
                fallback.display(),
                wanted.display(),
                closed.display(),
            );
            let account = Account::choose(&fallback.join("pg")).await?;
            let data = prepare(fallback, &account).await?;
            Ok((account, data))
        }
        _ => Err(closed),
    }
}

/// Makes the folder, and tells its path without links in it.
async fn prepare(data: &Path, account: &Account) -> Result<PathBuf, Error> {
    if account.switch
        && let Some(nearest) = data.ancestors().find(|ancestor| ancestor.exists())
    {
        account.must_enter(nearest).await?;
    }
    let missing: Vec<_> = data
        .ancestors()
        .take_while(|folder| !folder.exists())
        .collect();
    // The server's account passes through and sees no names.
    let mode = if account.switch { 0o711 } else { 0o700 };
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder)
            // Not the mode of `mkdir`, from which the umask takes bits away.
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(mode)))
            .and_then(|()| flush_dir(folder.parent().unwrap_or(folder)))
            .map_err(Error::io("create", folder))?;
    }
    fs::canonicalize(data).map_err(Error::io("open", data))
}

impl Folders {
    /// Takes the lock of the data folder.
    pub(super) fn take(data: &Path, account: &Account) -> Result<Self, Error> {
        let lock = take_lock(data)?;
        Ok(Self {
            data: data.to_owned(),
            cluster: data.join("pg"),
            half_made: data.join("pg.new"),
            log: data.join("postgres.log"),
            socket: socket_dir(data, account)?,
            _lock: lock,
        })
    }

    /// The version of the cluster, if there is one.
    pub(super) fn cluster_version(&self) -> Result<Option<ClusterVersion>, Error> {
        let not_a_cluster = || Error::NotACluster {
            path: self.cluster.clone(),
        };
        let file = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&file) {
            Ok(text) => {
                // Before version 10 it was `9.6`.
                let major = text.trim().split('.').next().and_then(|n| n.parse().ok());
                let major = major.ok_or_else(not_a_cluster)?;
                Ok(Some(ClusterVersion {
                    path: self.cluster.clone(),
                    major,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let used = fs::read_dir(&self.cluster).is_ok_and(|mut dir| dir.next().is_some());
                if used { Err(not_a_cluster()) } else { Ok(None) }
            }
            Err(error) => Err(Error::io("read", file)(error)),
        }
    }

    /// Makes the socket's folder, or checks that it is ours alone, and clears
    /// it: Postgres does not replace a socket whose owner seems to be alive.
    pub(super) fn make_socket_dir(&self, account: &Account) -> Result<(), Error> {
        if self.socket.starts_with(&self.data) {
            remove_dir(&self.socket)?;
            return make_private_dir(&self.socket, account);
        }
        let refuse = |reason: String| Error::SocketFolder {
            path: self.socket.clone(),
            reason,
        };
        if let Ok(found) = fs::symlink_metadata(&self.socket) {
            // In /tmp anybody may have made it. One of our own may still lack
            // its owner, after a crash.
            let own = rustix::process::geteuid().as_raw();
            if !found.is_dir() || ![account.uid, own].contains(&found.uid()) {
                return Err(refuse(format!("belongs to user id {}", found.uid())));
            }
            remove_dir(&self.socket)?;
        }
        make_private_dir(&self.socket, account)
    }

    /// Removes what has no use without a server: a short socket folder.
    pub(super) fn clear_after_stop(&self) {
        if !self.socket.starts_with(&self.data)
            && let Err(error) = remove_dir(&self.socket)
        {
            tracing::warn!("{error}");
        }
    }

    /// The log, for the server to append to.
    pub(super) fn open_log(&self) -> Result<File, Error> {
        open(&self.log, OFlags::WRONLY | OFlags::APPEND).map_err(Error::io("open", &self.log))
    }

    /// The log's length in bytes, to tell later what was added.
    pub(super) fn log_length(&self) -> u64 {
        fs::symlink_metadata(&self.log).map_or(0, |found| found.len())
    }

    /// Copies a long log to `postgres.log.1` and empties it in place, since a
    /// running server has it open; it appends, so it goes on at the start.
    pub(super) fn trim_log(&self) {
        if self.log_length() <= LONGEST_LOG {
            return;
        }
        let old = self.log.with_extension("log.1");
        let trimmed = || -> io::Result<()> {
            let mut from = open(&self.log, OFlags::RDWR)?;
            let mut to = open(&old, OFlags::WRONLY | OFlags::TRUNC)?;
            io::copy(&mut from, &mut to)?;
            from.set_len(0)
        };
        if let Err(error) = trimmed() {
            tracing::warn!("cannot move the long log to {}: {error}", old.display());
        }
    }

    /// The last lines of the log, none from before the byte `from`.
    pub(super) fn log_tail(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            // A log shorter than that has been emptied since.
            let from = if from > length { 0 } else { from };
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(last_lines(&String::from_utf8_lossy(&bytes)))
        };
        read().unwrap_or_else(|error| format!("(it cannot be read: {error})"))
    }
}

/// The last ten lines.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Makes a folder that only the account can enter.
pub(super) fn make_private_dir(path: &Path, account: &Account) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))?;
    if account.switch {
        lchown(path, Some(account.uid), Some(account.gid))
            .map_err(Error::io("change the owner of", path))?;
    }
    Ok(())
}

/// Makes the names in a folder outlive a power failure. Where that is not to be
/// had (a folder that may not be read, a file system that cannot) it is no
/// error, as it is none to Postgres.
pub(super) fn flush_dir(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        flushed => flushed,
    }
}

fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Opens, or creates, a file of our own.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

fn take_lock(data: &Path) -> Result<File, Error> {
    let path = data.join("lock");
    let mut lock = open(&path, OFlags::RDWR).map_err(Error::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message.
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim().parse().ok();
            return Err(Error::Locked {
                path: data.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(Error::io("write", path))?;
    Ok(lock)
}

/// The socket's folder: in the data folder, or where its path is short enough.
/// The short one is named after the data folder's identity on this machine,
/// which two folders cannot share and which survives a rename.
fn socket_dir(data: &Path, account: &Account) -> Result<PathBuf, Error> {
    let own = data.join("socket");
    if own.join(SOCKET_NAME).as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Ok(own);
    }
    let found = fs::metadata(data).map_err(Error::io("open", data))?;
    let name = format!("postrider-{:x}-{:x}", found.dev(), found.ino());
    let root_only = account.switch || rustix::process::geteuid().is_root();
    let place = SHORT_PLACES
        .iter()
        .map(Path::new)
        .find(|place| place.is_dir() && (root_only || !place.ends_with("run")));
    Ok(place.unwrap_or(Path::new("/tmp")).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_shown() {
        assert_eq!(
            last_lines("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n"),
            "3\n4\n5\n6\n7\n8\n9\n10\n11\n12"
        );
        assert_eq!(last_lines("one\n"), "one");
        assert_eq!(last_lines(""), "");
    }
}
