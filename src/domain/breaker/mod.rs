//! The circuit breaker of a webhook: when to stop sending to an endpoint that
//! fails, and how to begin again.
//!
//! ```text
//!              failure rate reached            open_seconds passed
//!   closed ─────────────────────────▶ open ─────────────────────────▶ half-open
//!     ▲                                ▲ ▲                             (one probe)
//!     │ max_in_flight reached          │ └───────── probe failed ─────────┤
//!     └──────────── recovering ────────┘                                  │
//!                    (1, 2, 4, ...) ◀───────────── probe succeeded ───────┘
//!                         any failure: open
//! ```
//!
//! Pure: times are milliseconds of the database's clock, and come as arguments.
//! Its gateway keeps the state in Postgres, so that a restart keeps it and the
//! next gateway goes on with it. Two things make that safe:
//!
//! - Every transition raises the **epoch**. A state never overwrites one of a
//!   later epoch, and of two gateways that begin a probe from the same state only
//!   one can store it. Who resumes a webhook stores a closed breaker of a much
//!   later epoch, which its gateway then takes for its own.
//! - A call is let through in an epoch, and counts only in that one: what was
//!   still on its way when the breaker opened neither closes it nor opens it
//!   again.

mod settings;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};

pub use settings::BreakerSettings;
use window::Window;

/// The state of a webhook's breaker, as it is kept in the webhook's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Counts transitions.
    epoch: u64,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum State {
    Closed {
        /// The last calls.
        window: Window,
    },
    Open {
        /// When it opened.
        since: i64,
    },
    HalfOpen {
        /// When the probe began.
        since: i64,
        /// When it counts as lost.
        probe_until: i64,
    },
    Recovering {
        /// When the probe succeeded.
        since: i64,
        /// How many calls may run at a time.
        allowed: u32,
        /// How many have succeeded since that was allowed.
        run: u32,
    },
}

/// What a breaker does, as users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything is let through.
    Closed,
    /// Nothing is let through.
    Open {
        /// When it opened, milliseconds since 1970.
        since: i64,
    },
    /// One probe is on its way.
    HalfOpen {
        /// When it was sent, milliseconds since 1970.
        since: i64,
    },
    /// More and more is let through.
    Recovering {
        /// When the probe succeeded, milliseconds since 1970.
        since: i64,
        /// How many calls may run at a time.
        allowed: u32,
    },
}

impl BreakerState {
    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half-open",
            Self::Recovering { .. } => "recovering",
        }
    }
}

/// What a breaker has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It was closed and stops calls now.
    Opened,
    /// Its probe is let through.
    HalfOpened,
    /// A probe, or a call after it, failed: it stops calls again.
    Reopened,
    /// Its probe has succeeded: calls come back little by little.
    Recovering,
    /// It lets everything through again.
    Closed,
}

/// A call that was let through; its result counts only until the next
/// transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    epoch: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            epoch: 0,
            state: State::Closed {
                window: Window::default(),
            },
        }
    }
}

impl Breaker {
    /// How often it has changed. Of two states of one breaker, the one with the
    /// higher epoch is right.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it does.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { since } => BreakerState::Open { since },
            State::HalfOpen { since, .. } => BreakerState::HalfOpen { since },
            State::Recovering { since, allowed, .. } => BreakerState::Recovering { since, allowed },
        }
    }

    /// When a probe may be let through: milliseconds since 1970; `None` while
    /// there is nothing to probe.
    #[must_use]
    pub fn probe_at(&self, settings: &BreakerSettings) -> Option<i64> {
        match self.state {
            State::Open { since } => Some(since.saturating_add(settings.open.as_millis())),
            State::HalfOpen { probe_until, .. } => Some(probe_until),
            State::Closed { .. } | State::Recovering { .. } => None,
        }
    }

    /// How many calls may be on their way at `now`, of at most `max_in_flight`.
    /// Where [`Self::wants_probe`], the one that it says has to be begun as a
    /// probe.
    #[must_use]
    pub fn allowance(&self, settings: &BreakerSettings, now: i64, max_in_flight: u32) -> u32 {
        match self.state {
            State::Closed { .. } => max_in_flight,
            State::Recovering { allowed, .. } => allowed.min(max_in_flight),
            State::Open { .. } | State::HalfOpen { .. } => {
                u32::from(self.wants_probe(settings, now)).min(max_in_flight)
            }
        }
    }

    /// Whether the next call is a probe, which only one gateway may begin.
    #[must_use]
    pub fn wants_probe(&self, settings: &BreakerSettings, now: i64) -> bool {
        self.probe_at(settings).is_some_and(|at| at <= now)
    }

    /// Half-opens the breaker for one probe that counts as lost after `until`.
    /// `None`, and nothing is changed, if no probe may begin at `now`.
    ///
    /// A gateway does this on a copy, and uses the copy only once the database
    /// has taken it: that is what makes it one probe in the cluster.
    pub fn begin_probe(
        &mut self,
        settings: &BreakerSettings,
        now: i64,
        until: i64,
    ) -> Option<Transition> {
        if !self.wants_probe(settings, now) {
            return None;
        }
        let state = State::HalfOpen {
            since: now,
            probe_until: until.max(now),
        };
        Some(self.become_state(state, Transition::HalfOpened))
    }

    /// A call that is let through now.
    #[must_use]
    pub fn call(&self) -> Call {
        Call { epoch: self.epoch }
    }

    /// Takes the result of a call. Only real failures are results: an endpoint
    /// that asks to be left alone for a while gives none ([`Self::give_back`]).
    pub fn record(
        &mut self,
        settings: &BreakerSettings,
        call: Call,
        success: bool,
        now: i64,
        max_in_flight: u32,
    ) -> Option<Transition> {
        if call.epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed { window } => {
                window.push(success, settings.window);
                let opens = window.len() >= settings.min_calls
                    && f64::from(window.failures) / f64::from(window.len())
                        >= settings.failure_rate;
                opens.then(|| self.become_state(State::Open { since: now }, Transition::Opened))
            }
            // Of a call that this epoch cannot have let through.
            State::Open { .. } => None,
            State::HalfOpen { .. } if success => Some(self.recover(now, 1, max_in_flight)),
            State::Recovering {
                since,
                allowed,
                run,
            } if success => {
                *run += 1;
                if *run < *allowed {
                    return None;
                }
                let (since, doubled) = (*since, allowed.saturating_mul(2));
                if doubled < max_in_flight {
                    (*allowed, *run) = (doubled, 0);
                    return None;
                }
                Some(self.recover(since, doubled, max_in_flight))
            }
            State::HalfOpen { .. } | State::Recovering { .. } => {
                Some(self.become_state(State::Open { since: now }, Transition::Reopened))
            }
        }
    }

    /// A call ended without saying whether the endpoint is well. If it was the
    /// probe, another may be let through.
    pub fn give_back(&mut self, call: Call, now: i64) {
        if let State::HalfOpen { probe_until, .. } = &mut self.state
            && call.epoch == self.epoch
        {
            *probe_until = now.min(*probe_until);
        }
    }

    fn recover(&mut self, since: i64, allowed: u32, max_in_flight: u32) -> Transition {
        if allowed >= max_in_flight {
            return self.become_state(Self::default().state, Transition::Closed);
        }
        let state = State::Recovering {
            since,
            allowed,
            run: 0,
        };
        self.become_state(state, Transition::Recovering)
    }

    fn become_state(&mut self, state: State, transition: Transition) -> Transition {
        self.epoch += 1;
        self.state = state;
        transition
    }
}
