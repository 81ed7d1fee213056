//! What a publish to a topic is routed by, and the cache that it reads it
//! through.
//!
//! A topic with its subscriptions is read whole, by one statement. An entry of
//! the cache is good for half a second, then one request reads it anew while
//! the others go on with what there is for as long again: a change of another
//! gateway is seen within a second. A change by this gateway makes all entries
//! old at once, and what was being read at that moment is not kept: a publish
//! that comes after the answer to the change sees it.
//!
//! A filter is compiled once for each version of its subscription: when a topic
//! is read anew, those that did not change are taken over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::publish_topic::Routed;
use super::room::Bound;
use super::subscriptions::filter;
use super::topics::{Topic, name, topic};
use super::{Error, Store, statements};
use crate::domain::{Candidate, Filter, Message, Overflow, QueueName, RoutingKey};

statements! {
    TOPOLOGY = "topology";
}

/// A topic and what is subscribed to it.
#[derive(Debug)]
pub struct Topology {
    /// The topic.
    pub topic: Topic,
    /// Its subscriptions, in order of name.
    pub subscriptions: Vec<Binding>,
}

/// A subscription as a publish needs it.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub subscription: QueueName,
    /// Which messages.
    pub filter: Arc<Filter>,
    /// The queue that it feeds.
    pub queue: QueueName,
    /// The queue's internal id.
    pub queue_id: i64,
    /// The queue's bound on ready messages.
    pub max_ready: Option<u64>,
    /// What the queue does at it.
    pub overflow: Overflow,
    /// Whether the queue is ordered.
    pub ordered: bool,
    /// Whether the queue's messages with a key are fair.
    pub fair: bool,
    /// Whether a fair message was ever published to the queue.
    pub fair_seen: bool,
    /// The subscription's internal id and version: what the filter is of.
    compiled_of: (i64, i64),
}

impl Binding {
    /// What the queue may hold, if it drops what is over that.
    pub(super) fn bound(&self) -> Option<Bound> {
        if self.overflow != Overflow::DropOldest {
            return None;
        }
        Some(Bound {
            max_ready: self.max_ready?,
            has_lines: self.ordered || self.fair_seen,
        })
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// For each queue, once, a subscription that feeds it: its place in the
    /// topology.
    pub(super) queues: Vec<usize>,
    /// How many subscriptions matched.
    pub subscriptions: usize,
}

impl Topology {
    /// A message with its way.
    #[must_use]
    pub fn routed(&self, message: Message, routing_key: RoutingKey) -> Routed {
        Routed {
            route: self.route(&Candidate::of(&message, &routing_key)),
            message,
            routing_key,
        }
    }

    /// Asks every subscription. Those to one queue make one copy.
    #[must_use]
    pub fn route(&self, candidate: &Candidate<'_>) -> Route {
        let mut route = Route {
            queues: Vec::new(),
            subscriptions: 0,
        };
        let mut queue_ids = std::collections::HashSet::new();
        for (place, binding) in self.subscriptions.iter().enumerate() {
            if binding.filter.matches(candidate) {
                route.subscriptions += 1;
                if queue_ids.insert(binding.queue_id) {
                    route.queues.push(place);
                }
            }
        }
        route
    }
}

impl Store {
    /// The topic of this name and its subscriptions, at most a second old.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn topology(&self, topic: &QueueName) -> Result<Option<Arc<Topology>>, Error> {
        match self.topologies.fresh(topic) {
            Some(topology) => Ok(Some(topology)),
            None => self.topology_now(topic).await,
        }
    }

    /// The topic of this name and its subscriptions, from the database.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn topology_now(&self, topic: &QueueName) -> Result<Option<Arc<Topology>>, Error> {
        let reading = self.topologies.begin(topic);
        let rows = sqlx::query(TOPOLOGY)
            .bind(topic.as_str())
            .fetch_all(&self.hot)
            .await?;
        let topology = read(&rows, reading.old.as_deref())?.map(Arc::new);
        self.topologies.keep(topic, &reading, topology.as_ref());
        Ok(topology)
    }
}

