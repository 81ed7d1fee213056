//! Durations as the API spells them: numbers of seconds, to the millisecond.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in whole milliseconds; in JSON a number of seconds with up to
/// three decimals that count (`30`, `0.25`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds {
    millis: i64,
}

impl Seconds {
    /// No time at all.
    pub const ZERO: Self = Self::from_millis(0);
    /// 365 days: the longest that any setting allows.
    pub const YEAR: Self = Self::new(365 * 24 * 3600);

    /// Whole seconds.
    #[must_use]
    pub const fn new(seconds: i64) -> Self {
        Self {
            millis: seconds * 1000,
        }
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self { millis }
    }

    /// The number of milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.millis
    }

    /// As a [`Duration`]; negative ones are zero.
    #[must_use]
    pub fn to_duration(self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis).unwrap_or(0))
    }

    /// From a number of seconds; `None` unless it is finite and within a
    /// thousand years either way.
    #[must_use]
    pub fn from_f64(seconds: f64) -> Option<Self> {
        const LIMIT: f64 = 1000.0 * 366.0 * 86_400.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bounded by the line above it"
        )]
        (seconds.abs() <= LIMIT).then(|| Self {
            millis: (seconds * 1000.0).round() as i64,
        })
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.millis % 1000 == 0 {
            write!(f, "{} s", self.millis / 1000)
        } else {
            write!(f, "{} ms", self.millis)
        }
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.millis % 1000 == 0 {
            serializer.serialize_i64(self.millis / 1000)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a thousand years are 2^45 ms")]
            serializer.serialize_f64(self.millis as f64 / 1000.0)
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::from_f64(seconds)
            .ok_or_else(|| serde::de::Error::custom("not a sensible number of seconds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_stay_integers_in_json() {
        assert_eq!(
            serde_json::to_string(&Seconds::new(30)).expect("serializes"),
            "30"
        );
        assert_eq!(
            serde_json::to_string(&Seconds::from_millis(250)).expect("serializes"),
            "0.25"
        );
    }

    #[test]
    fn numbers_out_of_reach_are_refused() {
        for text in ["1e300", "-1e300", "\"1\"", "null", "true"] {
            assert!(serde_json::from_str::<Seconds>(text).is_err(), "{text}");
        }
    }
}
