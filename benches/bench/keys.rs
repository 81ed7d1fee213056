//! Ordered and fair queues: what a blocked key costs the others, how fast keys
//! drain, how long others wait beside one that floods the queue.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::Bench;
use crate::clients::{Received, ack_request, body, consumer, fill_with};
use crate::gateway::Gateway;
use crate::http::{Connection, post, put};
use crate::load::{self, Rate};
use crate::pace::{Due, pace};
use crate::report::{Line, Target};

const QUEUE: &str = "keys";

/// Connections that publish beside the flood.
const OTHERS: u32 = 50;

/// Consumers, each of which works for [`WORK`] on a message. With four, whoever comes
/// while all are busy waits 13 ms at the 95th percentile for the first to be free,
/// whatever is fair.
const CONSUMERS: usize = 16;
const WORK: Duration = Duration::from_millis(20);

/// How many times as much the flood is.
const FLOOD: u32 = 100;

/// Messages a second, more than are received of an ordered queue: of many keys in
/// tens, and of one key.
const TENS: f64 = 30_000.0;
const HOT: f64 = 10_000.0;

/// What each of the others publishes in a second.
const RATE: u32 = 8;

impl Bench {
    pub(super) async fn keys(&mut self) -> anyhow::Result<()> {
        self.blocked_key().await?;
        self.many_keys().await?;
        self.hot_key().await?;
        self.flood().await
    }

