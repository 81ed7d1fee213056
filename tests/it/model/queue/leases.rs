//! Leases: given, ended, or run out.

use super::{BACKOFF, Message, Place, Queue};

/// How a lease failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Nacked,
    Expired,
}

/// A lease that was given.
#[derive(Debug, Clone)]
pub(in crate::model) struct Lease {
    pub(in crate::model) receipt: String,
    message: String,
    failed: Option<Failed>,
}

/// What an item of a settle is answered with.
pub(in crate::model) type Outcome = Result<(), &'static str>;

const LOST: Outcome = Err("lease-lost");

impl Queue {
    /// A message was received, with this receipt.
    pub(in crate::model) fn deliver(&mut self, id: &str, receipt: &str, seconds: u64) {
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

    pub(in crate::model) fn ack(&mut self, leases: &[usize]) -> Vec<Outcome> {
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

    pub(in crate::model) fn nack(
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

    pub(in crate::model) fn extend(&mut self, leases: &[usize], seconds: u64) -> Vec<Outcome> {
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

    pub(super) fn fail(&mut self, lease: usize, failed: Failed) {
        self.leases[lease].failed = Some(failed);
        self.message_of(lease).last_failure = Some(lease);
        self.totals.failed += 1;
    }

    fn die(&mut self, lease: usize, turn: u64, reason: &'static str) {
        let id = self.leases[lease].message.clone();
        self.give_up(&id, turn, reason);
    }
}
