//! What only the database knows: the numbers of each queue, and how many
//! gateways and how old a snapshot there are. A scrape asks for them; while the
//! database is away there are none.
//!
//! So many queues are shown by name, the rest summed up as [`OTHER`].

use std::sync::Mutex;

use super::family::{
    ACKED, BREAKER, CONSUMERS, DATABASE_UP, DEAD_LETTERED, DELIVERED, EXPIRED, FAILED, Family,
    GATEWAYS, MESSAGES, NACKED, OLDEST_READY, OLDEST_SNAPSHOT, PUBLISHED, REMOVED,
};
use super::text::Text;

/// The label of all queues that are not shown by name: no queue can have it.
pub(super) const OTHER: &str = "(other)";

const STATES: usize = 4;
const TOTALS: usize = 8;

/// In the order of [`QueueNumbers::TOTALS`].
static FAMILIES: [&Family; TOTALS] = [
    &PUBLISHED,
    &DELIVERED,
    &ACKED,
    &NACKED,
    &FAILED,
    &DEAD_LETTERED,
    &EXPIRED,
    &REMOVED,
];

/// One queue, or the rest of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueNumbers {
    /// Its name; `None` for the rest.
    pub name: Option<String>,
    /// In the order of [`Self::STATES`].
    pub messages: [i64; STATES],
    /// In the order of [`Self::TOTALS`].
    pub totals: [i64; TOTALS],
    /// Of the next messages to be received; `None` if nothing is ready.
    pub oldest_ready_age_seconds: Option<f64>,
    /// Receivers that wait, and receives that hold leases.
    pub consumers: i64,
    /// State of the webhook's breaker: closed, half-open, recovering or open.
    pub breaker: Option<String>,
}

/// What the database said.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// The queues, the rest of them last.
    pub queues: Vec<QueueNumbers>,
    /// Gateways alive.
    pub gateways: i64,
    /// For how long somebody has held a snapshot; 0 if nobody does.
    pub oldest_snapshot_age_seconds: f64,
}

/// The last reading.
#[derive(Debug, Default)]
pub struct Queues(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Reading>,
    rest: Rest,
}

/// The totals of the rest go down when one of its queues is deleted or comes to
/// be shown by name, and a counter that goes down counts as begun anew, with all
/// it has. So only what it goes up by is added.
#[derive(Debug, Default)]
struct Rest {
    read: [i64; TOTALS],
    shown: [i64; TOTALS],
}

impl Rest {
    fn follow(&mut self, read: [i64; TOTALS]) {
        for (at, now) in read.into_iter().enumerate() {
            self.shown[at] += (now - self.read[at]).max(0);
        }
        self.read = read;
    }
}

impl Queues {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The database was asked; `None`: it did not answer.
    pub fn set(&self, reading: Option<Reading>) {
        let mut state = self.lock();
        let rest = reading.as_ref().and_then(|reading| reading.queues.last());
        if let Some(rest) = rest.filter(|queue| queue.name.is_none()) {
            state.rest.follow(rest.totals);
        }
        state.last = reading;
    }

    pub(super) fn write(&self, text: &mut Text) {
        let state = self.lock();
        let last = state.last.as_ref();
        text.family(&DATABASE_UP)
            .value(&[], u8::from(last.is_some()));
        let mut gateways = text.family(&GATEWAYS);
        if let Some(reading) = last {
            gateways.value(&[], reading.gateways);
        }
        let mut oldest = text.family(&OLDEST_SNAPSHOT);
        if let Some(reading) = last {
            oldest.value(&[], reading.oldest_snapshot_age_seconds);
        }
        let queues = last.map_or(&[][..], |reading| &reading.queues);

        let mut messages = text.family(&MESSAGES);
        for queue in queues {
            for (state, number) in QueueNumbers::STATES.iter().zip(queue.messages) {
                messages.value(&[queue.label(), state], number);
            }
        }
        let mut ages = text.family(&OLDEST_READY);
        // Of the rest it is not known.
        for (name, queue) in named(queues) {
            ages.value(&[name], queue.oldest_ready_age_seconds.unwrap_or(0.0));
        }
        let mut consumers = text.family(&CONSUMERS);
        for queue in queues {
            consumers.value(&[queue.label()], queue.consumers);
        }
        for (at, family) in FAMILIES.into_iter().enumerate() {
            let mut totals = text.family(family);
            for queue in queues {
                let total = match queue.name {
                    Some(_) => queue.totals[at],
                    None => state.rest.shown[at],
                };
                totals.value(&[queue.label()], total);
            }
        }
        let mut breakers = text.family(&BREAKER);
        for (name, queue) in named(queues) {
            if let Some(breaker) = &queue.breaker {
                let state = match breaker.as_str() {
                    "closed" => 0,
                    "open" => 2,
                    _ => 1,
                };
                breakers.value(&[name], state);
            }
        }
    }
}

impl QueueNumbers {
    /// Where messages are; also columns of the database.
    pub const STATES: [&str; STATES] = ["ready", "leased", "delayed", "dead"];

    /// What is counted for ever; also columns of the database.
    pub const TOTALS: [&str; TOTALS] = [
        "published",
        "delivered",
        "acked",
        "nacked",
        "failed",
        "dead_lettered",
        "expired",
        "removed",
    ];

    fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(OTHER)
    }
}

fn named(queues: &[QueueNumbers]) -> impl Iterator<Item = (&str, &QueueNumbers)> {
    queues
        .iter()
        .filter_map(|queue| Some((queue.name.as_deref()?, queue)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(published: i64) -> Reading {
        let mut rest = QueueNumbers::default();
        rest.totals[0] = published;
        Reading {
            queues: vec![rest],
            ..Reading::default()
        }
    }

    #[test]
    fn the_rest_never_counts_down() {
        let queues = Queues::default();
        // The last but one: a queue of the rest was deleted.
        for (published, shown) in [(10, 10), (15, 15), (4, 15), (6, 17)] {
            queues.set(Some(rest(published)));
            let mut text = Text::default();
            queues.write(&mut text);
            let line = format!("postrider_queue_published_total{{queue=\"(other)\"}} {shown}\n");
            let text = text.finish();
            assert!(text.contains(&line), "{line}: {text}");
        }
    }

    #[test]
    fn without_the_database_no_number_is_old() {
        let queues = Queues::default();
        queues.set(Some(rest(1)));
        queues.set(None);
        let mut text = Text::default();
        queues.write(&mut text);
        let text = text.finish();
        let numbers: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(numbers, ["postrider_database_up 0"]);
    }
}
