//! What receivers cost that wait.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::gateway::Gateway;
use crate::http::post;
use crate::machine::memory_mib;

/// What a gateway takes while receivers wait at it.
pub(crate) struct Idle {
    /// Cores.
    pub(crate) gateway_cpu: f64,
    pub(crate) postgres_cpu: f64,
    pub(crate) statements_per_second: f64,
    pub(crate) memory_mib: f64,
}

/// Lets so many receivers wait at ten empty queues, and looks on.
pub(crate) async fn measure(
    gateway: &Gateway,
    receivers: usize,
    measured: Duration,
) -> anyhow::Result<Idle> {
    const STATEMENTS: &str = "SELECT (xact_commit + xact_rollback)::float8
        FROM pg_stat_database WHERE datname = current_database()";
    raise_open_files();
    for queue in 0..10 {
        gateway.new_queue(&format!("idle-{queue}")).await?;
    }
    let mut waiting = Vec::with_capacity(receivers);
    for number in 0..receivers {
        let mut stream = TcpStream::connect(&gateway.address).await?;
        let path = format!("/v1/queues/idle-{}/receive", number % 10);
        stream
            .write_all(&post(&path, r#"{"wait_seconds":60}"#))
            .await?;
        waiting.push(stream);
    }
    // They are all in line, and what came before has been counted: Postgres'
    // own counters may be a second late.
    tokio::time::sleep(Duration::from_secs(2).min(measured)).await;
    let mut database = gateway.database().await?;
    let (cpu, statements) = (gateway.processes.cpu(), database.number(STATEMENTS).await?);
    tokio::time::sleep(measured).await;
    let cpu = gateway.processes.cpu().since(&cpu, measured);
    // Less the one look at them.
    let statements = database.number(STATEMENTS).await? - statements - 1.0;
    let (memory_mib, _) = memory_mib(gateway.pid);
    Ok(Idle {
        gateway_cpu: cpu.server,
        postgres_cpu: cpu.postgres,
        statements_per_second: statements / measured.as_secs_f64(),
        memory_mib,
    })
}

/// Each receiver is a connection.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
