//! A topic with ten subscriptions: what a publish to all of them brings, and
//! costs beside ten publishes.

use std::rc::Rc;

use crate::Bench;
use crate::clients::{self, BATCH, publisher, topic_request};
use crate::gateway::Gateway;
use crate::http::{Connection, put};
use crate::lines::POSITION;
use crate::load::{self, as_f64};
use crate::report::{Line, Target};

const TOPIC: &str = "bench";
const ROUTING_KEY: &str = "orders.eu.paid";

/// Subscriptions, each with a queue of its own.
const SUBSCRIPTIONS: usize = 10;

impl Bench {
    pub(super) async fn fan_out(&mut self) -> anyhow::Result<()> {
        for (clients, batch, what) in [
            (
                64,
                1,
                "publish to 10 subscriptions one by one, 64 connections",
            ),
            (
                16,
                100,
                "publish to 10 subscriptions in batches of 100, 16 connections",
            ),
        ] {
            if !self.wants(what) {
                continue;
            }
            let gateway = Gateway::start().await?;
            subscribe(&gateway).await?;
            let request = Rc::new(topic_request(TOPIC, ROUTING_KEY, batch));
            let rate = load::run(
                &gateway.processes,
                clients,
                self.scale.warm_up,
                self.scale.line,
                |_, meter| {
                    let request = Rc::clone(&request);
                    publisher(gateway.address.clone(), request, batch as u64, meter)
                },
            )
            .await?;
            gateway.stop().await?;
            self.add(Line::rate(what, &rate));
            self.add(Line::number(
                "the same: put into queues",
                rate.per_second * as_f64(SUBSCRIPTIONS as u64),
                "/s",
            ));
        }
        let what = "WAL per message of 1 KiB to 10 subscriptions, publish, in batches";
        if self.wants(what) {
            let messages = (self.scale.backlog / 100).max(1000);
            let (once, ten_times) = wal_per_message(messages).await?;
            self.add(
                Line::number(what, once / 1024.0, " KiB").with(Target::at_most(
                    "ten publishes",
                    once / ten_times,
                    0.33,
                )),
            );
        }
        Ok(())
    }
}

/// The topic and what it feeds.
async fn subscribe(gateway: &Gateway) -> anyhow::Result<()> {
    let mut connection = Connection::open(&gateway.address).await?;
    connection
        .expect(&put(&format!("/v1/topics/{TOPIC}"), "{}"))
        .await?;
    for number in 0..SUBSCRIPTIONS {
        let path = format!("/v1/topics/{TOPIC}/subscriptions/{number}");
        let filter = r#"{"filter":{"routing_key":"orders.#"}}"#;
        connection.expect(&put(&path, filter)).await?;
    }
    Ok(())
}

/// Bytes of WAL a message: published once to all subscriptions, and to each of
/// their queues.
async fn wal_per_message(messages: usize) -> anyhow::Result<(f64, f64)> {
    let gateway = Gateway::start().await?;
    subscribe(&gateway).await?;
    let mut database = gateway.database().await?;
    let to_topic = || topic_request(TOPIC, ROUTING_KEY, BATCH);
    // Pages are logged whole the first time after a checkpoint, so that is before
    // both, and both begin on pages that have been.
    database.run("CHECKPOINT").await?;
    clients::fill_with(&gateway.address, to_topic(), messages).await?;
    let begun = database.number(POSITION).await?;
    clients::fill_with(&gateway.address, to_topic(), messages).await?;
    let between = database.number(POSITION).await?;
    for number in 0..SUBSCRIPTIONS {
        clients::fill(&gateway.address, &format!("{TOPIC}.{number}"), messages).await?;
    }
    let end = database.number(POSITION).await?;
    gateway.stop().await?;
    let messages = as_f64(messages as u64);
    Ok(((between - begun) / messages, (end - between) / messages))
}
