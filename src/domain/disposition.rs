//! What becomes of a message whose delivery did not end with an ack: the one
//! place where that is decided.

use super::queue::QueueSettings;
use super::seconds::Seconds;

/// How a delivery ended, or why there will be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The consumer gave it back; with the wait it asked for, if it did.
    Nacked {
        /// `None`: the queue's backoff says.
        delay: Option<Seconds>,
    },
    /// The consumer wants it dead at once.
    Rejected,
    /// The lease ran out.
    LeaseExpired,
    /// The time to live has passed, before or between attempts.
    Outlived,
    /// The lease was given to a receiver that had gone: no attempt was made.
    Undelivered,
    /// Its consumer is not ready for messages now and said when it will be: no
    /// attempt was made.
    Deferred {
        /// How long it is to be left alone; bounded by the queue's longest
        /// backoff.
        delay: Seconds,
    },
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// All attempts failed.
    MaxAttempts,
    /// Its consumer rejected it.
    Rejected,
    /// Its time to live passed.
    Expired,
    /// Its queue was full (`drop_oldest`).
    Overflow,
    /// It followed a dead letter of its key (`dead_letter_key`).
    KeyBlocked,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::MaxAttempts,
        Self::Rejected,
        Self::Expired,
        Self::Overflow,
        Self::KeyBlocked,
    ];

    /// As the API and the database spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxAttempts => "max-attempts",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
            Self::KeyBlocked => "key-blocked",
        }
    }
}

/// What happens to the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Ready again after this wait; the attempt counts.
    Requeue(Seconds),
    /// Ready again at once; the attempt does not count.
    Release,
    /// Ready again after this wait; the attempt does not count.
    Postpone(Seconds),
    /// To the dead letters.
    DeadLetter(DeadReason),
    /// Gone: it would be a dead letter, but the queue keeps none.
    Drop,
    /// Gone: its time to live has passed and the queue does not keep such.
    Expire,
}

impl Disposition {
    /// Whether the message stays in its queue.
    #[must_use]
    pub fn stays(self) -> bool {
        match self {
            Self::Requeue(_) | Self::Release | Self::Postpone(_) => true,
            Self::DeadLetter(_) | Self::Drop | Self::Expire => false,
        }
    }
}

/// Decides. `attempts` are those made, the failed one included; `chance` is a
/// number in `[0, 1)` for the jitter.
///
/// A lease that ran out is ready again at once: its consumer had the whole
/// lease to say otherwise, and waiting longer would only delay what its crash
/// has delayed already. A nack waits for the backoff.
#[must_use]
pub fn decide(failure: Failure, attempts: u32, queue: &QueueSettings, chance: f64) -> Disposition {
    let dead = |reason| {
        if queue.dead_letter.enabled {
            Disposition::DeadLetter(reason)
        } else {
            Disposition::Drop
        }
    };
    let delay = match failure {
        Failure::Undelivered => return Disposition::Release,
        Failure::Deferred { delay } => {
            return Disposition::Postpone(delay.clamp(Seconds::ZERO, queue.backoff.max));
        }
        Failure::Outlived if queue.dead_letter.keep_expired => return dead(DeadReason::Expired),
        Failure::Outlived => return Disposition::Expire,
        Failure::Rejected => return dead(DeadReason::Rejected),
        Failure::Nacked { delay } => delay.unwrap_or_else(|| queue.backoff.delay(attempts, chance)),
        Failure::LeaseExpired => Seconds::ZERO,
    };
    if attempts >= queue.max_attempts {
        dead(DeadReason::MaxAttempts)
    } else {
        Disposition::Requeue(delay)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_failure() -> impl Strategy<Value = Failure> {
        prop_oneof![
            proptest::option::of(0i64..1_000_000).prop_map(|ms| Failure::Nacked {
                delay: ms.map(Seconds::from_millis)
            }),
            Just(Failure::Rejected),
            Just(Failure::LeaseExpired),
            Just(Failure::Outlived),
            Just(Failure::Undelivered),
            (0i64..1_000_000_000).prop_map(|ms| Failure::Deferred {
                delay: Seconds::from_millis(ms)
            }),
        ]
    }

    fn queue(enabled: bool, keep_expired: bool, max_attempts: u32) -> QueueSettings {
        let mut queue = QueueSettings {
            max_attempts,
            ..QueueSettings::default()
        };
        queue.dead_letter.enabled = enabled;
        queue.dead_letter.keep_expired = keep_expired;
        queue
    }

    proptest! {
        #[test]
        fn attempts_end_and_dead_letters_need_a_queue_that_keeps_them(
            failure in any_failure(), attempts in 1u32..2000, max in 1u32..=1000,
            enabled: bool, keep_expired: bool, chance in 0.0f64..1.0,
        ) {
            let queue = queue(enabled, keep_expired, max);
            match decide(failure, attempts, &queue, chance) {
                Disposition::Requeue(delay) => {
                    prop_assert!(attempts < max);
                    prop_assert!(delay >= Seconds::ZERO);
                }
                Disposition::Release => prop_assert_eq!(failure, Failure::Undelivered),
                Disposition::Postpone(delay) => {
                    let deferred = matches!(failure, Failure::Deferred { .. });
                    prop_assert!(deferred);
                    prop_assert!(delay <= queue.backoff.max);
                }
                Disposition::DeadLetter(reason) => {
                    prop_assert!(enabled);
                    prop_assert_eq!(
                        reason == DeadReason::Expired,
                        failure == Failure::Outlived && keep_expired
                    );
                }
                Disposition::Drop => prop_assert!(!enabled),
                Disposition::Expire => prop_assert!(!keep_expired),
            }
        }
    }

    #[test]
    fn the_last_attempt_is_the_one_that_kills() {
        let queue = queue(true, false, 3);
        let fate = |attempts| decide(Failure::LeaseExpired, attempts, &queue, 0.0);
        assert_eq!(fate(2), Disposition::Requeue(Seconds::ZERO));
        assert_eq!(fate(3), Disposition::DeadLetter(DeadReason::MaxAttempts));
    }
}
