//! Finding `postgres` and `initdb`.
//!
//! Distributions keep them out of PATH and in a folder per major version, of
//! which several may be installed. A cluster can only be run by the major
//! version that made it; a new one gets the newest.

use std::fs;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::folders::ClusterVersion;
use super::{Error, Options};

/// Where packages put the binaries; `*` stands for a version.
const USUAL_PLACES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
];

/// The server's programs.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) postgres: PathBuf,
    pub(super) initdb: PathBuf,
    pub(super) version: Version,
}

/// A server version. Compares as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    minor: u32,
    /// As Postgres writes it: `15.18`, `19beta1`.
    pub(super) text: String,
}

/// Finds the binaries for `cluster`, or the newest if there is none yet.
pub(super) async fn find(
    options: &Options,
    account: &Account,
    cluster: Option<ClusterVersion>,
) -> Result<Binaries, Error> {
    let mut found: Vec<Binaries> = Vec::new();
    if let Some(path) = &options.bin_dir {
        let binaries = inspect(path, account)
            .await
            .map_err(|reason| Error::BadBinaries {
                path: path.clone(),
                reason,
            })?;
        found.push(binaries);
    } else {
        for folder in candidates() {
            // A folder without them, or with some that do not run here, is
            // just not one to use.
            if let Ok(binaries) = inspect(&folder, account).await
                && !found
                    .iter()
                    .any(|known| known.postgres == binaries.postgres)
            {
                found.push(binaries);
            }
        }
    }
    found.sort_by(|a, b| b.version.cmp(&a.version));
    match cluster {
        None => found.into_iter().next().ok_or_else(none),
        Some(_) if found.is_empty() => Err(none()),
        Some(ClusterVersion { path, major }) => {
            let texts: Vec<_> = found.iter().map(|b| b.version.text.clone()).collect();
            found
                .into_iter()
                .find(|b| b.version.major == major)
                .ok_or_else(|| Error::WrongVersion {
                    path,
                    wanted: major,
                    found: texts.join(", "),
                })
        }
    }
}

fn none() -> Error {
    Error::NoBinaries {
        looked_in: format!("PATH, {}", USUAL_PLACES.join(", ")),
    }
}

/// Every folder that may hold them, those of PATH first.
fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path)
        .filter(|p| p.is_absolute())
        .collect();
    for pattern in USUAL_PLACES {
        folders.extend(expand(pattern));
    }
    folders
}

/// The folders that match a pattern with at most one `*` in it.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(prefix.as_bytes())
        })
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect()
}

/// The binaries of a folder, or why they are of no use.
async fn inspect(folder: &Path, account: &Account) -> Result<Binaries, String> {
    // Links are followed (`/usr/local/bin/postgres` is often one) to know the
    // same binaries again and to find the `initdb` that belongs to them.
    let postgres = fs::canonicalize(folder.join("postgres"))
        .map_err(|_| "there is no `postgres` in it".to_owned())?;
    let initdb = postgres
        .parent()
        .map(|home| home.join("initdb"))
        .filter(|initdb| initdb.is_file())
        .unwrap_or_else(|| folder.join("initdb"));
    if !initdb.is_file() {
        return Err("there is no `initdb` in it".to_owned());
    }
    let mut command = account.command(&postgres);
    let output = command.arg("--version").output().await.map_err(|error| {
        format!(
            "`{}` cannot run {}: {error}",
            account.name,
            postgres.display()
        )
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = Version::parse(&said)
        .ok_or_else(|| format!("{} --version says {said:?}", postgres.display()))?;
    Ok(Binaries {
        postgres,
        initdb,
        version,
    })
}

impl Version {
    /// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    fn parse(said: &str) -> Option<Self> {
        let text = said
            .strip_prefix("postgres (PostgreSQL) ")?
            .split_whitespace()
            .next()?;
        let (major, rest) = leading_number(text)?;
        let minor = rest
            .strip_prefix('.')
            .and_then(leading_number)
            .map_or(0, |(n, _)| n);
        Some(Self {
            major,
            minor,
            text: text.to_owned(),
        })
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Option<Version> {
        Version::parse(&format!("postgres (PostgreSQL) {text}"))
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("9.6.24") < version("15.9"));
        assert!(version("15.9") < version("15.18 (Debian 15.18-0+deb12u1)"));
        assert!(version("15.18") < version("19beta1"));
        assert_eq!(version("19beta1").map(|v| v.major), Some(19));
        assert_eq!(Version::parse("pg_wrapper 3"), None);
    }

    #[test]
    fn a_pattern_expands_to_the_folders_that_match() {
        assert_eq!(expand("/plain/bin"), [PathBuf::from("/plain/bin")]);
        assert!(expand("/usr/l*/x").contains(&PathBuf::from("/usr/lib/x")));
        assert!(expand("/no/such/*/bin").is_empty());
    }
}
