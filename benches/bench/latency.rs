//! From publish to receive, at a steady rate.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::Bench;
use crate::clients::{Received, ack_request};
use crate::gateway::Gateway;
use crate::http::{Connection, post};
use crate::load::as_f64;
use crate::pace::{Due, pace};
use crate::report::{Line, Target};

/// Consumers that wait for messages.
const CONSUMERS: usize = 16;
/// Connections that publish, in turn.
const PUBLISHERS: u32 = 16;

impl Bench {
    pub(super) async fn latency(&mut self) -> anyhow::Result<()> {
        for (rate, what) in [
            (500, "publish to receive at 500/s"),
            (2000, "publish to receive at 2,000/s"),
        ] {
            if !self.wants(what) {
                continue;
            }
            let gateway = Gateway::start().await?;
            let latency = measure(&gateway, rate, self.scale.warm_up, self.scale.latency).await?;
            gateway.stop().await?;
            let (p50, p99) = (
                latency.p50.as_secs_f64() * 1e3,
                latency.p99.as_secs_f64() * 1e3,
            );
            let mut line = Line::number(what, latency.received, " received/s");
            (line.p50_ms, line.p99_ms) = (Some(p50), Some(p99));
            if rate == 500 {
                line = line
                    .with(Target::at_most("ms, p50", p50, 1.5))
                    .with(Target::at_most("ms, p99", p99, 8.0));
            }
            self.add(line);
        }
        Ok(())
    }
}

/// How long messages took.
struct Latency {
    p50: Duration,
    p99: Duration,
    received: f64,
}

struct Run {
    started: Instant,
    warm_up: Duration,
    end: Duration,
    latency: std::cell::RefCell<Histogram<u64>>,
}

/// Publishes `rate` messages a second to waiting consumers. A message's clock
/// starts when it was due to be sent, not when its connection was free, so that
/// a stall counts for everything that it held up.
async fn measure(
    gateway: &Gateway,
    rate: u32,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<Latency> {
    const QUEUE: &str = "latency";
    gateway.new_queue(QUEUE).await?;
    let run = Rc::new(Run {
        started: Instant::now(),
        warm_up,
        end: warm_up + measured,
        latency: Histogram::new_with_bounds(1, 60_000_000, 3)?.into(),
    });
    let local = LocalSet::new();
    let mut tasks = Vec::new();
    for due in pace(PUBLISHERS, rate, run.started, run.end) {
        tasks.push(local.spawn_local(publish(gateway.address.clone(), QUEUE, due)));
    }
    for _ in 0..CONSUMERS {
        let (address, run) = (gateway.address.clone(), Rc::clone(&run));
        tasks.push(local.spawn_local(consume(address, QUEUE, run)));
    }
    local
        .run_until(async {
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    let latency = run.latency.borrow();
    let at = |quantile| Duration::from_micros(latency.value_at_quantile(quantile));
    ensure!(!latency.is_empty(), "nothing was received");
    Ok(Latency {
        p50: at(0.5),
        p99: at(0.99),
        received: as_f64(latency.len()) / measured.as_secs_f64(),
    })
}

async fn publish(address: String, queue: &'static str, mut due: Due) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let path = format!("/v1/queues/{queue}/messages");
    let padding = "x".repeat(1000);
    while let Some(due) = due.recv().await {
        // 1 KiB: twenty digits, a colon and the padding, quoted.
        let json = format!("{{\"body\":\"{:020}:{padding}\"}}", due.as_micros());
        connection.expect(&post(&path, &json)).await?;
    }
    Ok(())
}

async fn consume(address: String, queue: &'static str, run: Rc<Run>) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let receive = post(
        &format!("/v1/queues/{queue}/receive"),
        r#"{"max_messages":10,"wait_seconds":0.5}"#,
    );
    while run.started.elapsed() < run.end {
        let answer = connection.expect(&receive).await?;
        let now = run.started.elapsed();
        let received: Received<'_> = serde_json::from_slice(answer)?;
        for delivery in &received.messages {
            let body: &str = serde_json::from_str(delivery.body.get())?;
            let (due, _) = body.split_once(':').unwrap_or_default();
            let due = Duration::from_micros(due.parse()?);
            if due >= run.warm_up {
                let micros = u64::try_from(now.saturating_sub(due).as_micros())?;
                run.latency.borrow_mut().saturating_record(micros);
            }
        }
        if let Some((ack, _)) = ack_request(queue, answer)? {
            connection.expect(&ack).await?;
        }
    }
    Ok(())
}
