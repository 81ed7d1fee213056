//! What a gateway tells of itself while it works: log and traces. In processes of
//! their own, since both are set once for a process.

mod canaries;
mod lines;
mod traces;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Answer, Database, eventually, http_client};

/// The program, with this database, and with no variables of its own.
fn postrider(database_url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["POSTRIDER_", "PG", "OTEL_"]
            .iter()
            .any(|of| name.starts_with(of))
        {
            command.env_remove(&*name);
        }
    }
    command.env("POSTRIDER_DATABASE_URL", database_url);
    command
}

/// An admin's key.
fn admin_key(database_url: &str) -> String {
    let output = postrider(database_url).arg("admin-key").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A running `postrider serve`.
struct Running {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
    client: reqwest::Client,
    /// Sent with every request.
    key: Option<String>,
}

impl Running {
    /// With this database, these arguments and variables. Keys are not asked for
    /// unless the arguments say so.
    async fn start(database_url: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/secret.key");
        let mut child = postrider(database_url)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--secret-key-file", key, "--webhook-allow", "127.0.0.0/8"])
            .args(args)
            .env("POSTRIDER_AUTH", "off")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::<Mutex<String>>::default();
        let written = Arc::clone(&log);
        let reading = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap();
                *log += &line;
                *log += "\n";
            }
        });
        let mut running = Self {
            child,
            url: String::new(),
            log,
            reading: Some(reading),
            client: http_client(),
            key: None,
        };
        running.said("listening on http://").await;
        let log = running.log();
        let (_, rest) = log.split_once("listening on ").unwrap();
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap();
        rest[..end].clone_into(&mut running.url);
        running
    }

    /// Its log so far.
    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log says so.
    async fn said(&mut self, what: &str) {
        eventually(what, async || {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.log());
            self.log().contains(what)
        })
        .await;
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, method: Method, path: &str, json: Value) -> Answer {
        let request = self.request(method, path);
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(json.to_string())).await
    }

    async fn post(&self, path: &str, json: Value) -> Answer {
        self.send(Method::POST, path, json).await
    }

    async fn queue(&self, name: &str, settings: Value) {
        let path = format!("/v1/queues/{name}");
        let made = self.send(Method::PUT, &path, settings).await;
        made.expect(StatusCode::CREATED);
    }

    /// SIGTERM; its whole log, once it has ended.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        self.reading.take().unwrap().join().unwrap();
        assert!(status.success(), "{}", self.log());
        self.log()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(args: &[&str], variables: &[(&str, &str)]) -> (Database, Running) {
    let database = Database::migrated().await;
    let running = Running::start(&database.url(), args, variables).await;
    (database, running)
}
