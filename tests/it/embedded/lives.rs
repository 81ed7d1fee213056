//! Starts, stops and crashes.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Signal, getpgid, kill_process, kill_process_group};
use sqlx::{Connection as _, Executor as _};

use super::support::{Folder, KillOnDrop, assert_comes_back, await_that, connect, connect_in, pid};

#[tokio::test]
async fn a_first_start_creates_a_database_and_later_ones_keep_it() -> Result<()> {
    let folder = Folder::new()?;
    let first = folder.start().await?;
    let mut db = connect(&first).await?;
    db.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        .await?;
    db.close().await?;
    first.stop().await?;
    ensure!(!folder.pid_file().exists(), "the pid file is left");

    let later = folder.start().await?;
    let mut db = connect(&later).await?;
    let answer: i32 = sqlx::query_scalar("SELECT answer FROM kept")
        .fetch_one(&mut db)
        .await?;
    assert_eq!(answer, 42);
    db.close().await?;
    later.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn the_server_is_durable_and_reachable_by_its_socket_only() -> Result<()> {
    let folder = Folder::new()?;
    let embedded = folder.start().await?;
    let mut db = connect(&embedded).await?;
    for (name, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
    ] {
        let set: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&mut db)
            .await?;
        assert_eq!(set, value, "{name}");
    }
    let version: String = sqlx::query_scalar("SHOW server_version")
        .fetch_one(&mut db)
        .await?;
    assert_eq!(version.split(' ').next(), Some(embedded.version()));
    #[cfg(target_os = "linux")]
    {
        let environment = format!("/proc/{}/environ", folder.server_pid()?);
        let environment = String::from_utf8_lossy(&fs::read(environment)?).into_owned();
        let keeps = |variable| environment.split('\0').any(|set| set == variable);
        ensure!(keeps("MALLOC_TRIM_THRESHOLD_=67108864"), "{environment}");
        ensure!(keeps("MALLOC_MMAP_THRESHOLD_=33554432"), "{environment}");
    }
    for private in [embedded.socket_dir(), &folder.cluster()] {
        let mode = fs::metadata(private)?.mode() & 0o777;
        assert_eq!(mode, 0o700, "{}", private.display());
    }
    db.close().await?;
    embedded.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_terminated_gateway_stops_its_server() -> Result<()> {
    let folder = Folder::new()?;
    // What a user's shell may hold must not reach the server.
    let gateway = folder.gateway_with(|command| {
        command
            .env("PGPORT", "1")
            .env("PGDATA", "/nowhere")
            .env("PGOPTIONS", "-c geqo=off")
    })?;
    gateway.send(Signal::TERM)?;
    let status = gateway.ended()?;
    ensure!(status.success(), "{status}");
    folder.assert_at_rest()
}

#[tokio::test]
async fn ctrl_c_reaches_the_gateway_alone_which_then_stops_its_server() -> Result<()> {
    let folder = Folder::new()?;
    let gateway = folder.gateway()?;
    let server = folder.server_pid()?;
    assert_ne!(getpgid(Some(pid(server)?))?, getpgid(Some(gateway.pid()?))?);
    kill_process_group(gateway.pid()?, Signal::INT)?;
    let status = gateway.ended()?;
    ensure!(status.success(), "{status}");
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_server_that_outlived_its_gateway_is_taken_over() -> Result<()> {
    let folder = Folder::new()?;
    let gateway = folder.gateway()?;
    let server = folder.server_pid()?;
    gateway.kill()?;

    let embedded = folder.start().await?;
    assert_eq!(folder.server_pid()?, server, "it is the same one");
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_server_taken_over_is_watched_like_any_other() -> Result<()> {
    let folder = Folder::new()?;
    folder.gateway()?.kill()?;
    let embedded = folder.start().await?;
    assert_comes_back(&folder, embedded).await
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() -> Result<()> {
    let folder = Folder::new()?;
    let embedded = folder.start().await?;
    assert_comes_back(&folder, embedded).await
}

#[tokio::test]
async fn a_gateway_and_a_server_that_were_both_killed_recover() -> Result<()> {
    let folder = Folder::new()?;
    let gateway = folder.gateway()?;
    let mut db = connect_in(&folder.path.join("socket")).await?;
    db.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        .await?;
    gateway.kill()?;
    for process in folder.processes() {
        // The others may leave by themselves once their server is gone.
        match kill_process(pid(process)?, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(
        folder.pid_file().exists(),
        "a killed server leaves its pid file"
    );

    let embedded = folder.start().await?;
    let mut db = connect(&embedded).await?;
    let answer: i32 = sqlx::query_scalar("SELECT answer FROM kept")
        .fetch_one(&mut db)
        .await?;
    assert_eq!(answer, 42);
    db.close().await?;
    embedded.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn processes_that_outlived_their_server_are_ended_first() -> Result<()> {
    let folder = Folder::new()?;
    let gateway = folder.gateway()?;
    let mut db = connect_in(&folder.path.join("socket")).await?;
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut db)
        .await?;
    let backend = u32::try_from(backend)?;
    // Stopped, it can neither notice that its server is gone nor be asked to
    // leave; and while it lives, no other server could have the shared memory.
    kill_process(pid(backend)?, Signal::STOP)?;
    gateway.kill()?;
    kill_process(pid(folder.server_pid()?)?, Signal::KILL)?;

    let embedded = folder.start().await?;
    ensure!(
        !folder.processes().contains(&backend),
        "the old backend is still there"
    );
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_pid_file_that_names_a_zombie_is_stale() -> Result<()> {
    let folder = Folder::new()?;
    let pid_file = folder.pid_file_of_a_past_server().await?;
    let mut zombie = folder.as_server("true")?.spawn()?;
    await_that("the process to become a zombie", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", zombie.id()))?;
        Ok(stat.contains(") Z "))
    })?;
    folder.write_pid_file(&pid_file, zombie.id())?;
    let started = folder.start().await;
    zombie.wait()?;
    started?.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_pid_file_that_names_somebody_elses_process_is_stale() -> Result<()> {
    let folder = Folder::new()?;
    let pid_file = folder.pid_file_of_a_past_server().await?;
    // One elsewhere, and one that works in the cluster but is not Postgres.
    for works_in in [Path::new("/"), &folder.cluster()] {
        let mut command = folder.as_server("sleep")?;
        let mut stranger = KillOnDrop(command.arg("600").current_dir(works_in).spawn()?);
        folder.write_pid_file(&pid_file, stranger.0.id())?;
        folder.start().await?.stop().await?;
        ensure!(stranger.0.try_wait()?.is_none(), "the stranger was ended");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_shutting_down_is_waited_for() -> Result<()> {
    let folder = Folder::new()?;
    // A drop tells the server to stop and does not wait.
    drop(folder.start().await?);
    let embedded = folder.start().await?;
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_server_whose_folder_was_renamed_is_replaced() -> Result<()> {
    let mut folder = Folder::new()?;
    folder.gateway()?.kill()?;
    let server = folder.server_pid()?;
    let renamed = folder.path.with_extension("renamed");
    fs::rename(&folder.path, &renamed)?;
    folder.path = renamed;

    let embedded = folder.start().await?;
    assert_ne!(folder.server_pid()?, server);
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    folder.assert_at_rest()
}

#[tokio::test]
async fn a_gateway_killed_while_it_creates_a_database_leaves_nothing_in_the_way() -> Result<()> {
    let folder = Folder::new()?;
    let half_made = folder.path.join("pg.new");
    let gateway = folder.spawn_gateway(|command| command)?;
    await_that("initdb to be at work", || {
        Ok(half_made.join("base").exists())
    })?;
    gateway.kill()?;
    ensure!(!folder.cluster().exists(), "it was not half-way");

    let embedded = folder.start().await?;
    ensure!(!half_made.exists(), "the half-made database is left");
    connect(&embedded).await?.close().await?;
    embedded.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_gateway_on_the_folder_is_refused() -> Result<()> {
    let folder = Folder::new()?;
    let gateway = folder.gateway()?;
    let server = folder.server_pid()?;
    let refused = folder.start().await.err().context("it was let in")?;
    let said = refused.to_string();
    let expected = format!(
        "another gateway (process {}) is using {}",
        gateway.process.0.id(),
        folder.path.display()
    );
    ensure!(said.starts_with(&expected), "{said}");
    ensure!(said.contains("--data-dir"), "{said}");
    assert_eq!(folder.server_pid()?, server, "the first is left in peace");
    gateway.send(Signal::TERM)?;
    gateway.ended()?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_is_quoted() -> Result<()> {
    let folder = Folder::new()?;
    folder.start().await?.stop().await?;
    fs::write(
        folder.cluster().join("postgresql.conf"),
        "this is no setting\n",
    )?;
    let said = folder
        .start()
        .await
        .err()
        .context("it started")?
        .to_string();
    ensure!(said.contains("syntax error in file"), "{said}");
    ensure!(said.contains("postgres.log"), "{said}");
    ensure!(
        !said.contains("database system is ready"),
        "told of an earlier start: {said}"
    );
    Ok(())
}

#[tokio::test]
async fn a_long_log_is_moved_aside() -> Result<()> {
    let folder = Folder::new()?;
    let long = 10 * 1024 * 1024 + 1;
    File::create(folder.path.join("postgres.log"))?.set_len(long)?;
    folder.start().await?.stop().await?;
    assert_eq!(
        fs::metadata(folder.path.join("postgres.log.1"))?.len(),
        long
    );
    ensure!(fs::metadata(folder.path.join("postgres.log"))?.len() < 100_000);
    Ok(())
}
