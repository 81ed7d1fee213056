//! RabbitMQ, by AMQP 0-9-1: a quorum queue, which is its durable kind, with
//! publisher confirms. It does not confirm acks, so its consumers do less than
//! those of the others.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use super::{Client, Work};
use crate::Scale;
use crate::clients::body;
use crate::load::Rate;

const QUEUE: &str = "postrider_bench";

/// Persistent, in the words of AMQP.
const PERSISTENT: u8 = 2;

pub(super) async fn run(
    url: &str,
    scale: &Scale,
    work: Work,
    enough: usize,
) -> anyhow::Result<Rate> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(QUEUE.into(), durable, arguments)
        .await?;
    let rate = super::run::<Rabbitmq>(url, scale, work, enough).await;
    channel
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await?;
    rate
}

struct Rabbitmq {
    channel: Channel,
    consumer: Option<Consumer>,
    body: String,
    _connection: Connection,
}

impl Client for Rabbitmq {
    async fn connect(url: &str) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            channel,
            consumer: None,
            body: body(),
            _connection: connection,
        })
    }

    async fn publish(&mut self, messages: usize) -> anyhow::Result<()> {
        let mut confirms = Vec::with_capacity(messages);
        for _ in 0..messages {
            let confirm = self
                .channel
                .basic_publish(
                    "".into(),
                    QUEUE.into(),
                    BasicPublishOptions::default(),
                    self.body.as_bytes(),
                    BasicProperties::default().with_delivery_mode(PERSISTENT),
                )
                .await?;
            confirms.push(confirm);
        }
        for confirm in confirms {
            anyhow::ensure!(confirm.await?.is_ack(), "RabbitMQ refused a message");
        }
        Ok(())
    }

    async fn consume(&mut self, at_once: usize) -> anyhow::Result<u64> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => {
                self.channel
                    .basic_qos(u16::try_from(at_once)?, BasicQosOptions::default())
                    .await?;
                let consumer = self.channel.basic_consume(
                    QUEUE.into(),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                );
                none.insert(consumer.await?)
            }
        };
        let (mut last, mut count) = (None, 0);
        while count < at_once {
            // An empty queue says nothing.
            let Ok(next) = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await
            else {
                break;
            };
            last = Some(next.context("RabbitMQ ended the consumer")??);
            count += 1;
        }
        if let Some(last) = last {
            last.ack(BasicAckOptions { multiple: true }).await?;
        }
        Ok(count as u64)
    }
}
