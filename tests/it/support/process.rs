//! The gateway as a process of its own, to be killed or listened to.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Arguments that serve whoever asks, on a port that is free.
pub(crate) const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--auth", "off"];

/// The program, without settings from the environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let settings = ["POSTRIDER_", "PG", "OTEL_"];
        if settings.iter().any(|of| name.starts_with(of)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// A running `postrider serve`; stopped when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts it with [`SERVE`] and more, and waits until it listens.
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut command = program();
        command.args(SERVE).args(args);
        Self::spawn(command)
    }

    /// The same with a command that says all by itself.
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_into(command, Stdio::null())
    }

    /// The same, and what it prints goes there.
    pub(crate) fn spawn_into(mut command: Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::<Mutex<String>>::default();
        let written = Arc::clone(&log);
        let (found, url) = mpsc::channel();
        let reading = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let end = rest.find(|c: char| c.is_whitespace() || c == '"');
                    let _ = found.send(rest[..end.unwrap_or(rest.len())].to_owned());
                }
                let mut log = written.lock().unwrap();
                *log += &line;
                *log += "\n";
            }
        });
        // The channel closes when it ends without having listened.
        let url = url.recv_timeout(Duration::from_mins(1));
        let url = url.unwrap_or_else(|e| panic!("{e}: {}", log.lock().unwrap()));
        Self {
            child,
            url,
            log,
            reading: Some(reading),
        }
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// SIGTERM; its whole log, once it has ended.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        self.reading.take().unwrap().join().unwrap();
        assert!(status.success(), "{}", self.log());
        self.log()
    }

    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.log());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most that it has had in memory so far, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
        kib / 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// SIGSTOP; and then none of its threads runs, which takes a moment: each has to
    /// be on a processor once in order to stop.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.id());
        let is_stopped = |thread: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        let started = std::time::Instant::now();
        while !(std::fs::read_dir(&threads).unwrap().flatten()).all(is_stopped) {
            assert!(started.elapsed() < Duration::from_secs(30), "it goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, at most so long.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < limit, "it did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM first: with a private Postgres, that has to be stopped too.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            for _ in 0..1000 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An immediate shutdown of the private Postgres in this folder: what was not
/// flushed is gone.
pub(crate) fn kill_postgres(data_dir: &Path) {
    let pid_file = std::fs::read_to_string(data_dir.join("pg/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::QUIT).unwrap();
}

/// A folder that the private Postgres' account can enter; removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("postrider-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
