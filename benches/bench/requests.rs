//! Requests and replies: how long a round trip takes, beside a publish that is
//! received, and what those cost that wait.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::Bench;
use crate::clients::Received;
use crate::gateway::Gateway;
use crate::http::{Connection, post, post_preferring};
use crate::idle::raise_open_files;
use crate::load::as_f64;
use crate::machine::memory_mib;
use crate::pace::pace;
use crate::report::{Line, Target};

const QUEUE: &str = "requests";

/// Clients that ask, in turn, and consumers that answer.
const CLIENTS: u32 = 16;

/// Round trips a second.
const RATE: u32 = 500;

impl Bench {
    pub(super) async fn requests(&mut self) -> anyhow::Result<()> {
        self.round_trips().await?;
        self.waiting_requests().await
    }

    async fn round_trips(&mut self) -> anyhow::Result<()> {
        let what = "request to reply at 500/s";
        if !self.wants(what) {
            return Ok(());
        }
        let gateway = Gateway::start().await?;
        let latency = round_trips(&gateway, self.scale.warm_up, self.scale.latency).await?;
        gateway.stop().await?;
        let at = |quantile| as_f64(latency.value_at_quantile(quantile)) / 1e3;
        let rate = as_f64(latency.len()) / self.scale.latency.as_secs_f64();
        let mut line = Line::number(what, rate, " replies/s");
        (line.p50_ms, line.p99_ms) = (Some(at(0.5)), Some(at(0.99)));
        // In the same run, if it was asked for.
        let one_way = self
            .lines
            .iter()
            .find(|line| line.what == "publish to receive at 500/s")
            .and_then(|line| line.p50_ms);
        if let Some(one_way) = one_way {
            let ratio = at(0.5) / one_way;
            line = line.with(Target::at_most("times publish to receive, p50", ratio, 3.0));
        }
        self.add(line);
        Ok(())
    }

    async fn waiting_requests(&mut self) -> anyhow::Result<()> {
        let what = "10,000 waiting requests: the gateway's memory";
        if !self.wants(what) {
            return Ok(());
        }
        let gateway = Gateway::start().await?;
        raise_open_files();
        gateway.new_queue(QUEUE).await?;
        let message = r#"{"body":1,"timeout_seconds":600}"#;
        let request = post_preferring("wait=60", &format!("/v1/queues/{QUEUE}/requests"), message);
        let mut waiting = Vec::with_capacity(self.scale.receivers);
        for _ in 0..self.scale.receivers {
            let mut stream = TcpStream::connect(&gateway.address).await?;
            stream.write_all(&request).await?;
            waiting.push(stream);
        }
        // They are all stored, and looked for a few times.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let (memory, _) = memory_mib(gateway.pid);
        let before = gateway.processes.cpu();
        tokio::time::sleep(self.scale.latency).await;
        let cpu = gateway.processes.cpu().since(&before, self.scale.latency);
        drop(waiting);
        gateway.stop().await?;
        self.add(Line::number(what, memory, " MiB"));
        let busy = cpu.server + cpu.postgres;
        self.add(Line::number("the same: busy cores, Postgres too", busy, ""));
        Ok(())
    }
}

/// How long round trips take, in microseconds, at a steady rate. A request's clock
/// starts when it was due to be sent.
async fn round_trips(
    gateway: &Gateway,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<Histogram<u64>> {
    gateway.new_queue(QUEUE).await?;
    let (started, end) = (Instant::now(), warm_up + measured);
    let latency = Rc::new(std::cell::RefCell::new(Histogram::new_with_bounds(
        1, 60_000_000, 3,
    )?));
    let local = LocalSet::new();
    let mut tasks = Vec::new();
    for mut due in pace(CLIENTS, RATE, started, end) {
        let (address, latency) = (gateway.address.clone(), Rc::clone(&latency));
        tasks.push(local.spawn_local(async move {
            let mut connection = Connection::open(&address).await?;
            let message = format!("{{\"body\":\"{}\"}}", "x".repeat(1022));
            let path = format!("/v1/queues/{QUEUE}/requests");
            let request = post_preferring("wait=10", &path, &message);
            while let Some(due) = due.recv().await {
                connection.expect(&request).await?;
                if due >= warm_up {
                    let micros = started.elapsed().saturating_sub(due).as_micros();
                    let micros = u64::try_from(micros)?;
                    latency.borrow_mut().saturating_record(micros);
                }
            }
            anyhow::Ok(())
        }));
        let address = gateway.address.clone();
        tasks.push(local.spawn_local(answer(address, started, end)));
    }
    local
        .run_until(async {
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    let latency = latency.borrow().clone();
    Ok(latency)
}

/// Receives and answers, with as much as was asked.
async fn answer(address: String, started: Instant, end: Duration) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let receive = post(
        &format!("/v1/queues/{QUEUE}/receive"),
        r#"{"max_messages":10,"wait_seconds":0.5}"#,
    );
    // The last requests are waited for.
    while started.elapsed() < end + Duration::from_secs(1) {
        let received: Received<'_> = serde_json::from_slice(connection.expect(&receive).await?)?;
        let replies: Vec<Vec<u8>> = received
            .messages
            .iter()
            .map(|message| {
                let (receipt, body) = (message.receipt, message.body.get());
                let json = format!("{{\"receipt\":\"{receipt}\",\"body\":{body}}}");
                post(&format!("/v1/queues/{QUEUE}/reply"), &json)
            })
            .collect();
        for reply in replies {
            connection.expect(&reply).await?;
        }
    }
    Ok(())
}
