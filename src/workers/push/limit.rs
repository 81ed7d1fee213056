//! A webhook's rate limit.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;

/// Bursts of so much time: shorter waits than a millisecond or two cannot be
/// slept.
const BURST: f64 = 0.05;

/// Turns to push, so many a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Limit {
    per_second: Option<f64>,
    /// Locked by who waits for a turn, which makes a line: turns would go to
    /// anybody, and somebody would wait until his lease runs out.
    limiter: Option<Arc<Mutex<DefaultDirectRateLimiter>>>,
    /// A turn has come and is not used yet: nothing was there to push.
    has_turn: bool,
}

impl Limit {
    /// Begins anew if the limit was changed.
    pub(super) fn follow(&mut self, per_second: Option<f64>) {
        if self.per_second == per_second {
            return;
        }
        *self = Self {
            per_second,
            limiter: per_second
                .and_then(quota)
                .map(|quota| Arc::new(Mutex::new(RateLimiter::direct(quota)))),
            has_turn: false,
        };
    }

    /// Whether there is one.
    pub(super) fn is_set(&self) -> bool {
        self.limiter.is_some()
    }

    /// Waits for a turn, if none is left from before.
    pub(super) async fn take_turn(&mut self) {
        if let Some(limiter) = &self.limiter
            && !self.has_turn
        {
            limiter.lock().await.until_ready().await;
            self.has_turn = true;
        }
    }

    /// Something is pushed.
    pub(super) fn use_turn(&mut self) {
        self.has_turn = false;
    }
}

/// Turns in a second, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0.01 to 100,000"
)]
pub(super) fn a_second(per_second: Option<f64>) -> u32 {
    per_second.map_or(u32::MAX, |rate| (rate as u32).max(1))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 1 to 5,000"
)]
fn quota(per_second: f64) -> Option<Quota> {
    let burst = NonZeroU32::new(((per_second * BURST) as u32).max(1))?;
    let period = Duration::try_from_secs_f64(1.0 / per_second).ok()?;
    Some(Quota::with_period(period)?.allow_burst(burst))
}
