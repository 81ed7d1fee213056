//! The clients of a queue.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::http::{Connection, post};
use crate::load::Meter;

/// A body of 1 KiB: a JSON string.
pub(crate) fn body() -> String {
    format!("\"{}\"", "x".repeat(1022))
}

/// What a receive answers with, as far as a client needs it.
#[derive(serde::Deserialize)]
pub(crate) struct Received<'a> {
    #[serde(borrow)]
    pub(crate) messages: Vec<Delivery<'a>>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Delivery<'a> {
    pub(crate) receipt: &'a str,
    #[serde(borrow)]
    pub(crate) body: &'a serde_json::value::RawValue,
}

/// A publish of one message, or of a batch.
pub(crate) fn publish_request(queue: &str, batch: usize) -> Vec<u8> {
    let message = format!("{{\"body\":{}}}", body());
    publish_of(&format!("/v1/queues/{queue}/messages"), &message, batch)
}

/// The same to a topic.
pub(crate) fn topic_request(topic: &str, routing_key: &str, batch: usize) -> Vec<u8> {
    let message = format!("{{\"routing_key\":\"{routing_key}\",\"body\":{}}}", body());
    publish_of(&format!("/v1/topics/{topic}/messages"), &message, batch)
}

fn publish_of(path: &str, message: &str, batch: usize) -> Vec<u8> {
    let json = match batch {
        1 => message.to_owned(),
        _ => format!("{{\"messages\":[{}]}}", vec![message; batch].join(",")),
    };
    post(path, &json)
}

/// An ack of what a receive brought; `None` if that is nothing.
pub(crate) fn ack_request(queue: &str, received: &[u8]) -> anyhow::Result<Option<(Vec<u8>, u64)>> {
    let received: Received<'_> = serde_json::from_slice(received)?;
    if received.messages.is_empty() {
        return Ok(None);
    }
    let receipts: Vec<&str> = received.messages.iter().map(|m| m.receipt).collect();
    let count = receipts.len() as u64;
    let json = serde_json::json!({ "receipts": receipts }).to_string();
    Ok(Some((
        post(&format!("/v1/queues/{queue}/ack"), &json),
        count,
    )))
}

/// Publishes, again and again.
pub(crate) async fn publisher(
    address: String,
    request: Rc<Vec<u8>>,
    batch: u64,
    meter: Rc<Meter>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    while meter.runs() {
        let began = Instant::now();
        connection.expect(&request).await?;
        meter.count(batch, began);
    }
    Ok(())
}

/// Publishes single messages, each with an idempotency key of its own.
pub(crate) async fn keyed_publisher(
    address: String,
    request: Rc<Vec<u8>>,
    number: usize,
    meter: Rc<Meter>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let mut keyed = Vec::with_capacity(request.len() + 64);
    let line = request.windows(2).position(|two| two == b"\r\n");
    let (first, rest) = request.split_at(line.context("a request has lines")?);
    let mut next = 0_u64;
    while meter.runs() {
        next += 1;
        keyed.clear();
        keyed.extend_from_slice(first);
        write!(keyed, "\r\nIdempotency-Key: client-{number}-{next}")?;
        keyed.extend_from_slice(rest);
        let began = Instant::now();
        connection.expect(&keyed).await?;
        meter.count(1, began);
    }
    Ok(())
}

/// Receives and acks, again and again.
pub(crate) async fn consumer(
    address: String,
    queue: &'static str,
    max_messages: usize,
    meter: Rc<Meter>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let receive = post(
        &format!("/v1/queues/{queue}/receive"),
        &format!("{{\"max_messages\":{max_messages},\"wait_seconds\":1}}"),
    );
    while meter.runs() {
        let began = Instant::now();
        let received = connection.expect(&receive).await?;
        if let Some((ack, count)) = ack_request(queue, received)? {
            connection.expect(&ack).await?;
            meter.count(count, began);
        }
    }
    Ok(())
}

/// Publishes a batch, then receives and acks as many, again and again: what is
/// published is consumed at the same rate, so that no backlog grows.
pub(crate) async fn cycle(
    address: String,
    queue: &'static str,
    batch: usize,
    meter: Rc<Meter>,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(&address).await?;
    let publish = publish_request(queue, batch);
    let receive = post(
        &format!("/v1/queues/{queue}/receive"),
        &format!("{{\"max_messages\":{batch}}}"),
    );
    while meter.runs() {
        let began = Instant::now();
        connection.expect(&publish).await?;
        let mut left = batch as u64;
        while left > 0 {
            let received = connection.expect(&receive).await?;
            // Others may have taken more than they published.
            let Some((ack, count)) = ack_request(queue, received)? else {
                break;
            };
            connection.expect(&ack).await?;
            meter.count(count, began);
            left = left.saturating_sub(count);
        }
    }
    Ok(())
}

/// Messages of a request that fills.
pub(crate) const BATCH: usize = 500;

/// Puts messages into a queue, in batches.
pub(crate) async fn fill(address: &str, queue: &str, messages: usize) -> anyhow::Result<()> {
    fill_with(address, publish_request(queue, BATCH), messages).await
}

/// Publishes messages by requests of [`BATCH`].
pub(crate) async fn fill_with(
    address: &str,
    request: Vec<u8>,
    messages: usize,
) -> anyhow::Result<()> {
    ensure!(
        messages.is_multiple_of(BATCH),
        "filled in batches of {BATCH}"
    );
    let request = Rc::new(request);
    let left = Rc::new(std::cell::Cell::new(messages / BATCH));
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (address, request, left) =
                (address.to_owned(), Rc::clone(&request), Rc::clone(&left));
            local.spawn_local(async move {
                let mut connection = Connection::open(&address).await?;
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    connection.expect(&request).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    local
        .run_until(async {
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await
}
