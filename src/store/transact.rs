//! Atomic steps: acks, nacks, publishes and completed claims that take effect
//! together, or not at all.
//!
//! Kinds of steps come in one order, and what a step waits for it locks in the order
//! of rows or of keys:
//!
//! 1. leases, by their addresses (`hold.sql`, or what acks or settles them);
//! 2. with nacks of ordered queues, their keys' rows in `turns`, and then what was
//!    leased behind them (`step_back.sql`);
//! 3. claims;
//! 4. with messages to queues, keys that have a line, then dedup ids;
//! 5. with messages to topics, the same.
//!
//! So two transactions of like steps do not wait for each other in a circle. Others
//! may: lines stand in three places, and where an ordered queue's lease ends by
//! itself its key is locked before it. Then the database gives one up, and it is run
//! again.

use super::claims::{ClaimCompleted, complete};
use super::publish::{Publish, Published, Refusal};
use super::publish_topic::{Fed, PublishTopic, TopicPublished, TopicRefusal};
use super::room::Bounds;
use super::settle::{Fate, Settle, Settled};
use super::transaction::Transaction;
use super::{Error, Turn};
use crate::domain::{ClaimKey, ClaimToken, Lease, QueueName};

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// Leases to ack.
    pub acks: Vec<Lease>,
    /// Leases to end otherwise.
    pub nacks: Vec<Settle>,
    /// Whether any of the leases is of an ordered queue.
    pub ordered: bool,
    /// Claims to complete.
    pub claims: Vec<(ClaimKey, ClaimToken)>,
    /// One message each, to queues.
    pub to_queues: Vec<Publish>,
    /// One message each, to topics.
    pub to_topics: Vec<PublishTopic>,
    /// In which order the messages were asked for.
    pub places: Vec<Place>,
}

/// Where a message stands among those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In [`Steps::to_queues`].
    Queue(usize),
    /// In [`Steps::to_topics`].
    Topic(usize),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Transacted {
    /// By the place in [`Steps::to_queues`].
    pub to_queues: Vec<Published>,
    /// By the place in [`Steps::to_topics`].
    pub to_topics: Vec<TopicPublished>,
    /// What the topics' messages did to queues.
    pub fed: Vec<Fed>,
    /// Keys whose turn may have come by the topics' messages.
    pub turns: Vec<Turn>,
    /// Queues to be looked at after the commit.
    pub bounds: Vec<Bounds>,
}

/// The step that could not be done, by its place among its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// An ack.
    Ack(usize, PartRefusal),
    /// A nack.
    Nack(usize, PartRefusal),
    /// The completion of a claim.
    Claim(usize, PartRefusal),
    /// A message, by its place in [`Steps::places`].
    Publish(usize, PartRefusal),
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartRefusal {
    /// The lease ended before, whichever way: an ack that was one already does not
    /// count again, since what came with it would.
    LeaseLost,
    /// The lease has run out, so the message cannot be given back.
    LeaseExpired,
    /// One of the same key was leased before and is not settled.
    OutOfOrder,
    /// Somebody else has taken the claim since.
    ClaimLost,
    /// The claim was completed before; as of an ack, what comes with it would be done
    /// twice.
    ClaimDone,
    /// The queue or topic is gone.
    Gone,
    /// A queue is at its bound and rejects; which, if it is not the one that was
    /// named.
    Full {
        /// The queue that a topic led to.
        queue: Option<QueueName>,
        /// Its bound.
        max_ready: u64,
    },
}

