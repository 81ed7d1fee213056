//! Why there is no embedded Postgres, and what the reader can do about it.

use std::io;
use std::path::PathBuf;

/// Why the embedded Postgres could not be started or stopped. Each message
/// ends with what to type or do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server binaries on the machine.
    #[error(
        "found no Postgres on this machine (looked for `postgres` and `initdb` in {looked_in}); \
         type `make setup` or `apt-get install postgresql`, say where they are with --pg-bin \
         (POSTRIDER_PG_BIN), or use another server with --database-url"
    )]
    NoBinaries {
        /// The folders, with commas between.
        looked_in: String,
    },
    /// The folder that was named holds no usable binaries.
    #[error(
        "--pg-bin (POSTRIDER_PG_BIN) says {path}, but {reason}; \
         name the folder that holds `postgres` and `initdb`, or leave the option out"
    )]
    BadBinaries {
        /// The folder that was named.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster was made by another major version than any that is here.
    #[error(
        "the database in {path} was made by Postgres {wanted}, and this machine has {found}; \
         type `apt-get install postgresql-{wanted}`, or point --pg-bin (POSTRIDER_PG_BIN) at it"
    )]
    WrongVersion {
        /// The cluster.
        path: PathBuf,
        /// The major version it needs.
        wanted: u32,
        /// The versions that were found.
        found: String,
    },
    /// Another gateway uses the data folder.
    #[error(
        "another gateway{} is using {path}; stop it first, give this one its own folder with \
         --data-dir, or let both share a server with --database-url",
        .holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// The process id that the holder wrote, if it could be read.
        holder: Option<u32>,
    },
    /// The account that runs the server may not pass through a folder.
    #[error(
        "Postgres refuses to run as root, so it runs as `{account}`, which may not enter {closed}; \
         choose another folder with `--data-dir {}`, or type `chmod o+x {closed}`",
        super::SYSTEM_DATA_DIR
    )]
    CannotEnter {
        /// The server's account.
        account: String,
        /// The first folder on the way that is closed to it.
        closed: PathBuf,
    },
    /// There is no unprivileged account to run the server.
    #[error(
        "Postgres refuses to run as root, and this machine has no `postgres` account to run it; \
         type `useradd --system postgres`, or run the gateway as an ordinary user"
    )]
    NoAccount,
    /// Root is not allowed to become the server's account.
    #[error(
        "Postgres refuses to run as root, and root may not become `{account}` here ({source}); \
         run the gateway as an ordinary user, or use another server with --database-url"
    )]
    CannotSwitch {
        /// The server's account.
        account: String,
        /// What the system said.
        source: io::Error,
    },
    /// The gateway's user id has no name, and initdb insists on one.
    #[error(
        "user id {uid} has no entry in /etc/passwd, without which initdb cannot create a database; \
         type (as root) `echo 'postrider:x:{uid}:{gid}::/:/usr/sbin/nologin' >> /etc/passwd`, \
         run the gateway as a user that has one, or use another server with --database-url"
    )]
    NamelessUser {
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
    },
    /// The cluster belongs to somebody who cannot be the server's account.
    #[error(
        "the database in {path} belongs to user id {owner}, and Postgres runs only as its owner; \
         {advice}, or choose another folder with --data-dir"
    )]
    ForeignCluster {
        /// The cluster.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// What to type.
        advice: String,
    },
    /// Where the cluster should be is something else.
    #[error(
        "{path} is there but holds no database; move it away, or choose another folder with --data-dir"
    )]
    NotACluster {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that must be private is not.
    #[error(
        "the path of the socket in the data folder is too long, and the short folder to use \
         instead, {path}, {reason}; remove it, or choose a shorter --data-dir"
    )]
    SocketFolder {
        /// The short folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// initdb failed.
    #[error("initdb could not create a database in {path} ({status}); it said:\n{output}")]
    Initdb {
        /// Where it was to be.
        path: PathBuf,
        /// How it ended.
        status: String,
        /// The last lines of what it said.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("Postgres did not start ({status}); the end of {log}:\n{tail}")]
    DidNotStart {
        /// How it ended.
        status: String,
        /// The log's path.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Processes of an earlier server cannot be ended.
    #[error(
        "process {pid}, a Postgres process that uses {path}, does not end; \
         look at it with `ps -fp {pid}`"
    )]
    StillRunning {
        /// One of the processes.
        pid: u32,
        /// The cluster it uses.
        path: PathBuf,
    },
    /// Something was refused by the system.
    #[error("cannot {doing} {path}: {source}{}", advice_for(.source))]
    Io {
        /// The verb.
        doing: &'static str,
        /// Its object.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: `Error::io("open", path)`.
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

fn advice_for(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; run the gateway as a user that may, or choose another folder with --data-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or choose a folder on another disk with --data-dir"
        }
        _ => "",
    }
}
