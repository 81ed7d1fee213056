//! Three times as much as the gateway can take: requests come when they are due,
//! whatever became of those before.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::clients::publish_request;
use crate::gateway::Gateway;
use crate::http::Connection;
use crate::load::as_f64;
use crate::machine::{Cpu, memory_mib};
use crate::report::{Line, Target};
use crate::{Bench, lines};

/// Messages a request: the database is what is short, not the processor.
const BATCH: u32 = 100;

/// Connections, at most; each request in hand needs one.
const CONNECTIONS: usize = 3000;

impl Bench {
    pub(super) async fn overload(&mut self) -> anyhow::Result<()> {
        let what = "overload: batches of 100 at three times the rate of 64 connections";
        if !self.wants(what) {
            return Ok(());
        }
        let gateway = Gateway::start().await?;
        let capacity = lines::publish(&gateway, &self.scale, 64, BATCH as usize).await?;
        let offered = 3.0 * capacity.per_second;
        let time = self.scale.line * 5 / 3;
        let load = measure(&gateway, lines::QUEUE, offered, time).await?;
        gateway.stop().await?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (accepted, refused) = (ms(load.accepted_p99), ms(load.refused_p99));
        let mut line = Line::number(what, load.accepted, "/s accepted")
            .with_cores(load.cpu)
            .with(Target::at_least(
                "that rate offered",
                load.offered / capacity.per_second,
                2.9,
            ))
            .with(Target::at_least(
                "that rate",
                load.accepted / capacity.per_second,
                0.7,
            ))
            .with(Target::at_most("ms, p99", accepted, 1000.0));
        (line.p50_ms, line.p99_ms) = (Some(ms(load.accepted_p50)), Some(accepted));
        self.add(line);
        let mut line = Line::number("the same: refused", load.refused, "/s")
            .with(Target::at_most("ms, p99", refused, 100.0));
        line.p99_ms = Some(refused);
        self.add(line);
        let memory = load.memory_mib;
        self.add(
            Line::number(
                "the same: the gateway's memory at its highest",
                memory,
                " MiB",
            )
            .with(Target::at_most("", memory, 300.0)),
        );
        Ok(())
    }
}

/// What came of it.
struct Overload {
    /// Messages a second, of those that were offered and of those stored.
    offered: f64,
    accepted: f64,
    /// Of requests, from when they were due.
    accepted_p50: Duration,
    accepted_p99: Duration,
    refused: f64,
    refused_p99: Duration,
    /// The gateway's, at its highest.
    memory_mib: f64,
    cpu: Cpu,
}

struct Run {
    address: String,
    request: Vec<u8>,
    idle: RefCell<Vec<Connection>>,
    accepted: RefCell<Histogram<u64>>,
    refused: RefCell<Histogram<u64>>,
}

/// Publishes so many messages a second to `queue` for a time.
async fn measure(
    gateway: &Gateway,
    queue: &str,
    per_second: f64,
    measured: Duration,
) -> anyhow::Result<Overload> {
    crate::idle::raise_open_files();
    let run = Rc::new(Run {
        address: gateway.address.clone(),
        request: publish_request(queue, BATCH as usize),
        idle: RefCell::default(),
        accepted: Histogram::new_with_bounds(1, 60_000_000, 3)?.into(),
        refused: Histogram::new_with_bounds(1, 60_000_000, 3)?.into(),
    });
    let apart = Duration::from_secs_f64(f64::from(BATCH) / per_second);
    let before = gateway.processes.cpu();
    let local = LocalSet::new();
    let (sent, took) = local
        .run_until(async {
            let (started, mut due) = (Instant::now(), Duration::ZERO);
            let mut calls = tokio::task::JoinSet::new();
            let mut sent = 0_u64;
            while due < measured {
                tokio::time::sleep_until((started + due).into()).await;
                while calls.len() < CONNECTIONS && due < started.elapsed() {
                    calls.spawn_local(Rc::clone(&run).publish(started + due));
                    sent += 1;
                    due += apart;
                }
                while let Some(call) = calls.try_join_next() {
                    call??;
                }
            }
            let took = started.elapsed();
            while let Some(call) = calls.join_next().await {
                call??;
            }
            anyhow::Ok((sent, took))
        })
        .await?;
    let cpu = gateway.processes.cpu().since(&before, took);
    let (accepted, refused) = (run.accepted.borrow(), run.refused.borrow());
    ensure!(!accepted.is_empty(), "nothing was accepted");
    let messages = |requests: u64| as_f64(requests) * f64::from(BATCH) / took.as_secs_f64();
    let at = |histogram: &Histogram<u64>, quantile| {
        Duration::from_micros(histogram.value_at_quantile(quantile))
    };
    Ok(Overload {
        offered: messages(sent),
        accepted: messages(accepted.len()),
        accepted_p50: at(&accepted, 0.5),
        accepted_p99: at(&accepted, 0.99),
        refused: messages(refused.len()),
        refused_p99: at(&refused, 0.99),
        memory_mib: memory_mib(gateway.pid).1,
        cpu,
    })
}

impl Run {
    async fn publish(self: Rc<Self>, due: Instant) -> anyhow::Result<()> {
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.address).await?,
        };
        // One that is refused unread is closed, perhaps before it is written.
        let status = connection.call(&self.request).await;
        let micros = u64::try_from(due.elapsed().as_micros())?;
        match status {
            Ok(201) => self.accepted.borrow_mut().saturating_record(micros),
            Ok(503) | Err(_) => self.refused.borrow_mut().saturating_record(micros),
            Ok(status) => anyhow::bail!("{status} to a publish"),
        }
        if status.is_ok() {
            self.idle.borrow_mut().push(connection);
        }
        Ok(())
    }
}
