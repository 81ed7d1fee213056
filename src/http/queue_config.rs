//! A queue's settings as they are written in JSON; `domain::QueueSettings` is
//! what they mean.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{object, object_or_null};
use super::problem::Problem;
use super::whole::{optional_whole, whole};
use crate::domain::{
    self, Backoff, DeadLetterSettings, QueueSettings, RateLimit, RetrySettings, Seconds,
};

/// A queue's settings; every one has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"lease_seconds": 30, "max_attempts": 5}))]
pub(crate) struct QueueConfig {
    /// How long a receive leases a message when it does not say; 0.001 to 43200.
    #[schema(value_type = f64, default = 30, minimum = 0.001, maximum = 43_200)]
    lease_seconds: Seconds,
    /// Failed attempts after which a message is a dead letter; 1 to 1000.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 5, minimum = 1, maximum = 1000)]
    max_attempts: u32,
    /// How long a message rests after a nack that does not say.
    #[serde(deserialize_with = "object")]
    backoff: BackoffConfig,
    /// How long a message may wait, from when it is first ready; up to 365 days.
    #[schema(value_type = f64, default = 345_600, minimum = 0.001, maximum = 31_536_000)]
    message_ttl_seconds: Seconds,
    /// Delay of messages that do not say; up to 365 days.
    #[schema(value_type = f64, default = 0, minimum = 0, maximum = 31_536_000)]
    delay_seconds: Seconds,
    /// Bound on ready messages; null for none.
    #[serde(deserialize_with = "optional_whole")]
    #[schema(minimum = 1)]
    max_ready: Option<u64>,
    /// At the bound: `reject` refuses the publish with 429, `drop_oldest` makes
    /// the oldest messages dead letters.
    overflow: Overflow,
    /// Bound on messages leased at a time, over all gateways and to webhooks too;
    /// 1 to 1000000, null for none. At the bound a receive finds nothing, and one
    /// that waits goes on waiting until a lease ends.
    #[serde(deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight: Option<u32>,
    /// How fast clients may publish and receive; null for no limit.
    #[serde(deserialize_with = "object_or_null")]
    rate_limit: Option<RateLimitConfig>,
    /// Whether messages with the same `key` are delivered in publish order, the next
    /// when the one before is acked or a dead letter. Messages without a key have no
    /// order. Changes only while the queue has no messages (409 `queue-not-empty`).
    #[schema(default = false)]
    ordered: bool,
    /// In an ordered queue, when a message fails for good: `wait` lets the next of its
    /// key go on, `dead_letter_key` makes what follows dead letters too (`key-blocked`),
    /// until those that failed are redriven or removed, or the key is unblocked. Means
    /// nothing where dead letters are not kept.
    on_blocked: OnBlocked,
    /// Whether messages with a `key` are fair unless they say otherwise: keys take
    /// turns, so that one with many messages does not make the others wait. Not
    /// together with `ordered`.
    #[schema(default = false)]
    fair: bool,
    /// Largest body in bytes; up to 8388608.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 1_048_576, minimum = 1, maximum = 8_388_608)]
    max_message_bytes: u32,
    /// How long a `dedup_id` is remembered; up to 7 days.
    #[schema(value_type = f64, default = 86_400, minimum = 0.001, maximum = 604_800)]
    dedup_window_seconds: Seconds,
    /// What happens to messages that are given up.
    #[serde(deserialize_with = "object")]
    dead_letter: DeadLetterConfig,
}

/// Limits on calls to this queue; beyond one the answer is 429 `rate-limited`.
/// Each gateway counts for itself, so several let through several times as much.
/// What topics feed into the queue and what webhooks take out of it is not
/// counted: `max_ready` and the webhook's own `rate_limit_per_second` bound that.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RateLimit)]
pub(crate) struct RateLimitConfig {
    /// Messages published in a second (a batch of n counts n); 0.01 to 1000000,
    /// null for no limit.
    #[schema(minimum = 0.01, maximum = 1_000_000)]
    publish_per_second: Option<f64>,
    /// Receive calls in a second, whatever they bring and however long they wait;
    /// 0.01 to 1000000, null for no limit.
    #[schema(minimum = 0.01, maximum = 1_000_000)]
    receive_per_second: Option<f64>,
    /// How many at once after a rest; 1 to 1000000, by default what comes in a
    /// second. A batch larger than this is refused (422 `batch-over-burst`).
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    burst: Option<u32>,
}

/// Exponential backoff: `initial_seconds * multiplier^(attempt - 1)`, at most
/// `max_seconds`, less up to `jitter` of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BackoffConfig {
    /// The wait after the first failure; at most `max_seconds`.
    #[schema(value_type = f64, default = 5, minimum = 0, maximum = 31_536_000)]
    initial_seconds: Seconds,
    /// The factor from one wait to the next; 1 to 100.
    #[schema(default = 2, minimum = 1, maximum = 100)]
    multiplier: f64,
    /// The longest wait.
    #[schema(value_type = f64, default = 3600, minimum = 0, maximum = 31_536_000)]
    max_seconds: Seconds,
    /// The share of a wait that chance takes off; 0 to 1.
    #[schema(default = 0.2, minimum = 0, maximum = 1)]
    jitter: f64,
}

/// Dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeadLetterConfig {
    /// Whether they are kept at all.
    #[schema(default = true)]
    enabled: bool,
    /// Whether messages that expired are kept too.
    #[schema(default = false)]
    keep_expired: bool,
    /// For how long.
    #[schema(value_type = f64, default = 1_209_600, minimum = 0.001, maximum = 31_536_000)]
    retention_seconds: Seconds,
    /// Whether the scheduled retry puts them back.
    #[serde(deserialize_with = "object")]
    retry: RetryConfig,
}

/// The scheduled retry of dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryConfig {
    /// How long after its death a message is put back; at least 1.
    #[schema(value_type = f64, default = 300, minimum = 1, maximum = 31_536_000)]
    every_seconds: Seconds,
    /// How often, for one message; 0 is never.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 0, maximum = 1000)]
    max_rounds: u32,
}

/// What a full queue does with a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overflow {
    /// Refuse it with 429.
    Reject,
    /// Take it; the oldest messages become dead letters.
    DropOldest,
}

/// What becomes of messages that follow a dead letter of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnBlocked {
    /// Their turn comes.
    Wait,
    /// They follow it to the dead letters.
    DeadLetterKey,
}

impl Default for QueueConfig {
    fn default() -> Self {
        (&QueueSettings::default()).into()
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        QueueConfig::default().backoff
    }
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        QueueConfig::default().dead_letter
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        DeadLetterConfig::default().retry
    }
}

impl From<&QueueSettings> for QueueConfig {
    fn from(s: &QueueSettings) -> Self {
        Self {
            lease_seconds: s.lease,
            max_attempts: s.max_attempts,
            backoff: BackoffConfig {
                initial_seconds: s.backoff.initial,
                multiplier: s.backoff.multiplier,
                max_seconds: s.backoff.max,
                jitter: s.backoff.jitter,
            },
            message_ttl_seconds: s.message_ttl,
            delay_seconds: s.delay,
            max_ready: s.max_ready,
            overflow: match s.overflow {
                crate::domain::Overflow::Reject => Overflow::Reject,
                crate::domain::Overflow::DropOldest => Overflow::DropOldest,
            },
            max_in_flight: s.max_in_flight,
            rate_limit: (s.rate_limit != RateLimit::default()).then_some(RateLimitConfig {
                publish_per_second: s.rate_limit.publish_per_second,
                receive_per_second: s.rate_limit.receive_per_second,
                burst: s.rate_limit.burst,
            }),
            ordered: s.ordered,
            on_blocked: match s.on_blocked {
                domain::OnBlocked::Wait => OnBlocked::Wait,
                domain::OnBlocked::DeadLetterKey => OnBlocked::DeadLetterKey,
            },
            fair: s.fair,
            max_message_bytes: s.max_message_bytes,
            dedup_window_seconds: s.dedup_window,
            dead_letter: DeadLetterConfig {
                enabled: s.dead_letter.enabled,
                keep_expired: s.dead_letter.keep_expired,
                retention_seconds: s.dead_letter.retention,
                retry: RetryConfig {
                    every_seconds: s.dead_letter.retry.every,
                    max_rounds: s.dead_letter.retry.max_rounds,
                },
            },
        }
    }
}

impl QueueConfig {
    /// The settings, checked.
    pub(crate) fn settings(self) -> Result<QueueSettings, Problem> {
        let settings = QueueSettings {
            lease: self.lease_seconds,
            max_attempts: self.max_attempts,
            backoff: Backoff {
                initial: self.backoff.initial_seconds,
                multiplier: self.backoff.multiplier,
                max: self.backoff.max_seconds,
                jitter: self.backoff.jitter,
            },
            message_ttl: self.message_ttl_seconds,
            delay: self.delay_seconds,
            max_ready: self.max_ready,
            overflow: match self.overflow {
                Overflow::Reject => crate::domain::Overflow::Reject,
                Overflow::DropOldest => crate::domain::Overflow::DropOldest,
            },
            max_in_flight: self.max_in_flight,
            rate_limit: self
                .rate_limit
                .map_or_else(RateLimit::default, |limit| RateLimit {
                    publish_per_second: limit.publish_per_second,
                    receive_per_second: limit.receive_per_second,
                    burst: limit.burst,
                }),
            ordered: self.ordered,
            on_blocked: match self.on_blocked {
                OnBlocked::Wait => domain::OnBlocked::Wait,
                OnBlocked::DeadLetterKey => domain::OnBlocked::DeadLetterKey,
            },
            fair: self.fair,
            max_message_bytes: self.max_message_bytes,
            dedup_window: self.dedup_window_seconds,
            dead_letter: DeadLetterSettings {
                enabled: self.dead_letter.enabled,
                keep_expired: self.dead_letter.keep_expired,
                retention: self.dead_letter.retention_seconds,
                retry: RetrySettings {
                    every: self.dead_letter.retry.every_seconds,
                    max_rounds: self.dead_letter.retry.max_rounds,
                },
            },
        };
        settings.check()?;
        Ok(settings)
    }
}
