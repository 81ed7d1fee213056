//! What is published in a transaction by the gateway itself: of the SQL door, and of
//! schedules. Requests that are refused do not keep the others from it.

use std::sync::Arc;

use super::publish::{Bounds, Publish, Published, Refusal};
use super::publish_topic::{Fed, PublishTopic, TopicRefusal};
use super::transaction::Transaction;
use super::{Error, Queue, Turn};

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

/// Why one was not stored.
pub(super) enum Undeliverable {
    ToQueue(Refusal, Arc<Queue>),
    ToTopic(TopicRefusal),
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
            for (at, result) in places.into_iter().zip(fed.results) {
                if let Err(why) = result {
                    refused.push((at, Undeliverable::ToTopic(why)));
                }
            }
        }
        Ok((arrived, refused))
    }
}
