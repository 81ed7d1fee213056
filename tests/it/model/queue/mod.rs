//! The model: a queue as it is promised to be, in memory.
//!
//! It says exactly what must come of each step, but for one thing: what comes back
//! to the queue in one go (leases that ran out, delays that are over) comes in any
//! order among itself, behind all that was there. Such messages share a `turn`.
//!
//! A new rule of which messages may be received goes into [`Queue::candidates`].

mod leases;

use std::collections::BTreeMap;

use super::steps::{NewMessage, Settings};
pub(super) use leases::Outcome;
use leases::{Failed, Lease};

/// Of every queue here; see [`steps`](super::steps) for the numbers.
pub(super) const MESSAGE_TTL: u64 = 100_250;
pub(super) const DEDUP_WINDOW: u64 = 5250;
pub(super) const BACKOFF: [u64; 3] = [500, 1500, 4500];

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Ready { turn: u64 },
    Leased { until: u64, lease: usize },
    Delayed { until: u64 },
    Dead { turn: u64, reason: &'static str },
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) body: u64,
    pub(super) priority: u8,
    pub(super) attempts: u32,
    pub(super) place: Place,
    expires: u64,
    /// The last lease that failed.
    last_failure: Option<usize>,
}

/// All that was ever done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) published: i64,
    pub(super) delivered: i64,
    pub(super) acked: i64,
    pub(super) failed: i64,
    pub(super) nacked: i64,
    pub(super) dead_lettered: i64,
    pub(super) expired: i64,
    pub(super) removed: i64,
}

#[derive(Debug)]
pub(super) struct Queue {
    now: u64,
    turns: u64,
    pub(super) settings: Settings,
    pub(super) messages: BTreeMap<String, Message>,
    pub(super) leases: Vec<Lease>,
    dedup: BTreeMap<u8, (String, u64)>,
    pub(super) totals: Totals,
}