    /// The same receivers, without and with a key that has a tenth of a million
    /// messages and does not move.
    async fn blocked_key(&mut self) -> anyhow::Result<()> {
        let what = "ordered: receive + ack in tens, 64 connections, beside a blocked key";
        if !self.wants(what) {
            return Ok(());
        }
        let mut without = None;
        for blocked in [0, self.scale.backlog / 20] {
            let gateway = start(r#"{"ordered":true,"lease_seconds":600}"#).await?;
            if blocked > 0 {
                fill_keys(&gateway, blocked / 500 * 500, 1, "blocked").await?;
                let mut connection = Connection::open(&gateway.address).await?;
                let path = format!("/v1/queues/{QUEUE}/receive");
                connection.expect(&post(&path, "{}")).await?;
            }
            fill_keys(&gateway, self.messages(TENS), 5000, "key").await?;
            let rate = self.consume(&gateway, 10).await?;
            gateway.stop().await?;
            let line = Line::rate(&format!("{what} of {blocked}"), &rate);
            self.add(match without {
                None => line,
                Some(without) => {
                    line.with(Target::at_least("without", rate.per_second / without, 0.8))
                }
            });
            without = Some(rate.per_second);
        }
        Ok(())
    }

    async fn many_keys(&mut self) -> anyhow::Result<()> {
        let what = "ordered: receive + ack in tens, 64 connections, 10,000 keys";
        if self.wants(what) {
            let gateway = start(r#"{"ordered":true,"lease_seconds":600}"#).await?;
            fill_keys(&gateway, self.messages(TENS), 10_000, "key").await?;
            let rate = self.consume(&gateway, 10).await?;
            gateway.stop().await?;
            self.add(Line::rate(what, &rate));
        }
        Ok(())
    }

    async fn hot_key(&mut self) -> anyhow::Result<()> {
        let mut single = None;
        for (most, what) in [
            (1, "ordered: one key, receive + ack one by one"),
            (10, "ordered: one key, receive + ack in tens"),
        ] {
            if !self.wants(what) {
                continue;
            }
            let gateway = start(r#"{"ordered":true,"lease_seconds":600}"#).await?;
            fill_keys(&gateway, self.messages(HOT), 1, "hot").await?;
            let rate = load::run(
                &gateway.processes,
                1,
                self.scale.warm_up,
                self.scale.line,
                |_, meter| consumer(gateway.address.clone(), QUEUE, most, meter),
            )
            .await?;
            gateway.stop().await?;
            let line = Line::rate(what, &rate);
            self.add(match single {
                None => line,
                Some(single) => line.with(Target::at_least(
                    "one by one",
                    rate.per_second / single,
                    3.0,
                )),
            });
            single = Some(rate.per_second);
        }
        Ok(())
    }

    async fn flood(&mut self) -> anyhow::Result<()> {
        let what = "fair: publish to receive of 50 keys, p95";
        if !self.wants(what) {
            return Ok(());
        }
        let mut quiet = None;
        for (flood, beside) in [
            (false, "alone"),
            (true, "beside one at 100 times their rate"),
        ] {
            let gateway = start(r#"{"fair":true,"lease_seconds":600}"#).await?;
            let run = Run::new(self.scale.warm_up, self.scale.latency, flood)?;
            let latency = run.measure(&gateway).await?;
            gateway.stop().await?;
            let p95 = Duration::from_micros(latency.value_at_quantile(0.95)).as_secs_f64() * 1e3;
            let line = Line::number(&format!("{what}, {beside}"), p95, " ms");
            self.add(match quiet {
                None => line,
                Some(quiet) => line.with(Target::at_most("alone", p95 / quiet, 3.0)),
            });
            quiet = Some(p95);
        }
        Ok(())
    }

    /// Enough messages for the whole time, at so many a second.
    fn messages(&self, per_second: f64) -> usize {
        let seconds = (self.scale.warm_up + self.scale.line).as_secs_f64();
        crate::round_up(per_second * seconds)
    }

    async fn consume(&self, gateway: &Gateway, most: usize) -> anyhow::Result<Rate> {
        load::run(
            &gateway.processes,
            64,
            self.scale.warm_up,
            self.scale.line,
            |_, meter| consumer(gateway.address.clone(), QUEUE, most, meter),
        )
        .await
    }
}

async fn start(settings: &str) -> anyhow::Result<Gateway> {
    let gateway = Gateway::start().await?;
    let mut connection = Connection::open(&gateway.address).await?;
    connection
        .expect(&put(&format!("/v1/queues/{QUEUE}"), settings))
        .await?;
    Ok(gateway)
}

/// Publishes messages of so many keys, in batches of 500.
async fn fill_keys(
    gateway: &Gateway,
    messages: usize,
    keys: usize,
    name: &str,
) -> anyhow::Result<()> {
    let path = format!("/v1/queues/{QUEUE}/messages");
    let requests = keys.div_ceil(500);
    for request in 0..requests {
        let batch: Vec<String> = (0..500)
            .map(|n| {
                let key = (request * 500 + n) % keys;
                format!("{{\"key\":\"{name}-{key}\",\"body\":{}}}", body())
            })
            .collect();
        let json = format!("{{\"messages\":[{}]}}", batch.join(","));
        let share = (messages / 500).div_ceil(requests) * 500;
        fill_with(&gateway.address, post(&path, &json), share).await?;
    }
    Ok(())
}

async fn publish(address: String, number: usize, mut due: Due) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let path = format!("/v1/queues/{QUEUE}/messages");
    while let Some(due) = due.recv().await {
        let json = format!(
            "{{\"key\":\"other-{number}\",\"body\":\"{}\"}}",
            due.as_micros()
        );
        connection.expect(&post(&path, &json)).await?;
    }
    Ok(())
}

/// Publishers of other keys, consumers, and maybe a flood.
struct Run {
    started: Instant,
    warm_up: Duration,
    end: Duration,
    flood: bool,
    latency: std::cell::RefCell<Histogram<u64>>,
}

impl Run {
    fn new(warm_up: Duration, measured: Duration, flood: bool) -> anyhow::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            started: Instant::now(),
            warm_up,
            end: warm_up + measured,
            flood,
            latency: Histogram::new_with_bounds(1, 60_000_000, 3)?.into(),
        }))
    }

    async fn measure(self: Rc<Self>, gateway: &Gateway) -> anyhow::Result<Histogram<u64>> {
        let local = LocalSet::new();
        let mut tasks = Vec::new();
        let all_due = pace(OTHERS, OTHERS * RATE, self.started, self.end);
        for (number, due) in all_due.into_iter().enumerate() {
            let address = gateway.address.clone();
            tasks.push(local.spawn_local(publish(address, number, due)));
        }
        if self.flood {
            let (address, run) = (gateway.address.clone(), Rc::clone(&self));
            tasks.push(local.spawn_local(run.flood(address)));
        }
        for _ in 0..CONSUMERS {
            let (address, run) = (gateway.address.clone(), Rc::clone(&self));
            tasks.push(local.spawn_local(run.consume(address)));
        }
        local
            .run_until(async {
                for task in tasks {
                    task.await??;
                }
                anyhow::Ok(())
            })
            .await?;
        let latency = self.latency.borrow().clone();
        ensure!(!latency.is_empty(), "nothing was received");
        Ok(latency)
    }

    /// In batches: a tenth of a second's at a time.
    async fn flood(self: Rc<Self>, address: String) -> anyhow::Result<()> {
        let mut connection = Connection::open(&address).await?;
        let path = format!("/v1/queues/{QUEUE}/messages");
        let batch = vec![r#"{"key":"flood","body":"0"}"#; (RATE * FLOOD / 10) as usize];
        let request = post(&path, &format!("{{\"messages\":[{}]}}", batch.join(",")));
        let mut due = Duration::ZERO;
        while due < self.end {
            tokio::time::sleep_until((self.started + due).into()).await;
            connection.expect(&request).await?;
            due += Duration::from_millis(100);
        }
        Ok(())
    }

    /// Sixteen of these take 800 messages a second: the others' are half of that, with
    /// the flood it is half as much again as they take.
    async fn consume(self: Rc<Self>, address: String) -> anyhow::Result<()> {
        let mut connection = Connection::open(&address).await?;
        let receive = post(
            &format!("/v1/queues/{QUEUE}/receive"),
            r#"{"max_messages":1,"wait_seconds":0.5}"#,
        );
        while self.started.elapsed() < self.end {
            let answer = connection.expect(&receive).await?;
            let now = self.started.elapsed();
            let received: Received<'_> = serde_json::from_slice(answer)?;
            for delivery in &received.messages {
                let due: &str = serde_json::from_str(delivery.body.get())?;
                let due = Duration::from_micros(due.parse()?);
                if due >= self.warm_up {
                    let micros = u64::try_from(now.saturating_sub(due).as_micros())?;
                    self.latency.borrow_mut().saturating_record(micros);
                }
            }
            if let Some((ack, _)) = ack_request(QUEUE, answer)? {
                tokio::time::sleep(WORK).await;
                connection.expect(&ack).await?;
            }
        }
        Ok(())
    }
}