impl Transaction {
    /// Does the steps, or says which could not be done; then the transaction is to
    /// be rolled back.
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn transact(&mut self, steps: &Steps) -> Result<Result<Transacted, Refused>, Error> {
        if let Err(refused) = self.end_leases(steps).await? {
            return Ok(Err(refused));
        }
        let completed = complete(&mut self.on()?, &steps.claims).await?;
        for (at, fate) in completed.into_iter().enumerate() {
            let refusal = match fate {
                ClaimCompleted::Now(_) => continue,
                ClaimCompleted::Before(_) => PartRefusal::ClaimDone,
                ClaimCompleted::Lost => PartRefusal::ClaimLost,
            };
            return Ok(Err(Refused::Claim(at, refusal)));
        }
        let mut done = Transacted::default();
        let mut refused = Vec::new();
        if !steps.to_queues.is_empty() {
            let (results, bounds) = self.publish(&steps.to_queues).await?;
            done.bounds.push(bounds);
            for (at, result) in results.into_iter().enumerate() {
                match result {
                    Ok(published) => done.to_queues.extend(published),
                    Err(refusal) => refused.push((Place::Queue(at), refusal.into())),
                }
            }
        }
        if !steps.to_topics.is_empty() {
            let (fed, bounds) = self.publish_topic(&steps.to_topics).await?;
            done.fed = fed.fed;
            done.turns = fed.turns;
            done.bounds.push(bounds);
            for (at, result) in fed.results.into_iter().enumerate() {
                match result {
                    Ok(published) => done.to_topics.extend(published),
                    Err(refusal) => refused.push((Place::Topic(at), refusal.into())),
                }
            }
        }
        // The first as they were asked for, of whichever kind.
        let refused = refused.into_iter().map(|(kind, why)| {
            let at = steps.places.iter().position(|place| *place == kind);
            (at.unwrap_or_default(), why)
        });
        Ok(match refused.min_by_key(|(at, _)| *at) {
            Some((at, why)) => Err(Refused::Publish(at, why)),
            None => Ok(done),
        })
    }

    async fn end_leases(&mut self, steps: &Steps) -> Result<Result<(), Refused>, Error> {
        let Steps { acks, nacks, .. } = steps;
        if !acks.is_empty() && !nacks.is_empty() {
            let nacked = nacks.iter().map(|nack| nack.lease);
            let all: Vec<Lease> = acks.iter().copied().chain(nacked).collect();
            self.hold(&all).await?;
        }
        if !acks.is_empty() {
            for (at, settled) in self.ack(acks, steps.ordered).await?.into_iter().enumerate() {
                let refusal = match settled {
                    Settled::Done | Settled::Not(Fate::Acked) => continue,
                    Settled::Not(Fate::OutOfOrder) => PartRefusal::OutOfOrder,
                    Settled::Not(_) => PartRefusal::LeaseLost,
                };
                return Ok(Err(Refused::Ack(at, refusal)));
            }
        }
        if !nacks.is_empty() {
            // Of an ordered queue, those behind them go back to their line first.
            let returned = if steps.ordered {
                self.step_back(nacks).await?
            } else {
                Vec::new()
            };
            for (at, settled) in self.settle(nacks).await?.into_iter().enumerate() {
                let Settle {
                    lease, disposition, ..
                } = &nacks[at];
                let stays = disposition.stays();
                let has_returned = returned.contains(&(lease.message_id, lease.token));
                let refusal = match settled {
                    Settled::Done => continue,
                    _ if has_returned && stays => continue,
                    _ if has_returned => PartRefusal::OutOfOrder,
                    Settled::Not(Fate::Expired) => PartRefusal::LeaseExpired,
                    Settled::Not(_) => PartRefusal::LeaseLost,
                };
                return Ok(Err(Refused::Nack(at, refusal)));
            }
        }
        Ok(Ok(()))
    }
}

impl From<Refusal> for PartRefusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoQueue => Self::Gone,
            Refusal::Full { max_ready } => Self::Full {
                queue: None,
                max_ready,
            },
        }
    }
}

impl From<TopicRefusal> for PartRefusal {
    fn from(refusal: TopicRefusal) -> Self {
        match refusal {
            TopicRefusal::NoTopic => Self::Gone,
            TopicRefusal::Full { queue, max_ready } => Self::Full {
                queue: Some(queue),
                max_ready,
            },
        }
    }
}