impl Queue {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            now: 1_000_000,
            turns: 0,
            settings,
            messages: BTreeMap::new(),
            leases: Vec::new(),
            dedup: BTreeMap::new(),
            totals: Totals::default(),
        }
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Ready, leased, delayed, dead.
    pub(super) fn counts(&self) -> [i64; 4] {
        let mut counts = [0; 4];
        for message in self.messages.values() {
            let place = match message.place {
                Place::Ready { .. } => 0,
                Place::Leased { .. } => 1,
                Place::Delayed { .. } => 2,
                Place::Dead { .. } => 3,
                Place::Gone => continue,
            };
            counts[place] += 1;
        }
        counts
    }

    /// One message is published, and its id and whether it is a duplicate answered.
    pub(super) fn publish(
        &mut self,
        new: &NewMessage,
        body: u64,
        id: &str,
        is_duplicate: bool,
    ) -> Result<(), String> {
        let known = new.dedup.and_then(|dedup| self.dedup.get(&dedup));
        if let Some((first, _)) = known.filter(|(_, until)| *until > self.now) {
            return if is_duplicate && first == id {
                Ok(())
            } else {
                Err(format!(
                    "{id} is answered, and it is a duplicate of {first}"
                ))
            };
        }
        if is_duplicate {
            return Err(format!("{id} is called a duplicate, and is the first"));
        }
        if self
            .messages
            .keys()
            .next_back()
            .is_some_and(|last| **last >= *id)
        {
            return Err(format!("{id} does not come after those before"));
        }
        if let Some(dedup) = new.dedup {
            self.dedup
                .insert(dedup, (id.to_owned(), self.now + DEDUP_WINDOW));
        }
        let delay = new.delay.unwrap_or(self.settings.delay);
        let place = if delay == 0 {
            Place::Ready { turn: self.turn() }
        } else {
            Place::Delayed {
                until: self.now + delay,
            }
        };
        let message = Message {
            body,
            priority: new.priority,
            attempts: 0,
            place,
            expires: self.now + delay + new.ttl.unwrap_or(MESSAGE_TTL),
            last_failure: None,
        };
        self.messages.insert(id.to_owned(), message);
        self.totals.published += 1;
        Ok(())
    }

    /// The messages of which one must be the next that is received.
    pub(super) fn candidates(&self, taken: &[&str]) -> Vec<&str> {
        let ready = self.messages.iter().filter_map(|(id, message)| {
            let Place::Ready { turn } = message.place else {
                return None;
            };
            let waits = !taken.contains(&id.as_str());
            waits.then_some(((9 - message.priority, turn), id.as_str()))
        });
        let first = ready.clone().map(|(place, _)| place).min();
        ready
            .filter(|(place, _)| Some(*place) == first)
            .map(|(_, id)| id)
            .collect()
    }

    /// Whether these may stand at the front of the queue in this order, and are as
    /// many as there have to be.
    pub(super) fn check_order(&self, ids: &[&str], max: usize) -> Result<(), String> {
        for (place, id) in ids.iter().enumerate() {
            let candidates = self.candidates(&ids[..place]);
            if !candidates.contains(id) {
                return Err(format!(
                    "{id} comes at {place}, where it has to be one of {candidates:?}"
                ));
            }
        }
        let ready = usize::try_from(self.counts()[0]).unwrap();
        let expected = ready.min(max);
        if ids.len() == expected {
            Ok(())
        } else {
            Err(format!("{} messages, not {expected}", ids.len()))
        }
    }

    fn give_up(&mut self, id: &str, turn: u64, reason: &'static str) {
        let place = if self.settings.dead_letters {
            self.totals.dead_lettered += 1;
            Place::Dead { turn, reason }
        } else {
            self.totals.removed += 1;
            Place::Gone
        };
        self.messages.get_mut(id).unwrap().place = place;
    }

    /// Time passes: leases and delays end, then times to live.
    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        let (now, turn) = (self.now, self.turn());
        let ids: Vec<String> = self.messages.keys().cloned().collect();
        for id in &ids {
            let message = &self.messages[id];
            match message.place {
                Place::Leased { until, lease } if until <= now => {
                    let attempts = message.attempts;
                    self.fail(lease, Failed::Expired);
                    if attempts >= self.settings.max_attempts {
                        self.give_up(id, turn, "max-attempts");
                    } else {
                        self.messages.get_mut(id).unwrap().place = Place::Ready { turn };
                    }
                }
                Place::Delayed { until } if until <= now => {
                    self.messages.get_mut(id).unwrap().place = Place::Ready { turn };
                }
                _ => {}
            }
            let message = &self.messages[id];
            if message.expires <= now && matches!(message.place, Place::Ready { .. }) {
                if self.settings.keep_expired {
                    self.give_up(id, turn, "expired");
                } else {
                    self.messages.get_mut(id).unwrap().place = Place::Gone;
                    self.totals.expired += 1;
                }
            }
        }
    }

    /// Takes all out, and how many: messages, dead letters.
    pub(super) fn purge(&mut self, dead_letters: bool) -> [i64; 2] {
        let mut gone = [0; 2];
        for message in self.messages.values_mut() {
            match message.place {
                Place::Gone => continue,
                Place::Dead { .. } if !dead_letters => continue,
                Place::Dead { .. } => gone[1] += 1,
                _ => gone[0] += 1,
            }
            message.place = Place::Gone;
        }
        self.totals.removed += gone[0] + gone[1];
        gone
    }

    /// Takes one out; whether it was there.
    pub(super) fn cancel(&mut self, id: &str, only_dead: bool) -> bool {
        let message = self.messages.get_mut(id).unwrap();
        let is_there = match message.place {
            Place::Gone => false,
            Place::Dead { .. } => true,
            _ => !only_dead,
        };
        if is_there {
            message.place = Place::Gone;
            self.totals.removed += 1;
        }
        is_there
    }

    pub(super) fn is_dead(&self, id: &str) -> bool {
        matches!(self.messages[id].place, Place::Dead { .. })
    }

    /// Dead letters were put back, in this order.
    pub(super) fn redrive(&mut self, ids: &[&str]) -> Result<(), String> {
        for id in ids {
            if !self.is_dead(id) {
                return Err(format!("{id} is put back, and was no dead letter"));
            }
            let turn = self.turn();
            let expires = self.now + MESSAGE_TTL;
            let message = self.messages.get_mut(*id).unwrap();
            message.attempts = 0;
            message.expires = expires;
            message.place = Place::Ready { turn };
        }
        Ok(())
    }

    /// The oldest dead letters: as many, and those of the last turn in question,
    /// of which any may be among them.
    pub(super) fn are_oldest_dead(&self, ids: &[&str]) -> bool {
        let turn = |id: &str| match self.messages[id].place {
            Place::Dead { turn, .. } => Some(turn),
            _ => None,
        };
        let newest = ids.iter().filter_map(|id| turn(id)).max();
        self.messages.keys().all(|id| {
            let left = turn(id).filter(|_| !ids.contains(&id.as_str()));
            left.is_none_or(|left| Some(left) >= newest)
        })
    }
}
