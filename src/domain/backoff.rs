//! How long a message rests after a failed attempt.

use super::seconds::Seconds;

/// Exponential backoff with jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub initial: Seconds,
    /// The factor from one wait to the next, at least 1.
    pub multiplier: f64,
    /// The longest wait.
    pub max: Seconds,
    /// The share of the wait that chance decides, 0 to 1.
    pub jitter: f64,
}

impl Backoff {
    /// The wait after failed attempt `attempt` (1 first): `initial *
    /// multiplier^(attempt - 1)`, at most `max`, less up to `jitter` of it.
    /// `chance` is a number in `[0, 1)`.
    ///
    /// Jitter only shortens, so that `max` holds and a thousand messages that
    /// failed together do not come back together.
    #[must_use]
    pub fn delay(&self, attempt: u32, chance: f64) -> Seconds {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a year is 2^35 ms")]
        let (initial, max) = (self.initial.as_millis() as f64, self.max.as_millis() as f64);
        // Infinity, when the power overflows, is cut to max like any number.
        let full = (initial * self.multiplier.powi(exponent)).min(max);
        let wait = full * (1.0 - self.jitter * chance.clamp(0.0, 1.0));
        #[expect(clippy::cast_possible_truncation, reason = "between 0 and max")]
        Seconds::from_millis(if wait.is_nan() {
            0
        } else {
            wait.round() as i64
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_backoff() -> impl Strategy<Value = Backoff> {
        (
            0i64..=31_536_000_000,
            0i64..=31_536_000_000,
            1.0f64..=100.0,
            0.0f64..=1.0,
        )
            .prop_map(|(a, b, multiplier, jitter)| Backoff {
                initial: Seconds::from_millis(a.min(b)),
                multiplier,
                max: Seconds::from_millis(a.max(b)),
                jitter,
            })
    }

    proptest! {
        #[test]
        fn the_delay_is_bounded_up_to_attempt_a_million(
            backoff in any_backoff(), attempt in 0u32..=1_000_000, chance in 0.0f64..1.0,
        ) {
            let delay = backoff.delay(attempt, chance);
            prop_assert!(delay >= Seconds::ZERO);
            prop_assert!(delay <= backoff.max);
            let full = backoff.delay(attempt, 0.0);
            #[expect(clippy::cast_precision_loss, reason = "a year is 2^35 ms")]
            let least = full.as_millis() as f64 * (1.0 - backoff.jitter) - 1.0;
            #[expect(clippy::cast_precision_loss, reason = "a year is 2^35 ms")]
            let got = delay.as_millis() as f64;
            prop_assert!(got >= least, "{got} < {least}");
        }

        #[test]
        fn without_jitter_it_never_shrinks(backoff in any_backoff(), attempt in 1u32..10_000) {
            prop_assert!(backoff.delay(attempt + 1, 0.0) >= backoff.delay(attempt, 0.0));
        }
    }

    #[test]
    fn the_first_wait_is_the_initial_one_and_then_doubles() {
        let backoff = Backoff {
            initial: Seconds::new(5),
            multiplier: 2.0,
            max: Seconds::new(3600),
            jitter: 0.0,
        };
        let waits: Vec<_> = [1, 2, 3, 11, 1_000_000]
            .map(|n| backoff.delay(n, 0.5))
            .into();
        assert_eq!(waits, [5, 10, 20, 3600, 3600].map(Seconds::new));
    }
}
