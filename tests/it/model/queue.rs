//! The model: a queue as it is promised to be, in memory.
//!
//! It says exactly what must come of each step, but for one thing: what comes back
//! to the queue in one go (leases that ran out, delays that are over) comes in any
//! order among itself, behind all that was there. Such messages share a `turn`.
//!
//! A new rule of which messages may be received goes into [`Queue::candidates`].

use std::collections::BTreeMap;

use super::steps::{NewMessage, Settings};

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

/// How a lease failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Nacked,
    Expired,
}

/// A lease that was given.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) receipt: String,
    message: String,
    failed: Option<Failed>,
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

/// What an item of a settle is answered with.
pub(super) type Outcome = Result<(), &'static str>;

const LOST: Outcome = Err("lease-lost");

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

    /// A message was received, with this receipt.
    pub(super) fn deliver(&mut self, id: &str, receipt: &str, seconds: u64) {
        let lease = self.leases.len();
        self.leases.push(Lease {
            receipt: receipt.to_owned(),
            message: id.to_owned(),
            failed: None,
        });
        let until = self.now + seconds;
        let message = self.messages.get_mut(id).unwrap();
        message.attempts += 1;
        message.place = Place::Leased { until, lease };
        self.totals.delivered += 1;
    }

    fn message_of(&mut self, lease: usize) -> &mut Message {
        let id = &self.leases[lease].message;
        self.messages.get_mut(id).unwrap()
    }

    fn runs(&self, lease: usize) -> bool {
        let message = &self.messages[&self.leases[lease].message];
        matches!(message.place, Place::Leased { lease: running, .. } if running == lease)
    }

    /// Whether a lease ran out and nobody has had its message since.
    fn may_still_ack(&self, lease: usize) -> bool {
        let Lease {
            message, failed, ..
        } = &self.leases[lease];
        let message = &self.messages[message];
        *failed == Some(Failed::Expired)
            && message.last_failure == Some(lease)
            && matches!(message.place, Place::Ready { .. })
    }

    /// Whether it left nothing: its message was acked, or taken out.
    fn is_forgotten(&self, lease: usize) -> bool {
        let Lease {
            message, failed, ..
        } = &self.leases[lease];
        let place = &self.messages[message].place;
        failed.is_none() && !matches!(place, Place::Leased { .. } | Place::Delayed { .. })
    }

    pub(super) fn ack(&mut self, leases: &[usize]) -> Vec<Outcome> {
        let running: Vec<bool> = leases.iter().map(|lease| self.runs(*lease)).collect();
        for (lease, runs) in leases.iter().zip(&running) {
            if *runs && self.runs(*lease) {
                self.message_of(*lease).place = Place::Gone;
                self.totals.acked += 1;
            }
        }
        let late: Vec<bool> = leases
            .iter()
            .map(|lease| self.may_still_ack(*lease))
            .collect();
        let outcomes = leases
            .iter()
            .zip(running)
            .zip(&late)
            .map(|((lease, runs), late)| {
                if runs || *late || self.is_forgotten(*lease) {
                    Ok(())
                } else {
                    LOST
                }
            });
        let outcomes = outcomes.collect();
        for (lease, late) in leases.iter().zip(late) {
            if late && self.may_still_ack(*lease) {
                self.message_of(*lease).place = Place::Gone;
                self.leases[*lease].failed = None;
                self.totals.acked += 1;
            }
        }
        outcomes
    }

    /// What becomes of receipts that no lease runs for.
    fn not_running(&self, lease: usize) -> Outcome {
        if self.may_still_ack(lease) {
            Err("lease-expired")
        } else {
            LOST
        }
    }

    pub(super) fn nack(
        &mut self,
        leases: &[usize],
        delay: Option<u64>,
        dead_letter: bool,
    ) -> Vec<Outcome> {
        // Those that are given back together have one turn.
        let turn = self.turn();
        let mut outcomes = Vec::new();
        for lease in leases {
            if !self.runs(*lease) {
                outcomes.push(None);
                continue;
            }
            outcomes.push(Some(Ok(())));
            self.totals.nacked += 1;
            self.fail(*lease, Failed::Nacked);
            let attempts = self.message_of(*lease).attempts;
            let now = self.now;
            if dead_letter {
                self.die(*lease, turn, "rejected");
            } else if attempts >= self.settings.max_attempts {
                self.die(*lease, turn, "max-attempts");
            } else {
                let wait = delay.unwrap_or(BACKOFF[(attempts as usize - 1).min(2)]);
                self.message_of(*lease).place = if wait == 0 {
                    Place::Ready { turn }
                } else {
                    Place::Delayed { until: now + wait }
                };
            }
        }
        let late = leases.iter().zip(outcomes);
        late.map(|(lease, outcome)| outcome.unwrap_or_else(|| self.not_running(*lease)))
            .collect()
    }

    pub(super) fn extend(&mut self, leases: &[usize], seconds: u64) -> Vec<Outcome> {
        let until = self.now + seconds;
        let mut outcomes = Vec::new();
        for lease in leases {
            outcomes.push(if self.runs(*lease) {
                self.message_of(*lease).place = Place::Leased {
                    until,
                    lease: *lease,
                };
                Ok(())
            } else {
                self.not_running(*lease)
            });
        }
        outcomes
    }

    fn fail(&mut self, lease: usize, failed: Failed) {
        self.leases[lease].failed = Some(failed);
        self.message_of(lease).last_failure = Some(lease);
        self.totals.failed += 1;
    }

    fn die(&mut self, lease: usize, turn: u64, reason: &'static str) {
        let id = self.leases[lease].message.clone();
        self.give_up(&id, turn, reason);
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
