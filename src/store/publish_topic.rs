//! Storing messages that are published to topics: the body once, a narrow row
//! for each queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::publish::{duplicates, place, sparse};
use super::publish_topic_columns::Columns;
use super::room::{Bounds, Overflowed};
use super::topology::{Binding, Route};
use super::transaction::{On, Transaction};
use super::{Error, Store, Topology, Turn, statements};
use crate::domain::{Message, Overflow, QueueName, RoutingKey};

statements! {
    PUBLISH_TOPIC = "publish_topic";
    PUBLISH_TOPIC_LINED = "publish_topic_lined";
}

/// One request: messages for one topic, stored all or none.
#[derive(Debug, Clone)]
pub struct PublishTopic {
    /// Where to, and what the routes are in.
    pub topology: Arc<Topology>,
    /// Checked against the topic's settings.
    pub messages: Arc<Vec<Routed>>,
}

/// A message and where it goes.
#[derive(Debug, Clone)]
pub struct Routed {
    /// What is published.
    pub message: Message,
    /// What it was routed by.
    pub routing_key: RoutingKey,
    /// Where it goes.
    pub route: Route,
}

impl Routed {
    /// How many queues it goes to.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.route.queues.len()
    }
}

/// One message's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPublished {
    /// Its id, or the first one's with the same dedup id.
    pub id: i64,
    /// Whether nothing was stored.
    pub duplicate: bool,
    /// How many subscriptions matched.
    pub subscriptions: usize,
}

/// Why a request was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRefusal {
    /// The topic is gone.
    NoTopic,
    /// A queue that matched is at `max_ready` and rejects.
    Full {
        /// Which.
        queue: QueueName,
        /// The bound.
        max_ready: u64,
    },
}

/// One request's result.
pub type PublishTopicResult = Result<Vec<TopicPublished>, TopicRefusal>;

/// What a publish to topics did.
#[derive(Debug, Default)]
pub struct TopicsFed {
    /// What became of each request.
    pub results: Vec<PublishTopicResult>,
    /// What became of each queue.
    pub fed: Vec<Fed>,
    /// What queues that were full gave up.
    pub overflowed: Vec<Overflowed>,
    /// The keys whose turn may have come: whoever publishes calls
    /// [`Store::next_turns`] with them.
    pub turns: Vec<Turn>,
}

/// What a publish did to one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// The queue.
    pub queue_id: i64,
    /// Whether a message became ready.
    pub any_ready: bool,
    /// Milliseconds until the first of those that wait is.
    pub wakes_in_ms: Option<i64>,
}

impl Store {
    /// Stores the messages of all requests in one statement; what became of each, and
    /// of each queue. When it returns, Postgres has committed and flushed.
    ///
    /// Bounded queues cost a statement more, as for [`publish`](Self::publish); a
    /// full one that rejects refuses the whole request.
    ///
    /// # Errors
    /// Any; whether the messages were stored is then not known.
    pub async fn publish_topic(&self, requests: &[PublishTopic]) -> Result<TopicsFed, Error> {
        let (mut fed, bounds) = self
            .publish_topic_on(&mut On::Alone(&self.hot), requests)
            .await?;
        fed.overflowed = self.drop_overflow(bounds).await;
        Ok(fed)
    }

