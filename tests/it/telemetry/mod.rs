//! What a gateway tells of itself while it works: log and traces. In processes of
//! their own, since both are set once for a process.

mod canaries;
mod lines;
mod traces;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Answer, Database, Process, eventually, http_client, program};

/// An admin's key.
fn admin_key(database_url: &str) -> String {
    let args = ["admin-key", "--database-url", database_url];
    let output = program().args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A running `postrider serve`.
struct Running {
    process: Process,
    client: reqwest::Client,
    /// Sent with every request.
    key: Option<String>,
}

impl Running {
    /// With this database, these arguments and variables. Keys are not asked for
    /// unless the arguments say so.
    fn start(database_url: &str, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/secret.key");
        let mut command = program();
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--secret-key-file", key, "--webhook-allow", "127.0.0.0/8"])
            .args(args)
            .env("POSTRIDER_DATABASE_URL", database_url)
            .env("POSTRIDER_AUTH", "off")
            .envs(variables.iter().copied());
        Self {
            process: Process::spawn(command),
            client: http_client(),
            key: None,
        }
    }

    /// Its log so far.
    fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the log says so.
    async fn said(&mut self, what: &str) {
        eventually(what, async || {
            self.process.assert_runs();
            self.log().contains(what)
        })
        .await;
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.process.url));
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
    fn stop(self) -> String {
        self.process.stop()
    }
}

async fn start(args: &[&str], variables: &[(&str, &str)]) -> (Database, Running) {
    let database = Database::migrated().await;
    let running = Running::start(&database.url(), args, variables);
    (database, running)
}
