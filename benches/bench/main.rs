//! `make bench`: what Postrider does in a second on this machine, beside what
//! the machine allows. `make soak`: whether it still does after ten minutes.
//!
//! Everything runs on the one machine: the load generator (this program, one
//! thread), the gateway, and the gateway's private Postgres with the settings
//! that it always has (fsync, `synchronous_commit` and `full_page_writes` on). Each
//! line says how much of the machine each of them took. Absolute figures say
//! little about another machine; ratios within one run say more.

mod clients;
mod fan_out;
mod floor;
mod gateway;
mod held;
mod http;
mod idle;
mod keys;
mod latency;
mod lines;
mod load;
mod machine;
mod overload;
mod pace;
mod peers;
mod pushes;
mod receivers;
mod report;
mod requests;
mod soak;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use gateway::Gateway;
use peers::Peers;
use report::{Line, Report, Target};

#[derive(Parser)]
#[command(
    name = "bench",
    about = "What Postrider does in a second, beside what the machine allows"
)]
struct Options {
    /// Every line for an instant only, to see that they all work
    #[arg(long)]
    smoke: bool,
    /// Run at full speed for so many minutes instead
    #[arg(long, value_name = "MINUTES")]
    soak: Option<u32>,
    /// Only lines whose text contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where bench.json, bench.md and bench.svg go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    #[command(flatten)]
    peers: Peers,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long, and how much.
pub(crate) struct Scale {
    pub(crate) warm_up: Duration,
    pub(crate) line: Duration,
    latency: Duration,
    /// At full speed under a held snapshot; the last sixth is what counts. And how long
    /// without one before as much is measured.
    held: Duration,
    free: Duration,
    backlog: usize,
    receivers: usize,
}

impl Scale {
    const FULL: Self = Self {
        warm_up: Duration::from_millis(1500),
        line: Duration::from_secs(5),
        latency: Duration::from_secs(10),
        held: Duration::from_mins(1),
        free: Duration::from_secs(10),
        backlog: 2_000_000,
        receivers: 10_000,
    };
    const SMOKE: Self = Self {
        warm_up: Duration::from_millis(100),
        line: Duration::from_millis(500),
        latency: Duration::from_secs(1),
        held: Duration::from_secs(6),
        free: Duration::from_secs(1),
        backlog: 10_000,
        receivers: 100,
    };
}

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let arguments: Vec<String> = std::env::args().collect();
            if let [_, command, address] = &arguments[..]
                && command == floor::SERVE
            {
                // As many threads as the gateway has.
                return tokio::runtime::Runtime::new()?.block_on(floor::serve(address));
            }
            runtime.block_on(run(&Options::parse()))
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(minutes) = options.soak {
        let second = if options.smoke {
            Duration::from_millis(20)
        } else {
            Duration::from_secs(1)
        };
        let gateway = Gateway::start().await?;
        let rates = soak::run(&gateway, minutes, second).await?;
        if let [_, second, .., last] = &rates[..] {
            let target = Target::at_least("minute 2", last / second, 0.9);
            writeln!(
                std::io::stdout(),
                "{HEAD}\n{}",
                Line::number("the last minute", *last, "/s")
                    .with(target)
                    .row(),
                HEAD = report::HEAD
            )?;
        }
        return gateway.stop().await;
    }
    let mut bench = Bench {
        scale: if options.smoke {
            Scale::SMOKE
        } else {
            Scale::FULL
        },
        only: options.only.clone(),
        lines: Vec::new(),
        date: String::new(),
        postgres: String::new(),
    };
    writeln!(std::io::stderr(), "{}", report::HEAD)?;
    let pgbench = bench.measure().await?;
    bench.peers(&options.peers, pgbench).await?;
    let report = Report {
        command: if options.smoke {
            "make bench-smoke"
        } else {
            "make bench"
        }
        .to_owned(),
        date: bench.date,
        machine: machine::describe(),
        postgres: bench.postgres,
        lines: bench.lines,
    };
    report.write(&options.out)?;
    writeln!(std::io::stdout(), "\n{}", report.table())?;
    writeln!(
        std::io::stdout(),
        "{} targets missed; written to {}/bench.{{json,md,svg}}",
        report.missed(),
        options.out.display()
    )?;
    Ok(())
}

