//! Leasing messages to receivers.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::publish::{Handover, Published};
use super::{Envelope, Error, Store, statements};
use crate::domain::{Lease, Message, Seconds};

statements! {
    CLAIM = "claim";
    CLAIM_BOUNDED = "claim_bounded";
    WITH_READY = "with_ready";
}

/// One receiver's wish.
#[derive(Debug, Clone, Copy)]
pub struct Receiver {
    /// How many messages at most.
    pub max_messages: u32,
    /// For how long.
    pub lease: Seconds,
}

/// A leased message, on its way to a consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The lease; its receipt settles it.
    pub lease: Lease,
    /// 9 first.
    pub priority: i16,
    /// Until when it is exclusive, by the database's clock.
    pub lease_expires_at: DateTime<Utc>,
    /// What was published.
    pub envelope: Envelope,
}

/// What a claim brought.
#[derive(Debug, Default)]
pub struct Claimed {
    /// For each receiver, in order, its messages.
    pub deliveries: Vec<Vec<Delivery>>,
    /// Messages met whose time to live had passed; they are due for the
    /// promote worker now.
    pub outlived: u32,
    /// Whether fair messages may be among them, whose keys' turns are to be passed
    /// on.
    pub fair: bool,
}

impl Claimed {
    /// How many messages were leased.
    #[must_use]
    pub fn total(&self) -> usize {
        self.deliveries.iter().map(Vec::len).sum()
    }
}

impl Delivery {
    /// Of a message that was stored with a lease; `None` if it was not.
    #[must_use]
    pub fn handed_over(
        queue_id: i64,
        message: &Message,
        published: Published,
        handover: Handover,
    ) -> Option<Self> {
        let leased_at = published.leased_at?;
        Some(Self {
            lease: Lease {
                queue_id,
                message_id: published.id,
                token: handover.token,
                attempt: 1,
            },
            priority: message.priority,
            lease_expires_at: leased_at + handover.lease.to_duration(),
            envelope: Envelope::published(message, leased_at),
        })
    }
}

impl Store {
    /// Leases messages of one queue to several receivers, the first served
    /// first, in one statement; no more than the queue's `max_in_flight` leaves
    /// room for.
    ///
    /// Whether the queue has that setting it takes from the cache, which at most
    /// once a second costs a statement more.
    ///
    /// # Errors
    /// Any; leases that were given all the same end by their time.
    pub async fn claim(&self, queue_id: i64, receivers: &[Receiver]) -> Result<Claimed, Error> {
        let (priorities, floors) = self.watermarks.lanes(queue_id);
        let (mut lease_ms, mut tokens, mut owner) = (vec![], vec![], vec![]);
        for (index, receiver) in receivers.iter().enumerate() {
            // 0 stands for no lease.
            let token = rand::random::<i64>() | 1;
            for _ in 0..receiver.max_messages {
                lease_ms.push(receiver.lease.as_millis());
                tokens.push(token);
                owner.push(index);
            }
        }
        let queue = self.queue_by_id(queue_id).await?;
        let (bound, fair) = queue.map_or((None, false), |queue| {
            let ordered = queue.settings.ordered;
            (queue.settings.max_in_flight, queue.fair_seen && !ordered)
        });
        let began = Instant::now();
        let statement = if bound.is_some() {
            CLAIM_BOUNDED
        } else {
            CLAIM
        };
        let mut query = sqlx::query(statement)
            .bind(queue_id)
            .bind(&priorities[..])
            .bind(&floors[..])
            .bind(i64::try_from(owner.len()).unwrap_or(i64::MAX))
            .bind(lease_ms)
            .bind(tokens);
        if let Some(bound) = bound {
            query = query.bind(i64::from(bound)).bind(self.watermarks.tallies());
        }
        let rows = query.fetch_all(&self.hot).await?;
        self.watermarks.claimed(rows.len());
        self.metrics.claim.record(rows.len(), began);
        let mut claimed = Claimed {
            deliveries: receivers.iter().map(|_| Vec::new()).collect(),
            outlived: 0,
            fair,
        };
        for row in rows {
            let n: i64 = row.try_get("n")?;
            let attempt = u32::try_from(row.try_get::<i32, _>("attempt")?).unwrap_or(0);
            match usize::try_from(n - 1) {
                Ok(n) => {
                    let delivery = delivery(queue_id, attempt, &row)?;
                    if attempt == 1 {
                        let waited = waited(&delivery, receivers[owner[n]].lease);
                        self.metrics.first_delivery.record_time(waited);
                    }
                    claimed.deliveries[owner[n]].push(delivery);
                }
                Err(_) => claimed.outlived = attempt,
            }
        }
        Ok(claimed)
    }

    /// Which of these queues have a message ready.
    ///
    /// # Errors
    /// Any.
    pub async fn with_ready(&self, queue_ids: &[i64]) -> Result<Vec<i64>, Error> {
        let floors: Vec<i64> = queue_ids
            .iter()
            .map(|id| self.watermarks.lowest(*id))
            .collect();
        let rows = sqlx::query(WITH_READY)
            .bind(queue_ids)
            .bind(floors)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

/// From the publish to the lease, by the database's clock.
fn waited(delivery: &Delivery, lease: Seconds) -> Duration {
    let end = delivery.lease_expires_at - delivery.envelope.enqueued_at;
    let micros = end.num_microseconds().unwrap_or(i64::MAX) - lease.as_millis() * 1000;
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(super) fn delivery(queue_id: i64, attempt: u32, row: &PgRow) -> Result<Delivery, Error> {
    Ok(Delivery {
        lease: Lease {
            queue_id,
            message_id: row.try_get("message_id")?,
            token: row.try_get("token")?,
            attempt,
        },
        priority: row.try_get("priority")?,
        lease_expires_at: row.try_get("lease_expires_at")?,
        envelope: Envelope::of(row)?,
    })
}
