//! What nothing over HTTP, and nothing into Postgres, can be faster than here.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::routing::post;
use serde_json::value::RawValue;
use tokio::process::{Child, Command};

use crate::gateway::{Gateway, free_address};
use crate::http::Connection;
use crate::machine::Processes;

/// The argument that makes this program the floor's server.
pub(crate) const SERVE: &str = "serve-floor";

/// What the gateway parses of a publish.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

/// An axum handler that parses the same JSON as a publish and answers as much.
pub(crate) async fn serve(address: &str) -> anyhow::Result<()> {
    let handler = async |bytes: Bytes| match serde_json::from_slice::<Message<'_>>(&bytes) {
        Ok(message) if !message.body.get().is_empty() => (
            StatusCode::CREATED,
            [(header::CONTENT_TYPE, "application/json")],
            "{\"messages\":[{\"id\":\"msg_0000000000000\",\"duplicate\":false}]}\n",
        ),
        _ => (
            StatusCode::BAD_REQUEST,
            [(header::CONTENT_TYPE, "text/plain")],
            "",
        ),
    };
    let router = Router::new().route("/v1/queues/{queue}/messages", post(handler));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

/// The floor's server, as a process of its own like the gateway.
pub(crate) struct Floor {
    pub(crate) address: String,
    pub(crate) processes: Processes,
    _child: Child,
}

impl Floor {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let address = free_address()?;
        let child = Command::new(std::env::current_exe()?)
            .args([SERVE, &address])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the floor")?;
        while Connection::open(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            address,
            processes: Processes {
                server: child.id(),
                postgres: None,
            },
            _child: child,
        })
    }
}

/// Rows a second that pgbench inserts one by one, each committed and flushed,
/// with 64 clients and prepared statements over the unix socket: what an
/// application gets that publishes by SQL into the simplest table that can be a
/// queue, one with an index that finds what is visible.
pub(crate) async fn pgbench(gateway: &Gateway, measured: Duration) -> anyhow::Result<f64> {
    let mut database = gateway.database().await?;
    database
        .run(
            "CREATE TABLE floor (
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 queue text NOT NULL,
                 visible_at timestamptz NOT NULL DEFAULT now(),
                 body bytea NOT NULL);
             CREATE INDEX ON floor (queue, visible_at)",
        )
        .await?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("insert.sql");
    std::fs::write(
        &script,
        "INSERT INTO floor (queue, body) VALUES ('bench', convert_to(repeat('x', 1024), 'UTF8'));",
    )?;
    let output = Command::new(program()?)
        .args([
            "--no-vacuum",
            "--protocol=prepared",
            "--client=64",
            "--jobs=2",
        ])
        .arg(format!("--time={}", measured.as_secs().max(1)))
        .arg("--file")
        .arg(&script)
        .arg("--host")
        .arg(gateway.socket())
        .args(["--username", Gateway::user(), "postgres"])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    database.run("DROP TABLE floor").await?;
    text.lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .with_context(|| format!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// pgbench: on PATH, or beside the server's programs where Debian puts them.
fn program() -> anyhow::Result<std::path::PathBuf> {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join("pgbench"));
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin/pgbench"));
    on_path
        .chain(debian)
        .find(|path| path.exists())
        .context("pgbench is missing; it comes with Postgres' server programs (make setup)")
}
