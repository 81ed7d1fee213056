//! What the gateway tells of itself, through the topic `system.events`.

use serde::Serialize;

use super::id::MessageId;
use super::name::QueueName;

/// The topic that events are published to.
pub const EVENTS_TOPIC: &str = "system.events";

/// Message ids that one event names; `count` has the rest.
const NAMED: usize = 10;

/// Something that an operator may want to be told.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event")]
pub enum Event {
    /// Messages were given up.
    #[serde(rename = "message.dead_lettered")]
    DeadLettered {
        /// Why.
        reason: &'static str,
        /// How many.
        count: u64,
        /// The first of them.
        message_ids: Vec<MessageId>,
    },
    /// A webhook fails so often that nothing is sent for a while.
    #[serde(rename = "webhook.breaker_opened")]
    BreakerOpened {
        /// How the last push ended.
        error: String,
    },
    /// A webhook works again.
    #[serde(rename = "webhook.breaker_closed")]
    BreakerClosed {},
    /// A webhook gets nothing any more until somebody resumes it.
    #[serde(rename = "webhook.disabled")]
    WebhookDisabled {
        /// Why.
        reason: String,
    },
    /// More messages wait than should.
    #[serde(rename = "queue.backlog_high")]
    BacklogHigh {
        /// How many are ready.
        ready: i64,
        /// From how many on it is high.
        threshold: i64,
    },
    /// As many wait as may.
    #[serde(rename = "queue.backlog_cleared")]
    BacklogCleared {
        /// How many are ready.
        ready: i64,
        /// From how many on it was high.
        threshold: i64,
    },
    /// Messages that came through the SQL door could not be published; they are
    /// kept and tried again.
    #[serde(rename = "door.refused")]
    DoorRefused {
        /// Why, as the code of a refusal over HTTP.
        reason: &'static str,
        /// The queue or topic that they were for.
        to: String,
        /// How many.
        count: u64,
    },
    /// A tick of a schedule has no message.
    #[serde(rename = "schedule.failed")]
    ScheduleFailed {
        /// The schedule.
        schedule: String,
        /// Why, as the code of a refusal over HTTP.
        reason: &'static str,
        /// The same in words.
        detail: String,
    },
    /// Somebody holds a snapshot, for so long that dead rows pile up.
    #[serde(rename = "storage.snapshot_held")]
    SnapshotHeld {
        /// What it is: a `session`, `standby`, `slot` or `prepared` transaction.
        kind: String,
        /// The server's process.
        pid: Option<i32>,
        /// What the session says it is.
        application: Option<String>,
        /// As whom it is logged in.
        role: Option<String>,
        /// The session's state.
        state: Option<String>,
        /// Of the slot or prepared transaction.
        name: Option<String>,
        /// For how long.
        age_seconds: u64,
        /// From when on it is told.
        threshold_seconds: u32,
        /// What to do about it.
        what_to_do: String,
    },
    /// Nobody does any more.
    #[serde(rename = "storage.snapshot_released")]
    SnapshotReleased {
        /// From when on it is told.
        threshold_seconds: u32,
    },
}

/// An event and the queue that it is about, if it is about one, as it is
/// published.
#[derive(Debug, Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
}

impl Event {
    /// Messages were given up.
    #[must_use]
    pub fn dead_lettered(reason: &'static str, ids: &[i64]) -> Self {
        Self::DeadLettered {
            reason,
            count: ids.len() as u64,
            message_ids: ids.iter().take(NAMED).copied().map(MessageId).collect(),
        }
    }

    /// Its name, which is the routing key that it is published with.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DeadLettered { .. } => "message.dead_lettered",
            Self::BreakerOpened { .. } => "webhook.breaker_opened",
            Self::BreakerClosed {} => "webhook.breaker_closed",
            Self::WebhookDisabled { .. } => "webhook.disabled",
            Self::BacklogHigh { .. } => "queue.backlog_high",
            Self::BacklogCleared { .. } => "queue.backlog_cleared",
            Self::DoorRefused { .. } => "door.refused",
            Self::ScheduleFailed { .. } => "schedule.failed",
            Self::SnapshotHeld { .. } => "storage.snapshot_held",
            Self::SnapshotReleased { .. } => "storage.snapshot_released",
        }
    }

    /// Whether another event of the same queue says the same, so that one may
    /// stand for both.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DeadLettered { reason: a, .. }, Self::DeadLettered { reason: b, .. }) => a == b,
            (
                Self::DoorRefused { reason, to, .. },
                Self::DoorRefused {
                    reason: of, to: at, ..
                },
            ) => (reason, to) == (of, at),
            (
                Self::ScheduleFailed { schedule: a, .. },
                Self::ScheduleFailed { schedule: b, .. },
            ) => a == b,
            _ => self.name() == other.name(),
        }
    }

    /// Takes in a later one that [is like](Self::is_like) it.
    pub fn absorb(&mut self, later: Self) {
        match (self, later) {
            (
                Self::DeadLettered {
                    count, message_ids, ..
                },
                Self::DeadLettered {
                    count: more,
                    message_ids: more_ids,
                    ..
                },
            ) => {
                *count += more;
                let room = NAMED.saturating_sub(message_ids.len());
                message_ids.extend(more_ids.into_iter().take(room));
            }
            (Self::DoorRefused { count, .. }, Self::DoorRefused { count: more, .. }) => {
                *count += more;
            }
            (this, later) => *this = later,
        }
    }

    /// The JSON that is published.
    ///
    /// # Errors
    /// None in practice: numbers and text.
    pub fn body(&self, queue: Option<&QueueName>) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Body {
            event: self,
            queue: queue.map(QueueName::as_str),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_dead_letters_add_up() {
        let mut event = Event::dead_lettered("rejected", &[1, 2, 3]);
        let later = Event::dead_lettered("rejected", &(4..40).collect::<Vec<_>>());
        assert!(event.is_like(&later));
        assert!(!event.is_like(&Event::dead_lettered("expired", &[9])));
        event.absorb(later);
        let Event::DeadLettered {
            count, message_ids, ..
        } = &event
        else {
            panic!("{event:?}");
        };
        assert_eq!((*count, message_ids.len()), (39, NAMED));
        assert_eq!(message_ids[9], MessageId(10));
    }

    #[test]
    fn the_body_says_what_happened_and_where() {
        let queue = QueueName::parse("orders", "queue").expect("a name");
        let body = Event::dead_lettered("max-attempts", &[26]).body(Some(&queue));
        assert_eq!(
            String::from_utf8(body.expect("JSON")).expect("text"),
            format!(
                "{{\"event\":\"message.dead_lettered\",\"reason\":\"max-attempts\",\"count\":1,\
                 \"message_ids\":[\"{}\"],\"queue\":\"orders\"}}",
                MessageId(26)
            )
        );
    }
}
