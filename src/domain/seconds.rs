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
    /// thousand years either way. What is below zero stays so, however little:
    /// where zero is the least, it is not enough.
    #[must_use]
    pub fn from_f64(seconds: f64) -> Option<Self> {
        const LIMIT: f64 = 1000.0 * 366.0 * 86_400.0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bounded by the line above it"
        )]
        (seconds.abs() <= LIMIT).then(|| Self {
            millis: match (seconds * 1000.0).round() as i64 {
                0 if seconds < 0.0 => -1,
                millis => millis,
            },
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn seconds_survive_the_round_trip(millis in -31_536_000_000_i64..=31_536_000_000) {
            let seconds = Seconds::from_millis(millis);
            let json = serde_json::to_string(&seconds).expect("serializes");
            prop_assert_eq!(serde_json::from_str::<Seconds>(&json).expect("a number"), seconds);
        }

        #[test]
        fn any_number_is_near_to_what_it_says_or_refused(number: f64) {
            if let Some(seconds) = Seconds::from_f64(number) {
                let millis = std::time::Duration::from_millis(seconds.as_millis().unsigned_abs());
                prop_assert!((millis.as_secs_f64() - number.abs()).abs() <= 0.001, "{}", number);
                prop_assert_eq!(seconds.as_millis() < 0, number < 0.0, "{}", number);
            } else {
                prop_assert!(number.is_nan() || number.abs() > 3e10, "{}", number);
            }
        }

        #[test]
        fn whatever_stands_there_it_is_a_number_or_refused(text in ".{0,30}") {
            let _ = serde_json::from_str::<Seconds>(&text);
        }
    }

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
