//! A queue's settings: defaults beside the fields, ranges in one place.

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::error::{Error, Invalid};
use super::seconds::Seconds;

/// All settings of a queue, valid.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSettings {
    /// How long a receive leases a message when it does not say.
    pub lease: Seconds,
    /// Failed attempts after which a message is dead.
    pub max_attempts: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// Time to live, from when a message is first ready.
    pub message_ttl: Seconds,
    /// Delay of messages that do not say.
    pub delay: Seconds,
    /// Bound on ready messages.
    pub max_ready: Option<u64>,
    /// What happens at the bound.
    pub overflow: Overflow,
    /// Bound on leases at a time, over all gateways.
    pub max_in_flight: Option<u32>,
    /// How fast clients may publish and receive.
    pub rate_limit: RateLimit,
    /// Whether messages of one key are delivered one after the other.
    pub ordered: bool,
    /// What follows a dead letter of its key, in an ordered queue.
    pub on_blocked: OnBlocked,
    /// Whether messages with a key are fair unless they say otherwise.
    pub fair: bool,
    /// Largest body in bytes.
    pub max_message_bytes: u32,
    /// How long a dedup id is remembered.
    pub dedup_window: Seconds,
    /// What happens to dead messages.
    pub dead_letter: DeadLetterSettings,
}

/// What a full queue does with a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Refuse it.
    Reject,
    /// Take it and give up the oldest messages instead.
    DropOldest,
}

/// What becomes of messages that follow a dead letter of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBlocked {
    /// Their turn comes.
    Wait,
    /// They follow it to the dead letters, until the key is let go.
    DeadLetterKey,
}

impl OnBlocked {
    /// As the API and the database spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::DeadLetterKey => "dead_letter_key",
        }
    }
}

/// How fast clients may publish and receive, by one gateway's count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateLimit {
    /// Messages published in a second.
    pub publish_per_second: Option<f64>,
    /// Receive calls in a second.
    pub receive_per_second: Option<f64>,
    /// How many at once; `None`: what comes in a second.
    pub burst: Option<u32>,
}

/// What happens to dead messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSettings {
    /// Whether they are kept.
    pub enabled: bool,
    /// Whether messages that expired are kept too.
    pub keep_expired: bool,
    /// For how long.
    pub retention: Seconds,
    /// Whether they are put back on a schedule.
    pub retry: RetrySettings,
}

/// The scheduled retry of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// How long after its death a message is put back.
    pub every: Seconds,
    /// How often, for one message; 0 is never.
    pub max_rounds: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            lease: Seconds::new(30),
            max_attempts: 5,
            backoff: Backoff {
                initial: Seconds::new(5),
                multiplier: 2.0,
                max: Seconds::new(3600),
                jitter: 0.2,
            },
            message_ttl: Seconds::new(4 * 86_400),
            delay: Seconds::ZERO,
            max_ready: None,
            overflow: Overflow::Reject,
            max_in_flight: None,
            rate_limit: RateLimit::default(),
            ordered: false,
            on_blocked: OnBlocked::Wait,
            fair: false,
            max_message_bytes: 1024 * 1024,
            dedup_window: Seconds::new(86_400),
            dead_letter: DeadLetterSettings {
                enabled: true,
                keep_expired: false,
                retention: Seconds::new(14 * 86_400),
                retry: RetrySettings {
                    every: Seconds::new(300),
                    max_rounds: 0,
                },
            },
        }
    }
}

impl QueueSettings {
    /// Longest lease: 12 hours.
    pub const MAX_LEASE: Seconds = Seconds::new(12 * 3600);
    /// Largest `max_message_bytes`: 8 MiB.
    pub const MAX_MESSAGE_BYTES: u32 = 8 * 1024 * 1024;
    /// Largest `max_in_flight`, rate and burst.
    pub const MANY: u32 = 1_000_000;
    /// Longest dedup window: 7 days.
    pub const MAX_DEDUP_WINDOW: Seconds = Seconds::new(7 * 86_400);

    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Invalid`] with each setting that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut span = |pointer: &str, value: Seconds, least: Seconds, most: Seconds| {
            if value < least || value > most {
                wrong.push(Invalid {
                    pointer: pointer.to_owned(),
                    detail: format!("must be from {least} to {most}"),
                });
            }
        };
        let tick = Seconds::from_millis(1);
        span("/lease_seconds", self.lease, tick, Self::MAX_LEASE);
        span(
            "/backoff/max_seconds",
            self.backoff.max,
            Seconds::ZERO,
            Seconds::YEAR,
        );
        span(
            "/backoff/initial_seconds",
            self.backoff.initial,
            Seconds::ZERO,
            self.backoff.max,
        );
        span(
            "/message_ttl_seconds",
            self.message_ttl,
            tick,
            Seconds::YEAR,
        );
        span("/delay_seconds", self.delay, Seconds::ZERO, Seconds::YEAR);
        span(
            "/dedup_window_seconds",
            self.dedup_window,
            tick,
            Self::MAX_DEDUP_WINDOW,
        );
        let dead = &self.dead_letter;
        span(
            "/dead_letter/retention_seconds",
            dead.retention,
            tick,
            Seconds::YEAR,
        );
        span(
            "/dead_letter/retry/every_seconds",
            dead.retry.every,
            Seconds::new(1),
            Seconds::YEAR,
        );
        let mut demand = |holds: bool, pointer: &str, detail: &str| {
            if !holds {
                wrong.push(Invalid {
                    pointer: pointer.to_owned(),
                    detail: detail.to_owned(),
                });
            }
        };
        demand(
            (1..=1000).contains(&self.max_attempts),
            "/max_attempts",
            "must be from 1 to 1000",
        );
        demand(
            (1.0..=100.0).contains(&self.backoff.multiplier),
            "/backoff/multiplier",
            "must be from 1 to 100",
        );
        demand(
            (0.0..=1.0).contains(&self.backoff.jitter),
            "/backoff/jitter",
            "must be from 0 to 1",
        );
        demand(
            self.max_ready
                .is_none_or(|n| (1..=i64::MAX.cast_unsigned()).contains(&n)),
            "/max_ready",
            "must be at least 1",
        );
        demand(
            (1..=Self::MAX_MESSAGE_BYTES).contains(&self.max_message_bytes),
            "/max_message_bytes",
            "must be from 1 to 8388608",
        );
        demand(
            dead.retry.max_rounds <= 1000,
            "/dead_letter/retry/max_rounds",
            "must be from 0 to 1000",
        );
        demand(
            !(self.ordered && self.fair),
            "/fair",
            "not together with ordered",
        );
        self.check_limits(&mut wrong);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(wrong))
        }
    }

    /// Those that say how much and how fast.
    fn check_limits(&self, wrong: &mut Vec<Invalid>) {
        let many = f64::from(Self::MANY);
        let limit = &self.rate_limit;
        let counts = [
            (self.max_in_flight, "/max_in_flight"),
            (limit.burst, "/rate_limit/burst"),
        ];
        let rates = [
            (limit.publish_per_second, "/rate_limit/publish_per_second"),
            (limit.receive_per_second, "/rate_limit/receive_per_second"),
        ];
        let numbers = counts
            .map(|(count, pointer)| (count.map(f64::from), 1.0, pointer))
            .into_iter()
            .chain(rates.map(|(rate, pointer)| (rate, 0.01, pointer)));
        for (number, least, pointer) in numbers {
            if number.is_some_and(|number| !(least..=many).contains(&number)) {
                wrong.push(Invalid {
                    pointer: pointer.to_owned(),
                    detail: format!("must be from {least} to {}", Self::MANY),
                });
            }
        }
    }
}
