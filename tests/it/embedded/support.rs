//! Folders, processes, and how to look at them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postrider::embedded::{Embedded, Error, Options};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::SERVE;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// An ordinary user that every machine has, and a user id that none has.
pub(super) const ORDINARY: &str = "nobody";
pub(super) const NAMELESS: u32 = 1_987_654_321;

/// Where the program is when the ordinary user cannot reach the usual place;
/// set in the tests that run again.
pub(super) const PROGRAM: &str = "POSTRIDER_TEST_PROGRAM";

/// Kills the server, waits until there is another, and stops it.
pub(super) async fn assert_comes_back(folder: &Folder, embedded: Embedded) -> Result<()> {
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
pub(super) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

pub(super) async fn connect(embedded: &Embedded) -> Result<PgConnection> {
    assert_eq!(embedded.user(), "postgres");
    connect_in(embedded.socket_dir()).await
}

pub(super) async fn connect_in(socket_dir: &Path) -> Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username("postgres")
        .database("postgres");
    Ok(PgConnection::connect_with(&options).await?)
}

/// The gateway's program.
pub(super) fn program() -> PathBuf {
    std::env::var_os(PROGRAM)
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into())
        .into()
}

/// The program, or a copy of it in `folder` if the user cannot reach it, as in
/// a home that is closed to others.
pub(super) fn within_reach(program: PathBuf, user: u32, folder: &Path) -> Result<PathBuf> {
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

pub(super) fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(id)?).context("a process id is not 0")
}

pub(super) fn id_of(user: &str) -> Result<u32> {
    let output = Command::new("id").args(["-u", user]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Looks until it is so.
pub(super) fn await_that(what: &str, so: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so()? {
        ensure!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A data folder that the server's account can enter. Dropped, it ends what
/// works in it and is removed.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Whom gateways run as, if not as the test.
    pub(super) user: Option<u32>,
}

impl Folder {
    pub(super) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postrider-embedded-{}-{count}", std::process::id());
        let path = fs::canonicalize(std::env::temp_dir())?.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(Self { path, user: None })
    }

    pub(super) fn options(&self) -> Options {
        Options {
            data_dir: self.path.clone(),
            fallback_dir: None,
            bin_dir: None,
        }
    }

    pub(super) async fn start(&self) -> Result<Embedded, Error> {
        Embedded::start(self.options()).await
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.path.join("pg")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    pub(super) fn server_pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.pid_file())?;
        Ok(text.lines().next().unwrap_or_default().parse()?)
    }

    /// What the pid file said of a server that has been stopped since.
    pub(super) async fn pid_file_of_a_past_server(&self) -> Result<String> {
        let embedded = self.start().await?;
        let text = fs::read_to_string(self.pid_file())?;
        embedded.stop().await?;
        Ok(text)
    }

    /// Puts the pid file back, with another process in it.
    pub(super) fn write_pid_file(&self, text: &str, id: u32) -> Result<()> {
        let (_, rest) = text
            .split_once('\n')
            .context("a pid file has several lines")?;
        fs::write(self.pid_file(), format!("{id}\n{rest}"))?;
        Ok(())
    }

    /// A program that runs as the account that the server runs as.
    pub(super) fn as_server(&self, program: &str) -> Result<Command> {
        let owner = fs::metadata(self.cluster())?;
        let mut command = Command::new(program);
        if geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        Ok(command)
    }

    /// A gateway that is up.
    pub(super) fn gateway(&self) -> Result<Gateway> {
        self.gateway_with(|command| command)
    }

    pub(super) fn gateway_with(
        &self,
        change: impl Fn(&mut Command) -> &mut Command,
    ) -> Result<Gateway> {
        let mut gateway = self.spawn_gateway(change)?;
        gateway.until_listening()?;
        Ok(gateway)
    }

    /// A gateway that has just been started.
    pub(super) fn spawn_gateway(
        &self,
        change: impl Fn(&mut Command) -> &mut Command,
    ) -> Result<Gateway> {
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
            .args(SERVE)
            .arg("--data-dir")
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
    pub(super) fn refused_gateway(&self) -> Result<String> {
        let mut gateway = self.spawn_gateway(|command| command)?;
        let status = gateway.process.wait()?;
        let said = fs::read_to_string(&gateway.output)?;
        ensure!(!status.success(), "it started: {said}");
        Ok(said)
    }

    /// The processes that work in the folder, the gateway's excepted.
    pub(super) fn processes(&self) -> Vec<u32> {
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

    pub(super) fn assert_at_rest(&self) -> Result<()> {
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
pub(super) struct KillOnDrop(pub(super) Child);

impl KillOnDrop {
    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
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
pub(super) struct Gateway {
    pub(super) process: KillOnDrop,
    pub(super) output: PathBuf,
}

impl Gateway {
    pub(super) fn pid(&self) -> Result<Pid> {
        pid(self.process.0.id())
    }

    pub(super) fn until_listening(&mut self) -> Result<()> {
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

    pub(super) fn send(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Waits for its end.
    pub(super) fn ended(mut self) -> Result<ExitStatus> {
        self.process.wait()
    }

    /// As `kill -9` does; returns when it is gone.
    pub(super) fn kill(self) -> Result<()> {
        self.send(Signal::KILL)?;
        self.ended()?;
        Ok(())
    }
}
