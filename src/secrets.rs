//! The key that seals webhooks' secrets, in a file of its own: not in the
//! database, whose backups would otherwise hold the lock and the key together.
//!
//! Beside a private Postgres the file is made at the first start. Over a
//! Postgres of somebody else's all gateways need the same key, which only the
//! operator can give to them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::domain::SealingKey;

/// The file's name in the data folder.
const FILE: &str = "secret.key";

/// Bytes of a key file that are looked at: twice what the longest form takes,
/// for white space.
const LONGEST: u64 = 128;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such file, or no access.
    #[error(
        "cannot {action} the key file {} (`openssl rand -hex 32 > FILE` makes one; \
         --secret-key-file names it)",
        path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in it.
    #[error("the key file {} holds no key: {what} (`openssl rand -hex 32` makes one)", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what is in there.
        what: &'static str,
    },
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The gateway's key: from the file that was named, or else from the data folder
/// of the private Postgres, made there if it is missing. `None` with neither.
///
/// # Errors
/// [`Error`].
pub fn sealing_key(
    named: Option<&Path>,
    data_dir: Option<&Path>,
) -> Result<Option<SealingKey>, Error> {
    match (named, data_dir) {
        (Some(named), _) => read(named).map(Some),
        (None, Some(data_dir)) => read_or_make(data_dir).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<SealingKey, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("open", path))?;
    if found.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "others on this machine may read the key file {}: chmod 600 keeps them out",
            path.display()
        );
    }
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    let what = match read {
        Ok(_) => match SealingKey::parse(&text) {
            Ok(key) => return Ok(key),
            Err(what) => what,
        },
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "it is not text",
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    Err(Error::Malformed {
        path: path.to_owned(),
        what,
    })
}

fn read_or_make(data_dir: &Path) -> Result<SealingKey, Error> {
    let path = data_dir.join(FILE);
    if !path.try_exists().map_err(Error::io("open", &path))? {
        make(data_dir, &path)?;
    }
    read(&path)
}

/// Makes the file, whole and flushed, or not at all. Of several who do so at the
/// same time one wins, and all read its key: a link never replaces what is
/// there.
fn make(data_dir: &Path, path: &Path) -> Result<(), Error> {
    let unfinished = data_dir.join(format!("{FILE}.{:016x}", rand::random::<u64>()));
    let written = write(&unfinished).map_err(Error::io("write", &unfinished));
    let linked = written.and_then(|()| match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(Error::io("make", path)),
    });
    // Not there if it could not be written.
    let _ = fs::remove_file(&unfinished);
    linked?;
    // The name, too, has to outlive a power failure: secrets that are sealed
    // with a lost key are lost.
    File::open(data_dir)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("flush the folder of", path))
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    for byte in rand::random::<[u8; SealingKey::BYTES]>() {
        write!(file, "{byte:02x}")?;
    }
    writeln!(file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(key: &SealingKey, other: &SealingKey) -> bool {
        let sealed = key.seal([0; 12], b"x", b"");
        other.open(&sealed, b"").is_ok()
    }

    fn of(data_dir: &Path) -> SealingKey {
        sealing_key(None, Some(data_dir))
            .expect("no error")
            .expect("a key")
    }

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = of(folder.path());
        assert!(opens(&first, &of(folder.path())));
        let names: Vec<_> = fs::read_dir(folder.path())
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert_eq!(names, [FILE]);
        let found = fs::metadata(folder.path().join(FILE)).expect("there");
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().expect("a folder");
        assert!(!opens(&first, &of(other.path())));
    }

    #[test]
    fn gateways_that_race_end_with_one_key() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder");
            let barrier = std::sync::Barrier::new(8);
            let keys: Vec<SealingKey> = std::thread::scope(|scope| {
                let racing: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            of(folder.path())
                        })
                    })
                    .collect();
                racing
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"))
                    .collect()
            });
            assert!(keys.iter().all(|key| opens(&keys[0], key)));
        }
    }

    #[test]
    fn a_file_that_is_named_is_never_made_and_errors_do_not_show_what_is_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let missing = sealing_key(Some(&path), Some(folder.path())).expect_err("missing");
        assert!(missing.to_string().contains("openssl rand -hex 32"));
        assert!(!path.exists());

        for content in [&b"s3cret"[..], b"", b"\xff\xfe", &[b'a'; 1000]] {
            fs::write(&path, content).expect("written");
            let error = sealing_key(Some(&path), None).expect_err("malformed");
            let error = error.to_string();
            assert!(error.contains("holds no key"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        fs::write(&path, "ab".repeat(32) + "\n").expect("written");
        let key = sealing_key(Some(&path), None).expect("no error");
        assert!(opens(&SealingKey::new([0xab; 32]), &key.expect("a key")));
        assert!(matches!(sealing_key(None, None), Ok(None)));
    }
}