fn read(rows: &[PgRow], old: Option<&Topology>) -> Result<Option<Topology>, Error> {
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let compiled: HashMap<(i64, i64), &Arc<Filter>> = old
        .iter()
        .flat_map(|old| &old.subscriptions)
        .map(|binding| (binding.compiled_of, &binding.filter))
        .collect();
    let mut subscriptions = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(id) = row.try_get::<Option<i64>, _>("subscription_id")? else {
            // The one row of a topic without any.
            continue;
        };
        let compiled_of = (id, row.try_get("subscription_version")?);
        let filter = match compiled.get(&compiled_of) {
            Some(filter) => Arc::clone(filter),
            None => Arc::new(compile(row)?),
        };
        subscriptions.push(Binding {
            subscription: name(row, "subscription_name")?,
            filter,
            queue: name(row, "queue_name")?,
            queue_id: row.try_get("queue_id")?,
            max_ready: row
                .try_get::<Option<i64>, _>("max_ready")?
                .map(i64::cast_unsigned),
            overflow: super::queues::overflow(row)?,
            ordered: row.try_get("ordered")?,
            fair: row.try_get("fair")?,
            fair_seen: row.try_get("fair_seen")?,
            compiled_of,
        });
    }
    Ok(Some(Topology {
        topic: topic(first)?,
        subscriptions,
    }))
}

fn compile(row: &PgRow) -> Result<Filter, Error> {
    match filter(row)? {
        // It was valid when it was stored; a newer gateway's may not be here.
        Some(json) => Filter::parse(&json, "/filter")
            .map_err(|e| Error::from(sqlx::Error::Decode(Box::new(e)))),
        None => Ok(Filter::everything()),
    }
}

/// How old an entry may be.
const FRESH: Duration = Duration::from_millis(500);

/// How old it may become while another request reads it anew.
const STALE: Duration = Duration::from_secs(1);

/// Topics that this gateway has published to.
#[derive(Debug, Default)]
pub(super) struct Cache(RwLock<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_name: HashMap<QueueName, Entry>,
    /// Counts this gateway's own changes.
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    topology: Arc<Topology>,
    /// When reading it began; `None`: it is old, and kept for its filters only.
    read: Option<Instant>,
    being_refreshed: AtomicBool,
}

/// A reading that has begun.
struct Reading {
    old: Option<Arc<Topology>>,
    began: Instant,
    changes: u64,
}

impl Cache {
    fn lock(&self) -> std::sync::RwLockReadGuard<'_, Entries> {
        self.0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn lock_mut(&self) -> std::sync::RwLockWriteGuard<'_, Entries> {
        self.0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn fresh(&self, topic: &QueueName) -> Option<Arc<Topology>> {
        let entries = self.lock();
        let entry = entries.by_name.get(topic)?;
        let age = entry.read?.elapsed();
        let usable =
            age < FRESH || (age < STALE && entry.being_refreshed.swap(true, Ordering::Relaxed));
        usable.then(|| Arc::clone(&entry.topology))
    }

    fn begin(&self, topic: &QueueName) -> Reading {
        let entries = self.lock();
        Reading {
            old: entries
                .by_name
                .get(topic)
                .map(|entry| Arc::clone(&entry.topology)),
            began: Instant::now(),
            changes: entries.changes,
        }
    }

    fn keep(&self, topic: &QueueName, reading: &Reading, topology: Option<&Arc<Topology>>) {
        let mut entries = self.lock_mut();
        let Some(topology) = topology else {
            entries.by_name.remove(topic);
            return;
        };
        // Of two that read at the same time the one that began later knows more.
        let is_newer = entries
            .by_name
            .get(topic)
            .is_none_or(|entry| entry.read.is_none_or(|read| read <= reading.began));
        if entries.changes == reading.changes && is_newer {
            entries.by_name.insert(
                topic.clone(),
                Entry {
                    topology: Arc::clone(topology),
                    read: Some(reading.began),
                    being_refreshed: AtomicBool::new(false),
                },
            );
        }
    }

    /// This gateway has changed something, or tried to.
    pub(super) fn forget(&self) {
        let mut entries = self.lock_mut();
        entries.changes += 1;
        for entry in entries.by_name.values_mut() {
            entry.read = None;
        }
    }
}
