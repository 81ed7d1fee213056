//! What receivers cost that wait.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::Bench;
use crate::gateway::Gateway;
use crate::http::post;
use crate::load::as_f64;
use crate::machine::memory_mib;
use crate::report::{Line, Target};

impl Bench {
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        let what = "10,000 waiting receivers, idle: busy cores of the gateway";
        if !self.wants(what) {
            return Ok(());
        }
        let gateway = Gateway::start().await?;
        let idle = measure(&gateway, self.scale.receivers, self.scale.latency).await?;
        gateway.stop().await?;
        self.add(
            Line::number(what, idle.gateway_cpu, "").with(Target::at_most(
                "a core, Postgres too",
                idle.gateway_cpu + idle.postgres_cpu,
                0.03,
            )),
        );
        self.add(
            Line::number(
                "the same: statements",
                idle.statements_per_second,
                " statements/s",
            )
            .with(Target::at_most("", idle.statements_per_second, 5.0)),
        );
        self.add(
            Line::number("the same: the gateway's memory", idle.memory_mib, " MiB")
                .with(Target::at_most("", idle.memory_mib, 150.0)),
        );
        Ok(())
    }
}

/// What a gateway takes while receivers wait at it.
struct Idle {
    /// Cores.
    gateway_cpu: f64,
    postgres_cpu: f64,
    statements_per_second: f64,
    memory_mib: f64,
}

/// Lets so many receivers wait at ten empty queues, and looks on.
async fn measure(gateway: &Gateway, receivers: usize, measured: Duration) -> anyhow::Result<Idle> {
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
    // They are all in line.
    tokio::time::sleep(Duration::from_secs(2).min(measured)).await;
    // By Postgres' log: its counters of transactions have autovacuum's in them.
    let mut database = gateway.database().await?;
    database
        .run("ALTER SYSTEM SET log_min_duration_statement = 0")
        .await?;
    database.run("SELECT pg_reload_conf()").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (cpu, before) = (gateway.processes.cpu(), statements(gateway)?);
    tokio::time::sleep(measured).await;
    let cpu = gateway.processes.cpu().since(&cpu, measured);
    let statements = as_f64(statements(gateway)? - before);
    let (memory_mib, _) = memory_mib(gateway.pid);
    Ok(Idle {
        gateway_cpu: cpu.server,
        postgres_cpu: cpu.postgres,
        statements_per_second: statements / measured.as_secs_f64(),
        memory_mib,
    })
}

/// Statements of gateways in the log so far; of one that is prepared only what
/// runs it.
fn statements(gateway: &Gateway) -> anyhow::Result<u64> {
    let log = std::fs::read_to_string(gateway.postgres_log())?;
    let is_run = |line: &&str| {
        line.contains(" postrider LOG:  duration: ")
            && (line.contains(" ms  execute ") || line.contains(" ms  statement: "))
    };
    Ok(log.lines().filter(is_run).count() as u64)
}

/// Each receiver is a connection.
pub(crate) fn raise_open_files() {
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
