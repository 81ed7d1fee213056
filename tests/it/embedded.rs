//! The embedded Postgres: every way in which a start, a stop, a crash or a
//! machine can differ from the usual.
//!
//! Run by root, the server runs as an unprivileged account, and one test runs
//! all the others again as an ordinary user.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postrider::embedded::{Embedded, Error, Options};
use rustix::process::{Pid, Signal, geteuid, getpgid, kill_process, kill_process_group};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// An ordinary user that every machine has, and a user id that none has.
const ORDINARY: &str = "nobody";
const NAMELESS: u32 = 1_987_654_321;

/// Where the program is when the ordinary user cannot reach the usual place;
/// set in the tests that run again.
const PROGRAM: &str = "POSTRIDER_TEST_PROGRAM";

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
        kill_process(pid(process)?, Signal::KILL)?;
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
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
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

/// Kills the server, waits until there is another, and stops it.
async fn assert_comes_back(folder: &Folder, embedded: Embedded) -> Result<()> {
    let socket_dir = embedded.socket_dir().to_owned();
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let supervised = tasks.spawn(embedded.supervise(stop.clone()));
    // Twice: a second death soon after the first has a pause before it.
    for _ in 0..2 {
        let killed = folder.server_pid()?;
        kill_process(pid(killed)?, Signal::KILL)?;
        let began = Instant::now();
        loop {
            let back = folder.server_pid().is_ok_and(|pid| pid != killed);
            if back && let Ok(db) = connect_in(&socket_dir).await {
                db.close().await?;
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "it did not come back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!("back after {} ms", began.elapsed().as_millis());
    }
    stop.cancel();
    supervised.await??;
    folder.assert_at_rest()
}

/// Says why a test does nothing here.
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

async fn connect(embedded: &Embedded) -> Result<PgConnection> {
    assert_eq!(embedded.user(), "postgres");
    connect_in(embedded.socket_dir()).await
}

async fn connect_in(socket_dir: &Path) -> Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username("postgres")
        .database("postgres");
    Ok(PgConnection::connect_with(&options).await?)
}

/// The gateway's program.
fn program() -> PathBuf {
    std::env::var_os(PROGRAM)
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into())
        .into()
}

/// The program, or a copy of it in `folder` if the user cannot reach it, as in
/// a home that is closed to others.
fn within_reach(program: PathBuf, user: u32, folder: &Path) -> Result<PathBuf> {
    let mut test = Command::new("test");
    test.arg("-x")
        .arg(&program)
        .uid(user)
        .gid(user)
        .current_dir("/");
    if test.status()?.success() {
        return Ok(program);
    }
    let copy = folder.join(program.file_name().context("a program has a name")?);
    // By another process: were the copy open for writing in this one, a child
    // that another test starts could hold it open, and it could not be run.
    let copied = Command::new("cp").arg(&program).arg(&copy).status()?;
    ensure!(copied.success(), "cannot copy {}", program.display());
    Ok(copy)
}

fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(id)?).context("a process id is not 0")
}

fn id_of(user: &str) -> Result<u32> {
    let output = Command::new("id").args(["-u", user]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Looks until it is so.
fn await_that(what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so()? {
        ensure!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A data folder that the server's account can enter. Dropped, it ends what
/// works in it and is removed.
struct Folder {
    path: PathBuf,
    /// Whom gateways run as, if not as the test.
    user: Option<u32>,
}

impl Folder {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postrider-embedded-{}-{count}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir())?.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(Self { path, user: None })
    }

    fn options(&self) -> Options {
        Options {
            data_dir: self.path.clone(),
            fallback_dir: None,
            bin_dir: None,
        }
    }

    async fn start(&self) -> Result<Embedded, Error> {
        Embedded::start(self.options()).await
    }

    fn cluster(&self) -> PathBuf {
        self.path.join("pg")
    }

    fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    fn server_pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.pid_file())?;
        Ok(text.lines().next().unwrap_or_default().parse()?)
    }

    /// What the pid file said of a server that has been stopped since.
    async fn pid_file_of_a_past_server(&self) -> Result<String> {
        let embedded = self.start().await?;
        let text = fs::read_to_string(self.pid_file())?;
        embedded.stop().await?;
        Ok(text)
    }

    /// Puts the pid file back, with another process in it.
    fn write_pid_file(&self, text: &str, id: u32) -> Result<()> {
        let (_, rest) = text
            .split_once('\n')
            .context("a pid file has several lines")?;
        fs::write(self.pid_file(), format!("{id}\n{rest}"))?;
        Ok(())
    }

    /// A program that runs as the account that the server runs as.
    fn as_server(&self, program: &str) -> Result<Command> {
        let owner = fs::metadata(self.cluster())?;
        let mut command = Command::new(program);
        if geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        Ok(command)
    }

    /// A gateway that is up.
    fn gateway(&self) -> Result<Gateway> {
        self.gateway_with(|command| command)
    }

    fn gateway_with(&self, change: impl Fn(&mut Command) -> &mut Command) -> Result<Gateway> {
        let mut gateway = self.spawn_gateway(change)?;
        gateway.until_listening()?;
        Ok(gateway)
    }

    /// A gateway that has just been started.
    fn spawn_gateway(&self, change: impl Fn(&mut Command) -> &mut Command) -> Result<Gateway> {
        let output = self.path.join("gateway.log");
        let mut program = program();
        if let Some(user) = self.user {
            program = within_reach(program, user, &self.path)?;
        }
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&self.path)
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&output)?)
            .process_group(0);
        change(&mut command);
        Ok(Gateway {
            process: KillOnDrop(command.spawn()?),
            output,
        })
    }

    /// What a gateway says that does not start.
    fn refused_gateway(&self) -> Result<String> {
        let mut gateway = self.spawn_gateway(|command| command)?;
        let status = gateway.process.wait()?;
        let said = fs::read_to_string(&gateway.output)?;
        ensure!(!status.success(), "it started: {said}");
        Ok(said)
    }

    /// The processes that work in the folder, the gateway's excepted.
    fn processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let works_here = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd"))
                .is_ok_and(|folder| folder != self.path && folder.starts_with(&self.path))
        };
        entries
            .flatten()
            .filter(works_here)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn assert_at_rest(&self) -> Result<()> {
        let left = self.processes();
        ensure!(left.is_empty(), "processes are left: {left:?}");
        ensure!(!self.pid_file().exists(), "the pid file is left");
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        while let Some(process) = self.processes().first() {
            if pid(*process).is_ok_and(|pid| kill_process(pid, Signal::KILL).is_err()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// A process that does not outlive its test.
struct KillOnDrop(Child);

impl KillOnDrop {
    fn wait(&mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(began.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            eprintln!("process {} is out of reach", self.0.id());
        }
    }
}

/// `postrider serve`, as a process.
struct Gateway {
    process: KillOnDrop,
    output: PathBuf,
}

impl Gateway {
    fn pid(&self) -> Result<Pid> {
        pid(self.process.0.id())
    }

    fn until_listening(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let ended = self.process.0.try_wait()?;
            let said = fs::read_to_string(&self.output)?;
            if said.contains("listening on http://") {
                return Ok(());
            }
            ensure!(ended.is_none(), "the gateway ended:\n{said}");
            ensure!(
                began.elapsed() < PATIENCE,
                "the gateway does not listen:\n{said}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Waits for its end.
    fn ended(mut self) -> Result<ExitStatus> {
        self.process.wait()
    }

    /// As `kill -9` does; returns when it is gone.
    fn kill(self) -> Result<()> {
        self.send(Signal::KILL)?;
        self.ended()?;
        Ok(())
    }
}