    async fn publish_topic_on(
        &self,
        on: &mut On<'_>,
        requests: &[PublishTopic],
    ) -> Result<(TopicsFed, Bounds), Error> {
        let full = self.full_targets(on, requests).await?;
        let mut columns = Columns::default();
        for (request, full) in requests.iter().zip(&full) {
            if full.is_none() {
                self.note_fair_targets(request).await?;
                for routed in request.messages.iter() {
                    columns.push(&request.topology, routed);
                }
            }
        }
        let (rows, fed, turns) = if columns.topic_id.is_empty() {
            (Vec::new(), Vec::new(), Vec::new())
        } else {
            self.publish_topic_rows(on, &columns).await?
        };
        let mut results = Vec::with_capacity(requests.len());
        let mut ord = 0;
        for (request, full) in requests.iter().zip(full) {
            if let Some(refusal) = full {
                results.push(Err(refusal));
                continue;
            }
            let first = ord;
            ord += request.messages.len();
            // Rows of a topic that is gone are missing.
            let stored: Option<Vec<_>> = rows[first..ord]
                .iter()
                .zip(request.messages.iter())
                .map(|(row, routed)| row.map(|row| row.published(routed)))
                .collect();
            results.push(stored.ok_or(TopicRefusal::NoTopic));
        }
        let bounds = requests
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .flat_map(|(request, _)| targets(request))
            .filter_map(|binding| Some((binding.queue_id, binding.bound()?)))
            .collect();
        let overflowed = Vec::new();
        let fed = TopicsFed {
            results,
            fed,
            overflowed,
            turns,
        };
        Ok((fed, Bounds(bounds)))
    }

    /// Before the first fair message of a queue whose setting does not say so.
    async fn note_fair_targets(&self, request: &PublishTopic) -> Result<(), Error> {
        let unseen: Vec<i64> = request
            .messages
            .iter()
            .filter(|routed| routed.message.fair == Some(true) && routed.message.key.is_some())
            .flat_map(|routed| &routed.route.queues)
            .map(|place| &request.topology.subscriptions[*place])
            .filter(|binding| !binding.fair_seen && !binding.ordered)
            .map(|binding| binding.queue_id)
            .collect();
        if unseen.is_empty() {
            return Ok(());
        }
        self.note_fair_queues(&unseen).await
    }

    /// For each request, whether a queue that it goes to has no room for it.
    async fn full_targets(
        &self,
        on: &mut On<'_>,
        requests: &[PublishTopic],
    ) -> Result<Vec<Option<TopicRefusal>>, Error> {
        let bound = |binding: &Binding| {
            binding
                .max_ready
                .filter(|_| binding.overflow == Overflow::Reject)
        };
        let mut ids: Vec<i64> = requests
            .iter()
            .flat_map(targets)
            .filter(|binding| bound(binding).is_some())
            .map(|binding| binding.queue_id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(vec![None; requests.len()]);
        }
        let mut ready = self.ready_counts(on, &ids).await?;
        Ok(requests
            .iter()
            .map(|request| {
                let mut wanted: HashMap<i64, u64> = HashMap::new();
                for binding in targets(request) {
                    if let Some(max_ready) = bound(binding) {
                        let wanted = wanted.entry(binding.queue_id).or_default();
                        *wanted += 1;
                        if ready.get(&binding.queue_id).unwrap_or(&0) + *wanted > max_ready {
                            return Some(TopicRefusal::Full {
                                queue: binding.queue.clone(),
                                max_ready,
                            });
                        }
                    }
                }
                for (queue_id, wanted) in wanted {
                    *ready.entry(queue_id).or_default() += wanted;
                }
                None
            })
            .collect())
    }

