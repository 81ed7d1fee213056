//! What may be done to a queue, as chance has it.
//!
//! Steps name messages and receipts by [`Index`], which is looked up in what there
//! is when the step is taken: so any sequence can be run, and what is left of one
//! after some steps are taken out, too.

use proptest::prelude::*;
use proptest::sample::Index;

/// Seconds of everything that ends by itself end in 500, those of a time to live
/// and of a dedup window in 250, and time passes in thousands: so nothing is ever
/// nearer to its end than 250 s, whatever the run itself takes.
pub(super) const DELAYS: [u64; 2] = [500, 2500];
const LEASES: [u64; 2] = [500, 1500];
const LIVES: [u64; 2] = [1250, 3250];
const PASSES: [u64; 4] = [1000, 1000, 3000, 8000];

/// One message of a publish.
#[derive(Debug, Clone)]
pub(super) struct NewMessage {
    pub(super) priority: u8,
    pub(super) delay: Option<u64>,
    pub(super) ttl: Option<u64>,
    pub(super) dedup: Option<u8>,
}

/// Which settings a change sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) max_attempts: u32,
    pub(super) delay: u64,
    pub(super) dead_letters: bool,
    pub(super) keep_expired: bool,
}

/// One step. `by` is the gateway that is asked.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        by: usize,
        messages: Vec<NewMessage>,
    },
    Receive {
        by: usize,
        max: usize,
        lease: u64,
    },
    Ack {
        by: usize,
        which: Vec<Index>,
    },
    Nack {
        by: usize,
        which: Vec<Index>,
        delay: Option<u64>,
        dead_letter: bool,
    },
    Extend {
        by: usize,
        which: Vec<Index>,
        lease: u64,
    },
    Pass {
        seconds: u64,
    },
    Purge {
        by: usize,
        dead_letters: bool,
    },
    Cancel {
        by: usize,
        which: Index,
    },
    Look {
        by: usize,
        which: Index,
    },
    Redrive {
        by: usize,
        which: Vec<Index>,
    },
    RedriveAll {
        by: usize,
        limit: usize,
    },
    DeleteDead {
        by: usize,
        which: Index,
    },
    Change(Settings),
    /// kill -9, and a new one.
    Kill {
        gateway: usize,
    },
    /// SIGTERM, and a new one.
    Stop {
        gateway: usize,
    },
    /// A backend of Postgres is killed, upon which it ends all and recovers.
    Crash,
}

fn new_message() -> impl Strategy<Value = NewMessage> {
    let delay = prop_oneof![
        6 => Just(None),
        1 => Just(Some(0)),
        3 => prop::sample::select(DELAYS.to_vec()).prop_map(Some),
    ];
    let ttl = prop::option::weighted(0.25, prop::sample::select(LIVES.to_vec()));
    let dedup = prop::option::weighted(0.3, 0..4_u8);
    (prop::sample::select(vec![0, 0, 0, 4, 9]), delay, ttl, dedup).prop_map(
        |(priority, delay, ttl, dedup)| NewMessage {
            priority,
            delay,
            ttl,
            dedup,
        },
    )
}

pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let delay = prop::sample::select(vec![0, 0, 0, DELAYS[0]]);
    (1..=3_u32, delay, prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |(max_attempts, delay, dead_letters, keep_expired)| Settings {
            max_attempts,
            delay,
            dead_letters,
            keep_expired,
        },
    )
}

/// A step; those that take long seldom.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let by = || 0..2_usize;
    let some = || prop::collection::vec(any::<Index>(), 1..4);
    let lease = || prop::sample::select(LEASES.to_vec());
    let messages = prop::collection::vec(new_message(), 1..6);
    let delay = prop_oneof![
        2 => Just(None),
        2 => Just(Some(0)),
        1 => prop::sample::select(DELAYS.to_vec()).prop_map(Some),
    ];
    prop_oneof![
        24 => (by(), messages).prop_map(|(by, messages)| Step::Publish { by, messages }),
        24 => (by(), 1..7_usize, lease())
            .prop_map(|(by, max, lease)| Step::Receive { by, max, lease }),
        14 => (by(), some()).prop_map(|(by, which)| Step::Ack { by, which }),
        14 => (by(), some(), delay, prop::bool::weighted(0.2)).prop_map(
            |(by, which, delay, dead_letter)| Step::Nack {
                by,
                which,
                delay: delay.filter(|_| !dead_letter),
                dead_letter,
            }
        ),
        6 => (by(), some(), lease()).prop_map(|(by, which, lease)| Step::Extend {
            by,
            which,
            lease,
        }),
        10 => prop::sample::select(PASSES.to_vec()).prop_map(|seconds| Step::Pass { seconds }),
        1 => (by(), any::<bool>()).prop_map(|(by, dead_letters)| Step::Purge { by, dead_letters }),
        3 => (by(), any::<Index>()).prop_map(|(by, which)| Step::Cancel { by, which }),
        8 => (by(), any::<Index>()).prop_map(|(by, which)| Step::Look { by, which }),
        4 => (by(), some()).prop_map(|(by, which)| Step::Redrive { by, which }),
        2 => (by(), 1..4_usize).prop_map(|(by, limit)| Step::RedriveAll { by, limit }),
        2 => (by(), any::<Index>()).prop_map(|(by, which)| Step::DeleteDead { by, which }),
        3 => settings().prop_map(Step::Change),
        1 => by().prop_map(|gateway| Step::Kill { gateway }),
        1 => by().prop_map(|gateway| Step::Stop { gateway }),
        1 => Just(Step::Crash),
    ]
}
