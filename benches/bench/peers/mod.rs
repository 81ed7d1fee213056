//! The same work on other queues, where they are reached: single publishes,
//! batches of 100, receive + ack one by one and in tens, with as many clients and
//! bodies of the same size, each publish confirmed once it is on disk.

mod pgmq;
#[cfg(feature = "peer-rabbitmq")]
mod rabbitmq;

use std::time::Instant;

use clap::Args;

use crate::Scale;
use crate::load::{self, Meter, Rate};
use crate::machine::Processes;

/// What its lines are called by in the table of Postrider.
pub(crate) const LINES: [(&str, Work); 4] = [
    (
        "publish one by one, 64 connections",
        Work::Publish {
            clients: 64,
            batch: 1,
        },
    ),
    (
        "publish in batches of 100, 16 connections",
        Work::Publish {
            clients: 16,
            batch: 100,
        },
    ),
    (
        "receive + ack one by one, 64 connections",
        Work::Consume {
            clients: 64,
            at_once: 1,
        },
    ),
    (
        "receive + ack in tens, 64 connections",
        Work::Consume {
            clients: 64,
            at_once: 10,
        },
    ),
];

/// A line.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Publish { clients: usize, batch: usize },
    Consume { clients: usize, at_once: usize },
}

/// Where the others are.
#[derive(Args)]
pub(crate) struct Peers {
    /// A Postgres database with the extension or the SQL of PGMQ in it
    #[arg(long, value_name = "URL")]
    peer_pgmq: Option<String>,
    /// A RabbitMQ, such as <amqp://guest:guest@localhost>
    #[cfg(feature = "peer-rabbitmq")]
    #[arg(long, value_name = "URL")]
    peer_rabbitmq: Option<String>,
}

impl Peers {
    /// Those that were given, with their names.
    pub(crate) fn all(&self) -> Vec<(&'static str, Peer)> {
        let mut all = Vec::new();
        if let Some(url) = &self.peer_pgmq {
            all.push(("PGMQ", Peer::Pgmq(url.clone())));
        }
        #[cfg(feature = "peer-rabbitmq")]
        if let Some(url) = &self.peer_rabbitmq {
            all.push(("RabbitMQ, quorum queue", Peer::Rabbitmq(url.clone())));
        }
        all
    }
}

/// Another queue.
pub(crate) enum Peer {
    Pgmq(String),
    #[cfg(feature = "peer-rabbitmq")]
    Rabbitmq(String),
}

impl Peer {
    /// Runs one line on a new queue. `enough` messages are there for consumers.
    pub(crate) async fn run(
        &self,
        scale: &Scale,
        work: Work,
        enough: usize,
    ) -> anyhow::Result<Rate> {
        match self {
            Self::Pgmq(url) => pgmq::run(url, scale, work, enough).await,
            #[cfg(feature = "peer-rabbitmq")]
            Self::Rabbitmq(url) => rabbitmq::run(url, scale, work, enough).await,
        }
    }
}

/// A client of a peer, connected.
trait Client: Sized + 'static {
    async fn connect(url: &str) -> anyhow::Result<Self>;
    /// Publishes so many; they are on disk when it returns.
    async fn publish(&mut self, messages: usize) -> anyhow::Result<()>;
    /// Receives and acks up to so many; how many they were.
    async fn consume(&mut self, at_once: usize) -> anyhow::Result<u64>;
}

/// Messages put into a queue at a time before a line begins.
const FILL: usize = 500;

async fn run<C: Client>(
    url: &str,
    scale: &Scale,
    work: Work,
    enough: usize,
) -> anyhow::Result<Rate> {
    let clients = match work {
        Work::Publish { clients, .. } => clients,
        Work::Consume { clients, .. } => {
            fill::<C>(url, enough).await?;
            clients
        }
    };
    let nobody = Processes {
        server: None,
        postgres: None,
    };
    // The warm-up is long enough for them to connect.
    load::run(&nobody, clients, scale.warm_up, scale.line, |_, meter| {
        let url = url.to_owned();
        async move { repeat(&mut C::connect(&url).await?, work, &meter).await }
    })
    .await
}

async fn repeat<C: Client>(client: &mut C, work: Work, meter: &Meter) -> anyhow::Result<()> {
    while meter.runs() {
        let began = Instant::now();
        let messages = match work {
            Work::Publish { batch, .. } => {
                client.publish(batch).await?;
                batch as u64
            }
            Work::Consume { at_once, .. } => client.consume(at_once).await?,
        };
        meter.count(messages, began);
    }
    Ok(())
}

async fn fill<C: Client>(url: &str, messages: usize) -> anyhow::Result<()> {
    let mut client = C::connect(url).await?;
    for _ in 0..messages.div_ceil(FILL) {
        client.publish(FILL).await?;
    }
    Ok(())
}
