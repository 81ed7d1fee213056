//! Pushes to ten webhooks, and what one that hangs costs the others.

use anyhow::ensure;

use crate::gateway::Gateway;
use crate::http::{Connection, post, put};
use crate::load::{self, Rate, as_f64};
use crate::receivers::{Manner, Receiver};
use crate::report::{Line, Target};
use crate::{Bench, Floors, Scale, clients, round_up};

/// Webhooks, each with a queue and a receiver of its own.
const WEBHOOKS: usize = 10;

/// How often the one that hangs comes and goes.
const ROUNDS: usize = 2;

impl Bench {
    pub(super) async fn pushes(&mut self, floors: Floors) -> anyhow::Result<()> {
        let what = "pushes to 10 webhooks";
        if self.wants(what) {
            let lanes = Lanes::start(Manner::Takes).await?;
            lanes.fill(self.enough(floors)).await?;
            lanes.open(0..WEBHOOKS).await?;
            let rate = lanes.measure(&self.scale).await?;
            lanes.stop().await?;
            // A receiver knows when a push came, not since when it waited.
            let line = Line::number(what, rate.per_second, "/s").with_cores(rate.cpu);
            self.add(line.with(Target::at_least("", rate.per_second, 3000.0)));
        }
        let what = "pushes to 9 webhooks, a tenth hanging";
        if self.wants(what) {
            let lanes = Lanes::start(Manner::Hangs).await?;
            lanes.fill((2 * ROUNDS + 1) * self.enough(floors)).await?;
            let tenth = WEBHOOKS - 1;
            lanes.open(0..tenth).await?;
            // By turns, so that what changes with time, on the machine and in
            // queues that empty, is in both.
            let mut without = vec![lanes.measure(&self.scale).await?];
            let mut hanging = Vec::new();
            for _ in 0..ROUNDS {
                lanes.open(tenth..WEBHOOKS).await?;
                hanging.push(lanes.measure(&self.scale).await?);
                lanes.close(tenth).await?;
                without.push(lanes.measure(&self.scale).await?);
            }
            lanes.stop().await?;
            let (without, hanging) = (mean(&without), mean(&hanging));
            self.add(Line::number(
                "pushes to the same 9 webhooks without it",
                without,
                "/s",
            ));
            self.add(Line::number(what, hanging, "/s").with(Target::at_least(
                "without",
                hanging / without,
                0.95,
            )));
        }
        Ok(())
    }

    /// Messages of a queue that last for one measurement, at a rate that is not
    /// reached.
    fn enough(&self, floors: Floors) -> usize {
        let time = (self.scale.warm_up + self.scale.line).as_secs_f64();
        round_up(floors.pgbench * 1.5 * time / as_f64(WEBHOOKS as u64))
    }
}

fn mean(rates: &[Rate]) -> f64 {
    rates.iter().map(|rate| rate.per_second).sum::<f64>() / as_f64(rates.len() as u64)
}

/// A gateway with queues, and receivers for their webhooks.
struct Lanes {
    gateway: Gateway,
    receivers: Vec<Receiver>,
}

impl Lanes {
    /// With a last receiver of this manner.
    async fn start(last: Manner) -> anyhow::Result<Self> {
        let gateway = Gateway::start().await?;
        let mut receivers = Vec::new();
        for number in 0..WEBHOOKS {
            gateway.new_queue(&queue(number)).await?;
            let manner = if number == WEBHOOKS - 1 {
                last
            } else {
                Manner::Takes
            };
            receivers.push(Receiver::bind(manner).await?);
        }
        Ok(Self { gateway, receivers })
    }

    /// Puts so many messages into each queue.
    async fn fill(&self, messages: usize) -> anyhow::Result<()> {
        for number in 0..WEBHOOKS {
            clients::fill(&self.gateway.address, &queue(number), messages).await?;
        }
        Ok(())
    }

    /// Makes webhooks, or resumes them: their pushes begin.
    async fn open(&self, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.gateway.address).await?;
        for number in numbers {
            let webhook = serde_json::json!({
                "url": self.receivers[number].url()?,
                "max_in_flight": 20,
                "timeout_seconds": 5,
                // One that hangs is pushed to for as long as it is measured: the
                // breaker would spare the others.
                "circuit_breaker": { "window": 1000, "min_calls": 1000 },
            });
            let path = format!("/v1/queues/{}/webhook", queue(number));
            connection.expect(&put(&path, &webhook.to_string())).await?;
            connection
                .expect(&post(&format!("{path}/resume"), ""))
                .await?;
        }
        Ok(())
    }

    /// Pauses a webhook.
    async fn close(&self, number: usize) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.gateway.address).await?;
        let path = format!("/v1/queues/{}/webhook/pause", queue(number));
        connection.expect(&post(&path, "")).await?;
        Ok(())
    }

    /// What all receivers take together.
    async fn measure(&self, scale: &Scale) -> anyhow::Result<Rate> {
        load::run(
            &self.gateway.processes,
            WEBHOOKS,
            scale.warm_up,
            scale.line,
            |number, meter| self.receivers[number].clone().serve(meter),
        )
        .await
    }

    /// Ends it all, if the queues lasted.
    async fn stop(self) -> anyhow::Result<()> {
        const LASTED: &str = "SELECT count(DISTINCT queue_id)::float8 FROM postrider.ready";
        let lasted = self.gateway.database().await?.number(LASTED).await?;
        ensure!(
            lasted >= as_f64(WEBHOOKS as u64),
            "only {lasted} of {WEBHOOKS} queues lasted"
        );
        // Nobody listens any more, so that what is on its way ends at once.
        drop(self.receivers);
        self.gateway.stop().await
    }
}

fn queue(number: usize) -> String {
    format!("bench-{number}")
}
