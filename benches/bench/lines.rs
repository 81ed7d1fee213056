//! The lines of the table that are rates: closed loops against one gateway.

use std::rc::Rc;
use std::time::Duration;

use crate::Scale;
use crate::clients::{self, consumer, cycle, keyed_publisher, publish_request, publisher};
use crate::floor::Floor;
use crate::gateway::Gateway;
use crate::load::{self, Rate, as_f64};

/// The queue that the lines use, each on a gateway of its own.
pub(crate) const QUEUE: &str = "bench";

/// Single publishes to the floor's handler.
pub(crate) async fn floor(scale: &Scale) -> anyhow::Result<Rate> {
    let floor = Floor::start().await?;
    let request = Rc::new(publish_request(QUEUE, 1));
    load::run(
        &floor.processes,
        64,
        scale.warm_up,
        scale.line,
        |_, meter| publisher(floor.address.clone(), Rc::clone(&request), 1, meter),
    )
    .await
}

/// Publishes of `batch` messages by so many clients, into a new queue.
pub(crate) async fn publish(
    gateway: &Gateway,
    scale: &Scale,
    clients: usize,
    batch: usize,
) -> anyhow::Result<Rate> {
    new_queue(gateway).await?;
    let request = Rc::new(publish_request(QUEUE, batch));
    load::run(
        &gateway.processes,
        clients,
        scale.warm_up,
        scale.line,
        |_, meter| {
            publisher(
                gateway.address.clone(),
                Rc::clone(&request),
                batch as u64,
                meter,
            )
        },
    )
    .await
}

/// Publishes of single messages with an idempotency key by 64 clients.
pub(crate) async fn publish_keyed(gateway: &Gateway, scale: &Scale) -> anyhow::Result<Rate> {
    new_queue(gateway).await?;
    let request = Rc::new(publish_request(QUEUE, 1));
    load::run(
        &gateway.processes,
        64,
        scale.warm_up,
        scale.line,
        |number, meter| {
            let address = gateway.address.clone();
            keyed_publisher(address, Rc::clone(&request), number, meter)
        },
    )
    .await
}

/// Receive and ack of `max_messages` at a time by 64 clients. The queue holds
/// enough for the whole time, so that nobody waits.
pub(crate) async fn consume(
    gateway: &Gateway,
    scale: &Scale,
    max_messages: usize,
) -> anyhow::Result<Rate> {
    load::run(
        &gateway.processes,
        64,
        scale.warm_up,
        scale.line,
        |_, meter| consumer(gateway.address.clone(), QUEUE, max_messages, meter),
    )
    .await
}

/// The queue, empty.
pub(crate) async fn new_queue(gateway: &Gateway) -> anyhow::Result<()> {
    gateway.new_queue(QUEUE).await
}

/// The queue, with messages in it.
pub(crate) async fn fill(gateway: &Gateway, messages: usize) -> anyhow::Result<()> {
    new_queue(gateway).await?;
    clients::fill(&gateway.address, QUEUE, messages).await
}

/// Everything at once: half of the clients publish single messages, the others
/// receive and ack up to ten at a time. What is counted is consumed.
pub(crate) async fn both(gateway: &Gateway, scale: &Scale) -> anyhow::Result<Rate> {
    new_queue(gateway).await?;
    let request = Rc::new(publish_request(QUEUE, 1));
    load::run(
        &gateway.processes,
        64,
        scale.warm_up,
        scale.line,
        |number, meter| {
            let (address, request) = (gateway.address.clone(), Rc::clone(&request));
            async move {
                if number % 2 == 0 {
                    publish_uncounted(address, request, meter).await
                } else {
                    consumer(address, QUEUE, 10, meter).await
                }
            }
        },
    )
    .await
}

/// Publishes, receives and acks in batches of 100, for so long. Sixteen clients
/// are enough to keep the gateway busy.
pub(crate) async fn batches(
    gateway: &Gateway,
    warm_up: Duration,
    measured: Duration,
) -> anyhow::Result<Rate> {
    load::run(&gateway.processes, 16, warm_up, measured, |_, meter| {
        cycle(gateway.address.clone(), QUEUE, 100, meter)
    })
    .await
}

/// Every message is consumed, which is what counts.
async fn publish_uncounted(
    address: String,
    request: Rc<Vec<u8>>,
    meter: Rc<load::Meter>,
) -> anyhow::Result<()> {
    let mut connection = crate::http::Connection::open(&address).await?;
    while meter.runs() {
        connection.expect(&request).await?;
    }
    Ok(())
}

/// Bytes of WAL written so far.
pub(crate) const POSITION: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8";

/// Bytes of WAL a message that is published, claimed and acked in batches of 100.
pub(crate) async fn wal_per_message(gateway: &Gateway, messages: usize) -> anyhow::Result<f64> {
    new_queue(gateway).await?;
    let mut database = gateway.database().await?;
    // Pages are logged whole the first time after a checkpoint; over the hour
    // between two of them that is nothing, in a short run it would be much.
    database.run("CHECKPOINT").await?;
    clients::fill(&gateway.address, QUEUE, messages).await?;
    drain(gateway, messages).await?;
    let before = database.number(POSITION).await?;
    clients::fill(&gateway.address, QUEUE, messages).await?;
    drain(gateway, messages).await?;
    Ok((database.number(POSITION).await? - before) / as_f64(messages as u64))
}

async fn drain(gateway: &Gateway, messages: usize) -> anyhow::Result<()> {
    let mut connection = crate::http::Connection::open(&gateway.address).await?;
    let receive = crate::http::post(
        &format!("/v1/queues/{QUEUE}/receive"),
        r#"{"max_messages":100}"#,
    );
    let mut left = messages as u64;
    while left > 0 {
        let received = connection.expect(&receive).await?;
        let Some((ack, count)) = crate::clients::ack_request(QUEUE, received)? else {
            anyhow::bail!("{left} messages are missing");
        };
        connection.expect(&ack).await?;
        left = left.saturating_sub(count);
    }
    Ok(())
}
