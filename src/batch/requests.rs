//! What goes through the batchers: how much room each request takes, and the
//! bounds of each batcher.

use super::{Bounds, PublishOnce, To, Transact, Weigh};
use crate::domain::{Lease, Seconds};
use crate::store::{Answer, Publish, PublishTopic, PushRecord, ReplyTo, Settle, Turn};

#[derive(Debug)]
pub(super) struct Acks(pub(super) Vec<Lease>);
#[derive(Debug)]
pub(super) struct Settles(pub(super) Vec<Settle>);
#[derive(Debug)]
pub(super) struct Extends(pub(super) Vec<(Lease, Seconds)>);

#[derive(Debug)]
pub(super) struct Passing(pub(super) Vec<Turn>);

/// What a message weighs besides its body: its fields and channel.
const OVERHEAD: usize = 512;

impl Weigh for Publish {
    fn rows(&self) -> usize {
        self.messages.len()
    }
    fn bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|m| m.content.body.len() + OVERHEAD)
            .sum()
    }
}

impl Weigh for PublishTopic {
    fn rows(&self) -> usize {
        self.messages.iter().map(|m| 1 + m.queues()).sum()
    }
    fn bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|m| m.message.content.body.len() + OVERHEAD + m.queues() * size_of::<i64>())
            .sum()
    }
}

impl Weigh for PublishOnce {
    fn rows(&self) -> usize {
        match &self.to {
            To::Queue(publish, _) => publish.rows(),
            To::Topic(publish, _) => publish.rows(),
        }
    }
    fn bytes(&self) -> usize {
        match &self.to {
            To::Queue(publish, _) => publish.bytes(),
            To::Topic(publish, _) => publish.bytes(),
        }
    }
}

impl Weigh for Transact {
    /// Each is a transaction of its own.
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        let leases = self.steps.acks.len() + self.nacks.len();
        let to_queues: usize = self.steps.to_queues.iter().map(Weigh::bytes).sum();
        let to_topics: usize = self.steps.to_topics.iter().map(Weigh::bytes).sum();
        leases * OVERHEAD + to_queues + to_topics
    }
}

impl Weigh for PushRecord {
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        self.answer.len() + OVERHEAD
    }
}

impl Weigh for Answer {
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        self.content.body.len() + OVERHEAD
    }
}

impl Weigh for ReplyTo {
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        OVERHEAD
    }
}

macro_rules! weigh_by_number {
    ($($name:ident),+) => {$(
        impl Weigh for $name {
            fn rows(&self) -> usize {
                self.0.len()
            }
            fn bytes(&self) -> usize {
                self.0.len() * OVERHEAD
            }
        }
    )+};
}
weigh_by_number!(Acks, Settles, Extends, Passing);

/// One writer for small batches: a second would send while the first is
/// flushed, but halve the batches and so double what statements cost besides
/// their rows (about 170 µs of processor time beside 13 µs a row). On 2 cores 64
/// connections publish 33,000/s with one and 27,000/s with two. For large ones
/// the second is worth it: batches of 100 go from 49,000/s to 90,000/s.
///
/// Nor does it help to do only the flush beside the next statement. Sending that when
/// the first has run for 200 to 400 µs, so about when its flush begins, took 46,000/s
/// down to between 37,000 and 44,000/s. With `synchronous_commit` off, and answers
/// that waited for a flush by a connection of its own, receive and ack one by one went
/// from 20,000/s to 17,000/s: the smaller batches and the flush's own round trip cost
/// more than what waits for the disk could have done.
pub(super) const PUBLISHES: Bounds = Bounds {
    name: "store.publish",
    writers: 2,
    alongside: 100,
    rows: 1000,
    bytes: 4 * 1024 * 1024,
    waiting_bytes: 64 * 1024 * 1024,
};
pub(super) const TO_TOPICS: Bounds = Bounds {
    name: "store.publish_topic",
    ..PUBLISHES
};
/// Several round trips each, in which one alone leaves the machine idle; so a second
/// one begins when so many wait. Single runs of five settings on a busy machine differed
/// by less than runs of one do, but for one writer alone, which was the slowest. Each has
/// as many advisory locks as keys, of the server's `max_locks_per_transaction` (64 a
/// connection) for all together.
pub(super) const ONCE: Bounds = Bounds {
    name: "store.publish_once",
    alongside: 32,
    rows: 200,
    ..PUBLISHES
};
/// With a connection of the rest's pool each; the workers need some, too.
pub(super) const TRANSACTIONS: Bounds = Bounds {
    name: "store.transact",
    writers: 3,
    alongside: 0,
    rows: 1,
    ..PUBLISHES
};
pub(super) const ACKS: Bounds = Bounds {
    name: "store.ack",
    writers: 2,
    alongside: 100,
    rows: 2000,
    bytes: usize::MAX,
    waiting_bytes: 16 * 1024 * 1024,
};
/// Their bodies are as those of messages.
pub(super) const REPLIES: Bounds = Bounds {
    name: "store.reply",
    ..PUBLISHES
};
pub(super) const REPLY_READS: Bounds = Bounds {
    name: "store.read_replies",
    ..ACKS
};
/// The rare ends of a lease need less.
pub(super) const SETTLES: Bounds = Bounds {
    name: "store.settle",
    writers: 1,
    alongside: 0,
    rows: 1000,
    ..ACKS
};
pub(super) const EXTENDS: Bounds = Bounds {
    name: "store.extend",
    ..SETTLES
};
/// One writer: of several keys each is dealt with once a statement.
pub(super) const TURNS: Bounds = Bounds {
    name: "store.next_turn",
    ..SETTLES
};
pub(super) const PUSH_RECORDS: Bounds = Bounds {
    name: "store.record_pushes",
    ..SETTLES
};
