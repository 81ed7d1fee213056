//! What is published in a transaction by the gateway itself: of the SQL door, and of
//! schedules. Requests that are refused do not keep the others from it.

use std::sync::Arc;

use super::publish::{Publish, Published, Refusal};
use super::publish_topic::{Fed, PublishTopic, TopicRefusal};
use super::room::Bounds;
use super::transaction::Transaction;
use super::{Error, Queue, SchemaOf, Store, Topology, Turn};
use crate::domain::{self, Message, QueueName, Target};

/// What was stored, for what follows the commit.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Messages in queues.
    pub queues: Vec<(Publish, Vec<Published>)>,
    /// What topics' messages did to queues.
    pub fed: Vec<Fed>,
    /// Keys whose turn may have come by topics' messages.
    pub turns: Vec<Turn>,
    /// Queues to be looked at: they may be too full.
    pub bounds: Vec<Bounds>,
}

/// Requests, each with a number by which whoever asks knows it again.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) to_queues: Vec<(usize, Publish)>,
    pub(super) to_topics: Vec<(usize, PublishTopic)>,
}

/// A request.
pub(super) enum Addressed {
    ToQueue(Publish),
    ToTopic(PublishTopic),
}

impl Requests {
    pub(super) fn add(&mut self, at: usize, request: Addressed) {
        match request {
            Addressed::ToQueue(publish) => self.to_queues.push((at, publish)),
            Addressed::ToTopic(publish) => self.to_topics.push((at, publish)),
        }
    }
}

/// Why something is not published: the code of a refusal over HTTP, and the same in
/// words.
pub(super) type Reason = (&'static str, String);

/// Why one was not stored.
pub(super) enum Undeliverable {
    ToQueue(Refusal, Arc<Queue>),
    ToTopic(TopicRefusal, Arc<Topology>),
}

impl Undeliverable {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::ToQueue(Refusal::NoQueue, queue) => no_queue(&queue.name),
            Self::ToTopic(TopicRefusal::NoTopic, topology) => no_topic(&topology.topic.name),
            Self::ToQueue(Refusal::Full { max_ready }, queue) => full(&queue.name, max_ready),
            Self::ToTopic(TopicRefusal::Full { queue, max_ready }, _) => full(&queue, max_ready),
        }
    }
}

fn no_queue(name: &QueueName) -> Reason {
    ("queue-not-found", format!("there is no queue {name}"))
}

fn no_topic(name: &QueueName) -> Reason {
    ("topic-not-found", format!("there is no topic {name}"))
}

fn full(queue: &QueueName, max_ready: u64) -> Reason {
    let detail = format!("the queue {queue} holds max_ready ({max_ready}) messages");
    ("queue-full", detail)
}

pub(super) fn invalid(error: &domain::Error) -> Reason {
    let code = match error {
        domain::Error::TooLarge { .. } => "message-too-large",
        _ => "invalid",
    };
    (code, error.to_string())
}

/// How a queue or topic is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUp {
    /// As it is remembered; if that was old, publishing refuses it.
    Remembered,
    /// In the database.
    Now,
}

impl Store {
    /// A request to publish messages with the same body, if `check` takes that with
    /// the most bytes of their queue or topic, and its schema does.
    ///
    /// # Errors
    /// Any.
    pub(super) async fn address(
        &self,
        target: &Target,
        look_up: LookUp,
        mut messages: Vec<Message>,
        check: impl Fn(&Message, u32) -> Result<(), domain::Error> + Send,
    ) -> Result<Result<Addressed, Reason>, Error> {
        let is_remembered = look_up == LookUp::Remembered;
        match target {
            Target::Queue(name) => {
                let queue = if is_remembered {
                    self.queue(name).await?
                } else {
                    self.queue_now(name).await?
                };
                let Some(queue) = queue else {
                    return Ok(Err(no_queue(name)));
                };
                let most = queue.settings.max_message_bytes;
                let schema = (SchemaOf::Queue(queue.id), queue.schema_version);
                if let Err(reason) = self.take_all(&mut messages, most, schema, check).await? {
                    return Ok(Err(reason));
                }
                let messages = Arc::new(messages);
                Ok(Ok(Addressed::ToQueue(Publish { queue, messages })))
            }
            Target::Topic(name, routing_key) => {
                let topology = if is_remembered {
                    self.topology(name).await?
                } else {
                    self.topology_now(name).await?
                };
                let Some(topology) = topology else {
                    return Ok(Err(no_topic(name)));
                };
                let topic = &topology.topic;
                let most = topic.settings.max_message_bytes;
                let schema = (SchemaOf::Topic(topic.id), topic.schema_version);
                if let Err(reason) = self.take_all(&mut messages, most, schema, check).await? {
                    return Ok(Err(reason));
                }
                let messages = messages.into_iter();
                let routed = messages.map(|m| topology.routed(m, routing_key.clone()));
                let messages = Arc::new(routed.collect());
                Ok(Ok(Addressed::ToTopic(PublishTopic { topology, messages })))
            }
        }
    }

    /// Checks the body, once, and notes the schema's version in all.
    async fn take_all(
        &self,
        messages: &mut [Message],
        most: u32,
        (of, version): (SchemaOf, Option<i32>),
        check: impl Fn(&Message, u32) -> Result<(), domain::Error> + Send,
    ) -> Result<Result<(), Reason>, Error> {
        for message in &mut *messages {
            message.schema_version = version;
        }
        let Some(first) = messages.first() else {
            return Ok(Ok(()));
        };
        if let Err(error) = check(first, most) {
            return Ok(Err(invalid(&error)));
        }
        match version {
            Some(version) => self.check_by_schema(of, version, first).await,
            None => Ok(Ok(())),
        }
    }
}

impl Transaction {
    /// Stores what can be; which cannot.
    pub(super) async fn publish_all(
        &mut self,
        requests: Requests,
    ) -> Result<(Arrived, Vec<(usize, Undeliverable)>), Error> {
        let (mut arrived, mut refused) = (Arrived::default(), Vec::new());
        let Requests {
            to_queues,
            to_topics,
        } = requests;
        if !to_queues.is_empty() {
            let (places, requests): (Vec<_>, Vec<_>) = to_queues.into_iter().unzip();
            let (results, bounds) = self.publish(&requests).await?;
            arrived.bounds.push(bounds);
            for ((at, request), result) in places.into_iter().zip(requests).zip(results) {
                match result {
                    Ok(published) => arrived.queues.push((request, published)),
                    Err(why) => refused.push((at, Undeliverable::ToQueue(why, request.queue))),
                }
            }
        }
        if !to_topics.is_empty() {
            let (places, requests): (Vec<_>, Vec<_>) = to_topics.into_iter().unzip();
            let (fed, bounds) = self.publish_topic(&requests).await?;
            arrived.bounds.push(bounds);
            arrived.fed = fed.fed;
            arrived.turns = fed.turns;
            for ((at, request), result) in places.into_iter().zip(requests).zip(fed.results) {
                if let Err(why) = result {
                    refused.push((at, Undeliverable::ToTopic(why, request.topology)));
                }
            }
        }
        Ok((arrived, refused))
    }
}
