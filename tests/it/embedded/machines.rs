//! What machines and folders can be like.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use postrider::embedded::{Embedded, Error, Options};
use rustix::process::{Signal, geteuid};
use sqlx::Connection as _;

use super::support::{
    Folder, NAMELESS, ORDINARY, PROGRAM, connect, id_of, program, skip, within_reach,
};
use crate::support::SERVE;

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_socket_folder() -> Result<()> {
    let mut folder = Folder::new()?;
    let outer = folder.path.clone();
    folder.path = outer.join("long".repeat(30));
    let embedded = folder.start().await?;
    let socket_dir = embedded.socket_dir().to_owned();
    ensure!(!socket_dir.starts_with(&outer), "{}", socket_dir.display());
    assert_eq!(fs::metadata(&socket_dir)?.mode() & 0o777, 0o700);
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    ensure!(!socket_dir.exists(), "the short folder is left");
    folder.assert_at_rest()?;

    // Somebody else's thing in its place is neither used nor removed.
    fs::write(&socket_dir, "squatter")?;
    let refused = folder.start().await.err();
    fs::remove_file(&socket_dir)?;
    folder.path = outer;
    let said = refused.context("it started")?.to_string();
    ensure!(said.contains(&*socket_dir.to_string_lossy()), "{said}");
    ensure!(said.contains("shorter --data-dir"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_path_with_spaces_commas_and_quotes_is_a_path() -> Result<()> {
    let mut folder = Folder::new()?;
    let outer = folder.path.clone();
    folder.path = outer.join("a b, c\"d'e");
    let embedded = folder.start().await?;
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    folder.path = outer;
    Ok(())
}

#[tokio::test]
async fn a_folder_without_binaries_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let options = Options {
        bin_dir: Some(folder.path.clone()),
        ..folder.options()
    };
    let said = Embedded::start(options)
        .await
        .err()
        .context("it started")?
        .to_string();
    ensure!(said.contains("--pg-bin"), "{said}");
    ensure!(said.contains(&*folder.path.to_string_lossy()), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_machine_without_postgres_is_told_what_to_type() -> Result<()> {
    // The folders of the binaries are hidden, in a view of its own.
    let hide = "for folder in /usr/lib/postgresql /usr/pgsql-*; do \
                  [ ! -d \"$folder\" ] || mount -t tmpfs none \"$folder\" || exit 77; \
                done; PATH=/nowhere; exec \"$@\"";
    let possible = Command::new("unshare").args(["--mount", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        skip("hiding the binaries takes the right to mount");
        return Ok(());
    }
    let folder = Folder::new()?;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(program())
        .args(SERVE)
        .arg("--data-dir")
        .arg(&folder.path)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{said}");
    for advice in [
        "make setup",
        "apt-get install postgresql",
        "--pg-bin",
        "--database-url",
    ] {
        ensure!(said.contains(advice), "no {advice:?} in: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_database_of_another_major_version_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    folder.start().await?.stop().await?;
    fs::write(folder.cluster().join("PG_VERSION"), "8\n")?;
    let error = folder.start().await.err().context("it started")?;
    ensure!(
        matches!(error, Error::WrongVersion { wanted: 8, .. }),
        "{error}"
    );
    ensure!(
        error.to_string().contains("apt-get install postgresql-8"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_folder_that_is_no_database_is_left_alone() -> Result<()> {
    let folder = Folder::new()?;
    fs::create_dir(folder.cluster())?;
    let precious = folder.cluster().join("precious");
    fs::write(&precious, "mine")?;
    let error = folder.start().await.err().context("it started")?;
    ensure!(matches!(error, Error::NotACluster { .. }), "{error}");
    assert_eq!(fs::read_to_string(precious)?, "mine");
    Ok(())
}

#[tokio::test]
async fn a_folder_closed_to_the_servers_account_is_not_used() -> Result<()> {
    if !geteuid().is_root() {
        skip("only root's server runs as somebody else");
        return Ok(());
    }
    let folder = Folder::new()?;
    let closed = folder.path.join("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, Permissions::from_mode(0o700))?;
    let wanted = closed.join("data");
    let chosen = Options {
        data_dir: wanted.clone(),
        fallback_dir: None,
        bin_dir: None,
    };

    let said = Embedded::start(chosen.clone())
        .await
        .err()
        .context("it started")?
        .to_string();
    ensure!(
        said.contains(&format!("chmod o+x {}", closed.display())),
        "{said}"
    );
    ensure!(said.contains("--data-dir /var/lib/postrider"), "{said}");
    ensure!(!wanted.exists(), "something was made in it");

    let by_default = Options {
        fallback_dir: Some(folder.path.join("fallback")),
        ..chosen
    };
    let embedded = Embedded::start(by_default.clone()).await?;
    assert_eq!(embedded.data_dir(), folder.path.join("fallback"));
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;

    // A database that is there already is never swapped for another.
    fs::rename(folder.path.join("fallback"), &wanted)?;
    let error = Embedded::start(by_default)
        .await
        .err()
        .context("it started")?;
    ensure!(matches!(error, Error::CannotEnter { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_database_stays_with_the_user_who_made_it() -> Result<()> {
    if !geteuid().is_root() {
        skip("only root can run a gateway as two users");
        return Ok(());
    }
    let ordinary = id_of(ORDINARY)?;
    let mut folder = Folder::new()?;
    chown(&folder.path, Some(ordinary), None)?;
    folder.user = Some(ordinary);
    let gateway = folder.gateway()?;
    gateway.send(Signal::TERM)?;
    gateway.ended()?;

    let embedded = folder.start().await?;
    let server = fs::metadata(format!("/proc/{}", folder.server_pid()?))?;
    assert_eq!(server.uid(), ordinary, "root's server runs as the owner");
    embedded.stop().await?;

    folder.user = Some(NAMELESS);
    let said = folder.refused_gateway()?;
    ensure!(
        said.contains(&format!("belongs to user id {ordinary}")),
        "{said}"
    );
    ensure!(
        said.contains(&format!("run the gateway as root or {ORDINARY}")),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_user_without_a_name_is_told_what_to_type() -> Result<()> {
    if !geteuid().is_root() {
        skip("only root can become a user without a name");
        return Ok(());
    }
    let mut folder = Folder::new()?;
    chown(&folder.path, Some(NAMELESS), None)?;
    folder.user = Some(NAMELESS);
    let said = folder.refused_gateway()?;
    ensure!(
        said.contains(&format!("user id {NAMELESS} has no entry in /etc/passwd")),
        "{said}"
    );
    ensure!(said.contains("--database-url"), "{said}");
    Ok(())
}

#[test]
fn everything_here_holds_for_an_ordinary_user_too() -> Result<()> {
    if !geteuid().is_root() {
        skip("these tests run as an ordinary user already");
        return Ok(());
    }
    let folder = Folder::new()?;
    let ordinary = id_of(ORDINARY)?;
    let tests = within_reach(std::env::current_exe()?, ordinary, &folder.path)?;
    let program = within_reach(program(), ordinary, &folder.path)?;
    let output = Command::new(tests)
        .arg("embedded::")
        .uid(ordinary)
        .gid(ordinary)
        .current_dir(&folder.path)
        .env("HOME", &folder.path)
        .env(PROGRAM, program)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "as {ORDINARY}:\n{said}\n{errors}");
    ensure!(!said.contains("running 0 tests"), "none was run: {said}");
    Ok(())
}