/// The durable settings, as they are in force.
const SETTINGS: &str = "SELECT format('Postgres %s with fsync=%s, synchronous_commit=%s, \
    full_page_writes=%s, wal_compression=%s, shared_buffers=%s', \
    current_setting('server_version'), current_setting('fsync'), \
    current_setting('synchronous_commit'), current_setting('full_page_writes'), \
    current_setting('wal_compression'), current_setting('shared_buffers'))";

/// A run.
struct Bench {
    scale: Scale,
    only: Option<String>,
    lines: Vec<Line>,
    date: String,
    postgres: String,
}

/// What ratios are taken against.
#[derive(Clone, Copy)]
struct Floors {
    axum: f64,
    pgbench: f64,
}

impl Bench {
    fn wants(&self, what: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| what.contains(only.as_str()))
    }

    /// Adds a line, and says so: a run takes minutes.
    fn add(&mut self, mut line: Line) {
        line.refused = http::refused();
        let _ = writeln!(std::io::stderr(), "{}", line.row());
        self.lines.push(line);
    }

    /// All lines; answers with pgbench's rate.
    async fn measure(&mut self) -> anyhow::Result<f64> {
        let floor = lines::floor(&self.scale).await?;
        self.add(Line::rate(
            "floor: an axum handler that does nothing, 64 connections",
            &floor,
        ));
        let pgbench = self.pgbench().await?;
        self.add(Line::number(
            "floor: pgbench inserting single rows, 64 clients",
            pgbench,
            "/s",
        ));
        let floors = Floors {
            axum: floor.per_second,
            pgbench,
        };
        self.publishes(floors).await?;
        self.keyed().await?;
        self.consumers(floors).await?;
        self.everything().await?;
        self.wal().await?;
        self.fan_out().await?;
        self.pushes(floors).await?;
        self.latency().await?;
        self.held_snapshot().await?;
        self.overload().await?;
        self.idle().await?;
        self.requests().await?;
        self.keys().await?;
        Ok(pgbench)
    }

    /// The middle one of three runs, on a new server each: they differ by a third, and
    /// many lines are held against this one.
    async fn pgbench(&mut self) -> anyhow::Result<f64> {
        let mut rates = [0.0; 3];
        for rate in &mut rates {
            let gateway = Gateway::start().await?;
            let mut database = gateway.database().await?;
            self.date = database.text("SELECT current_date::text").await?;
            self.postgres = database.text(SETTINGS).await?;
            *rate = floor::pgbench(&gateway, self.scale.line).await?;
            gateway.stop().await?;
        }
        rates.sort_by(f64::total_cmp);
        Ok(rates[1])
    }

    /// The same work on others; the ratio is Postrider's rate to theirs.
    async fn peers(&mut self, peers: &Peers, pgbench: f64) -> anyhow::Result<()> {
        let time = (self.scale.warm_up + self.scale.line).as_secs_f64();
        for (name, peer) in peers.all() {
            for (what, work) in peers::LINES {
                if !self.wants(what) {
                    continue;
                }
                let factor = if what.contains("one by one") {
                    1.5
                } else {
                    4.0
                };
                let enough = round_up(pgbench * factor * time);
                let rate = peer.run(&self.scale, work, enough).await?;
                let ours = self.lines.iter().find(|line| line.what == what);
                let ours = ours.map(|line| line.value / rate.per_second);
                let mut line = Line::rate(&format!("{name}: {what}"), &rate);
                line.cores = None;
                line.postrider = ours;
                self.add(line);
            }
        }
        Ok(())
    }

    async fn publishes(&mut self, floors: Floors) -> anyhow::Result<()> {
        for (clients, batch, what) in [
            (64, 1, "publish one by one, 64 connections"),
            (256, 1, "publish one by one, 256 connections"),
            (16, 100, "publish in batches of 100, 16 connections"),
        ] {
            if !self.wants(what) {
                continue;
            }
            let gateway = Gateway::start().await?;
            let rate = lines::publish(&gateway, &self.scale, clients, batch).await?;
            gateway.stop().await?;
            let (axum, pgbench) = (
                rate.per_second / floors.axum,
                rate.per_second / floors.pgbench,
            );
            let line = Line::rate(what, &rate);
            self.add(match (clients, batch) {
                (64, _) => line
                    .with(Target::at_least("axum", axum, 0.4))
                    .with(Target::at_least("pgbench", pgbench, 2.2)),
                (_, 100) => line.with(Target::at_least("pgbench", pgbench, 5.0)),
                _ => line,
            });
        }
        Ok(())
    }

    async fn keyed(&mut self) -> anyhow::Result<()> {
        let what = "publish one by one with an Idempotency-Key, 64 connections";
        if self.wants(what) {
            let gateway = Gateway::start().await?;
            let rate = lines::publish_keyed(&gateway, &self.scale).await?;
            gateway.stop().await?;
            self.add(Line::rate(what, &rate));
        }
        Ok(())
    }

    async fn consumers(&mut self, floors: Floors) -> anyhow::Result<()> {
        let time = (self.scale.warm_up + self.scale.line).as_secs_f64();
        // Enough for the whole time, at a rate that is not reached.
        let enough = |factor: f64| round_up(floors.pgbench * factor * time);
        let mut empty = None;
        for (tens, backlog, what) in [
            (false, 0, "receive + ack one by one, 64 connections"),
            (true, 0, "receive + ack in tens, 64 connections"),
            (
                true,
                self.scale.backlog,
                "receive + ack in tens, 64 connections, 2 million more waiting",
            ),
        ] {
            if !self.wants(what) {
                continue;
            }
            let gateway = Gateway::start().await?;
            lines::fill(&gateway, enough(if tens { 3.2 } else { 1.2 }) + backlog).await?;
            // Or the kernel writes gigabytes back in the middle of what is measured, half a
            // minute after they came.
            rustix::fs::sync();
            let rate = lines::consume(&gateway, &self.scale, if tens { 10 } else { 1 }).await?;
            gateway.stop().await?;
            let pgbench = rate.per_second / floors.pgbench;
            let line = Line::rate(what, &rate);
            self.add(match empty {
                Some(empty) if backlog > 0 => {
                    line.with(Target::at_least("without", rate.per_second / empty, 0.9))
                }
                _ if tens => line.with(Target::at_least("pgbench", pgbench, 2.5)),
                _ => line.with(Target::at_least("pgbench", pgbench, 0.7)),
            });
            if tens && backlog == 0 {
                empty = Some(rate.per_second);
            }
        }
        Ok(())
    }

    async fn everything(&mut self) -> anyhow::Result<()> {
        let what = "all at once: 32 publish one by one, 32 receive + ack up to ten";
        if self.wants(what) {
            let gateway = Gateway::start().await?;
            let rate = lines::both(&gateway, &self.scale).await?;
            gateway.stop().await?;
            self.add(Line::rate(what, &rate));
        }
        Ok(())
    }

    async fn wal(&mut self) -> anyhow::Result<()> {
        let what = "WAL per message of 1 KiB, publish + claim + ack, in batches";
        if self.wants(what) {
            let gateway = Gateway::start().await?;
            let messages = (self.scale.backlog / 20).max(5000);
            let kib = lines::wal_per_message(&gateway, messages).await? / 1024.0;
            gateway.stop().await?;
            self.add(Line::number(what, kib, " KiB").with(Target::at_most("", kib, 1.9)));
        }
        Ok(())
    }
}

/// Up to whole batches of a fill.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of messages"
)]
pub(crate) fn round_up(messages: f64) -> usize {
    (messages as usize / 500 + 1) * 500
}
