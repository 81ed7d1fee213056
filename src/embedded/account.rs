//! Who runs the server.
//!
//! An ordinary user runs it as itself. Root cannot (Postgres refuses), so its
//! server runs as the owner of the cluster if there is one, else as
//! `postgres`, which the distributions' packages create, else as `nobody`.
//! Programs are started under the account with their group and user id set and
//! every supplementary group dropped.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::Error;

/// Tried in this order under root.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// A user that programs can be started as.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whether it is another one than the gateway's own.
    pub(super) switch: bool,
}

impl Account {
    /// The account for the cluster at `cluster`, which need not exist.
    pub(super) async fn choose(cluster: &Path) -> Result<Self, Error> {
        let own = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let owner = owner_of(cluster);
        let foreign = |owner, advice| Error::ForeignCluster {
            path: cluster.to_owned(),
            owner,
            advice,
        };
        match (own, owner) {
            (0, Some(owner)) if owner.uid() == 0 => {
                let name = Self::unprivileged().await.map(|account| account.name)?;
                let advice = format!("type `chown -R {name}: {}`", cluster.display());
                Err(foreign(0, advice))
            }
            (0, Some(owner)) => Ok(Self {
                name: name_of(owner.uid()).await,
                uid: owner.uid(),
                gid: owner.gid(),
                switch: true,
            }),
            (0, None) => Self::unprivileged().await,
            (_, Some(owner)) if owner.uid() != own => {
                let name = name_of(owner.uid()).await;
                Err(foreign(
                    owner.uid(),
                    format!("run the gateway as root or {name}"),
                ))
            }
            _ => Ok(Self {
                name: name_of(own).await,
                uid: own,
                gid: group,
                switch: false,
            }),
        }
    }

    async fn unprivileged() -> Result<Self, Error> {
        for name in UNPRIVILEGED {
            if let Some(Entry { name, uid, gid }) = look_up(name).await {
                return Ok(Self {
                    name,
                    uid,
                    gid,
                    switch: true,
                });
            }
        }
        Err(Error::NoAccount)
    }

    /// Whether initdb can put a name to the account, which it insists on.
    pub(super) async fn has_name(&self) -> bool {
        look_up(&self.uid.to_string()).await.is_some()
    }

    /// A command that will run under the account, in a process group of its
    /// own, with nothing of the gateway's that could change what Postgres does.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(variable);
            }
        }
        command
            // Postgres reports to systemd that it is ready; that is for the
            // gateway to say.
            .env_remove("NOTIFY_SOCKET")
            // Messages that we can read, and on macOS no threads at start.
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::null())
            // The gateway's own may be closed to the account.
            .current_dir("/")
            .process_group(0);
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Fails unless the account can pass through `folder`. Asked of the system
    /// rather than worked out from permissions, which are not all there is.
    pub(super) async fn must_enter(&self, folder: &Path) -> Result<(), Error> {
        if self.enters(folder).await.is_ok() {
            return Ok(());
        }
        self.enters(Path::new("/"))
            .await
            .map_err(|source| Error::CannotSwitch {
                account: self.name.clone(),
                source,
            })?;
        let mut closed: PathBuf = folder.to_owned();
        for ancestor in folder.ancestors().skip(1) {
            if self.enters(ancestor).await.is_ok() {
                break;
            }
            ancestor.clone_into(&mut closed);
        }
        Err(Error::CannotEnter {
            account: self.name.clone(),
            closed,
        })
    }

    async fn enters(&self, folder: &Path) -> io::Result<()> {
        let mut command = self.command("/bin/sh");
        command
            .args(["-c", ":"])
            .current_dir(folder)
            .status()
            .await
            .map(|_| ())
    }
}

/// Who owns the cluster, if there is one.
fn owner_of(cluster: &Path) -> Option<fs::Metadata> {
    match fs::metadata(cluster.join("PG_VERSION")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // There, or behind a door that is closed to us.
        _ => fs::metadata(cluster).ok(),
    }
}

/// What a line of the user database says.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
}

/// The entry of a user by name or number: from `/etc/passwd`, or, for users
/// kept elsewhere (LDAP, systemd), from `getent`.
async fn look_up(key: &str) -> Option<Entry> {
    if let Ok(passwd) = fs::read_to_string("/etc/passwd")
        && let Some(entry) = find_entry(&passwd, key)
    {
        return Some(entry);
    }
    let output = Command::new("getent")
        .args(["passwd", key])
        .output()
        .await
        .ok()?;
    find_entry(&String::from_utf8_lossy(&output.stdout), key)
}

fn find_entry(passwd: &str, key: &str) -> Option<Entry> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let matches = name == key || uid == key;
        matches.then_some(Entry {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    })
}

/// For messages: the name, or the number where there is none.
async fn name_of(uid: u32) -> String {
    look_up(&uid.to_string())
        .await
        .map_or_else(|| format!("user id {uid}"), |entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        broken line\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn entries_are_found_by_name_and_by_number() {
        let postgres = Entry {
            name: "postgres".into(),
            uid: 101,
            gid: 104,
        };
        assert_eq!(find_entry(PASSWD, "postgres").as_ref(), Some(&postgres));
        assert_eq!(find_entry(PASSWD, "101"), Some(postgres));
        assert_eq!(find_entry(PASSWD, "104"), None);
    }
}
