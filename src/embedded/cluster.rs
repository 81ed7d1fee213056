//! Creating the cluster.
//!
//! initdb works in `pg.new`, which is renamed to `pg` when it is whole and on
//! disk. So a `pg` is always a whole one, and a `pg.new` found at start is what
//! a crash left.

use std::fs;

use tokio::time::Instant;

use super::account::Account;
use super::binaries::Binaries;
use super::folders::{Folders, flush_dir, last_lines, make_private_dir};
use super::{Error, SUPERUSER, server};

/// Creates the cluster unless there is one; says whether it did.
pub(super) async fn ensure(
    folders: &Folders,
    account: &Account,
    binaries: &Binaries,
) -> Result<bool, Error> {
    discard_half_made(folders).await?;
    if folders.cluster_version()?.is_some() {
        return Ok(false);
    }
    if !account.has_name().await {
        return Err(Error::NamelessUser {
            uid: account.uid,
            gid: account.gid,
        });
    }
    let began = Instant::now();
    tracing::info!(
        "creating a database in {} with Postgres {}",
        folders.cluster.display(),
        binaries.version.text
    );
    initdb(folders, account, binaries).await?;
    fs::rename(&folders.half_made, &folders.cluster)
        .map_err(Error::io("rename", &folders.half_made))?;
    flush_dir(&folders.data).map_err(Error::io("flush", &folders.data))?;
    tracing::info!("created it in {} ms", began.elapsed().as_millis());
    Ok(true)
}

async fn discard_half_made(folders: &Folders) -> Result<(), Error> {
    if fs::symlink_metadata(&folders.half_made).is_err() {
        return Ok(());
    }
    tracing::warn!(
        "removing a half-made database, {}",
        folders.half_made.display()
    );
    // Its gateway may have been killed, and initdb live on and write there.
    server::end_leftovers(&folders.half_made).await?;
    tokio::fs::remove_dir_all(&folders.half_made)
        .await
        .map_err(Error::io("remove", &folders.half_made))
}

async fn initdb(folders: &Folders, account: &Account, binaries: &Binaries) -> Result<(), Error> {
    make_private_dir(&folders.half_made, account)?;
    let mut command = account.command(&binaries.initdb);
    let output = command
        .arg("-D")
        .arg(&folders.half_made)
        .arg(format!("--username={SUPERUSER}"))
        // Names and keys sort by their bytes, on every machine and after every
        // upgrade of the C library alike: no index can become corrupt by one.
        .args(["--encoding=UTF8", "--locale=C"])
        // A disk that lies is found out.
        .arg("--data-checksums")
        // Who can enter the socket's folder is the server's account or root,
        // who need no password; nobody else can try.
        .args(["--auth-local=trust", "--auth-host=reject"])
        // By which it can be found, should the gateway be killed.
        .current_dir(&folders.half_made)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Error::io("run", &binaries.initdb))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = output.stdout;
    said.extend(output.stderr);
    Err(Error::Initdb {
        path: folders.half_made.clone(),
        status: output.status.to_string(),
        output: last_lines(&String::from_utf8_lossy(&said)),
    })
}