    /// What became of each row, in order (`None` if its topic is gone), and of
    /// each queue; and the keys that have a longer line now.
    async fn publish_topic_rows(
        &self,
        on: &mut On<'_>,
        columns: &Columns<'_>,
    ) -> Result<(Vec<Option<Row>>, Vec<Fed>, Vec<Turn>), Error> {
        let rows = match self.run_publish_topic(on, columns).await {
            Err(e) if e.is_missing_partition() && on.is_alone() => {
                // Faster than the worker that makes them ahead of need.
                self.make_partitions().await?;
                self.run_publish_topic(on, columns).await?
            }
            other => other?,
        };
        let mut published = vec![None; columns.topic_id.len()];
        let (mut fed, mut unseen, mut turns) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let Some(ord) = row.try_get("ord")? else {
                if columns.line_up
                    && let Some(key) = row.try_get("lined_up_key")?
                {
                    turns.push(Turn::key(row.try_get("queue_id")?, key));
                    continue;
                }
                fed.push(Fed {
                    queue_id: row.try_get("queue_id")?,
                    any_ready: row.try_get("any_ready")?,
                    wakes_in_ms: row.try_get("wakes_in_ms")?,
                });
                continue;
            };
            let id: Option<i64> = row.try_get("id")?;
            if id.is_none() {
                unseen.push(place(ord));
            }
            let reached: i64 = row.try_get("reached")?;
            published[place(ord)] = Some(Row {
                id: id.unwrap_or(0),
                duplicate: row.try_get("duplicate")?,
                reached: usize::try_from(reached).unwrap_or(0),
            });
        }
        if !unseen.is_empty() {
            let ids: Vec<i64> = unseen.iter().map(|at| columns.topic_id[*at]).collect();
            let dedup_ids: Vec<_> = unseen.iter().map(|at| columns.dedup_id[*at]).collect();
            for (at, id) in duplicates(on, &ids, &dedup_ids).await? {
                if let Some(row) = &mut published[unseen[at]] {
                    row.id = id;
                }
            }
        }
        Ok((published, fed, turns))
    }

    async fn run_publish_topic(
        &self,
        on: &mut On<'_>,
        columns: &Columns<'_>,
    ) -> Result<Vec<PgRow>, Error> {
        let began = Instant::now();
        let statement = if columns.line_up {
            PUBLISH_TOPIC_LINED
        } else {
            PUBLISH_TOPIC
        };
        let mut query = sqlx::query(statement)
            .bind(&columns.topic_id)
            .bind(&columns.topic)
            .bind(&columns.routing_key)
            .bind(&columns.body)
            .bind(sparse(&columns.content_type))
            .bind(sparse(&columns.headers))
            .bind(sparse(&columns.key))
            .bind(sparse(&columns.delay_ms))
            .bind(sparse(&columns.deliver_at))
            .bind(sparse(&columns.ttl_ms))
            .bind(&columns.priority)
            .bind(sparse(&columns.correlation_id))
            .bind(sparse(&columns.reply_to))
            .bind(sparse(&columns.traceparent))
            .bind(sparse(&columns.tracestate))
            .bind(sparse(&columns.dedup_id))
            .bind(&columns.dedup_window_ms)
            .bind(&columns.queues_to)
            .bind(&columns.queues_from)
            .bind(&columns.queues);
        if columns.line_up {
            query = query.bind(&columns.fair);
        }
        let query = query.bind(&columns.schema_version);
        let rows = on.fetch_all(query).await?;
        self.metrics
            .publish_topic
            .record(columns.topic_id.len(), began);
        Ok(rows)
    }
}

impl Transaction {
    /// As [`Store::publish_topic`]; what queues that drop their oldest are to give up
    /// is seen to after the commit ([`Store::drop_overflow`]).
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn publish_topic(
        &mut self,
        requests: &[PublishTopic],
    ) -> Result<(TopicsFed, Bounds), Error> {
        let (store, mut on) = self.on_store()?;
        store.publish_topic_on(&mut on, requests).await
    }
}

/// Every copy that a request makes: the subscription it is made for.
fn targets(request: &PublishTopic) -> impl Iterator<Item = &Binding> {
    request
        .messages
        .iter()
        .flat_map(|routed| &routed.route.queues)
        .map(|place| &request.topology.subscriptions[*place])
}

/// What the statement says of one message.
#[derive(Debug, Clone, Copy)]
struct Row {
    id: i64,
    duplicate: bool,
    /// Queues that were there.
    reached: usize,
}

impl Row {
    fn published(self, routed: &Routed) -> TopicPublished {
        let all_reached = self.duplicate || self.reached == routed.queues();
        TopicPublished {
            id: self.id,
            duplicate: self.duplicate,
            subscriptions: if all_reached {
                routed.route.subscriptions
            } else {
                // A queue was deleted since the subscriptions were read.
                self.reached
            },
        }
    }
}
