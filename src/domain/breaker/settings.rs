//! When a breaker opens, and for how long.

use crate::domain::{Invalid, Seconds};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// The share of failures among the calls of the window at which it opens.
    pub failure_rate: f64,
    /// How many of the last calls are looked at.
    pub window: u32,
    /// With fewer calls in the window it stays closed.
    pub min_calls: u32,
    /// How long it stays open.
    pub open: Seconds,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            window: 20,
            min_calls: 10,
            open: Seconds::new(30),
        }
    }
}

impl BreakerSettings {
    /// Largest window: a thousand calls are a kilobyte in the webhook's row.
    pub const MAX_WINDOW: u32 = 1000;
    /// Longest time open: a day.
    pub const MAX_OPEN: Seconds = Seconds::new(86_400);
    /// Shortest: less would be a retry, not a rest.
    pub const MIN_OPEN: Seconds = Seconds::from_millis(100);

    /// Each setting that is out of its range. `at` is the JSON pointer of the
    /// settings in the request.
    pub(in crate::domain) fn check(&self, at: &str, wrong: &mut Vec<Invalid>) {
        let mut demand = |holds: bool, field: &str, detail: String| {
            if !holds {
                wrong.push(Invalid {
                    pointer: format!("{at}/{field}"),
                    detail,
                });
            }
        };
        demand(
            (0.01..=1.0).contains(&self.failure_rate),
            "failure_rate",
            "must be from 0.01 to 1".to_owned(),
        );
        demand(
            (1..=Self::MAX_WINDOW).contains(&self.window),
            "window",
            format!("must be from 1 to {}", Self::MAX_WINDOW),
        );
        demand(
            (1..=self.window.max(1)).contains(&self.min_calls),
            "min_calls",
            "must be from 1 to window".to_owned(),
        );
        demand(
            (Self::MIN_OPEN..=Self::MAX_OPEN).contains(&self.open),
            "open_seconds",
            "must be from 0.1 to 86400".to_owned(),
        );
    }
}
