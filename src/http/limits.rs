//! Rate limits, and the fields that tell clients of them.
//!
//! A quota is a bucket that fills at a steady rate; what a request costs is taken
//! out of it. [`Limiters`] holds a bucket for each of whatever is limited: a
//! queue, a key, an address. A bucket that is full again is as good as a new one,
//! so it is forgotten, and memory is bounded by what was lately in use.
//!
//! Each gateway counts for itself. To share a bucket would take a round trip to
//! the database before every request that it is there to spare the database.
//!
//! The fields are those of draft-ietf-httpapi-ratelimit-headers-11:
//!
//! ```text
//! RateLimit-Policy: "publish";q=100;w=1      so much in so many seconds
//! RateLimit: "publish";r=40;t=1              so much is left; in t it is whole again
//! ```

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{InsufficientCapacity, RateLimiter};

use super::problem::Problem;

/// What is left under a policy; on every answer that the policy applies to.
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The policy.
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Buckets that are kept before full ones are looked for.
const FEW: usize = 1024;

/// Buckets that are kept at most. Whoever can be counted under ever new names (an
/// address, say) cannot take more memory than this: some tens of megabytes.
const MOST: usize = 200_000;

/// A policy: so much a second, and so much at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quota {
    /// What clients know it by; printable ASCII without quotes.
    name: &'static str,
    /// More than 0.
    per_second: f64,
    burst: NonZeroU32,
}

/// What was left under a quota when a request was let through. Small: a
/// receiver keeps it while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    remaining: u32,
    /// Until the quota is whole again, or until there is enough of it.
    seconds: u32,
}

impl Quota {
    /// `burst` is by default what comes in a second, and at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from a float saturates"
    )]
    pub(crate) fn new(name: &'static str, per_second: f64, burst: Option<u32>) -> Self {
        let burst = burst.unwrap_or(per_second.ceil() as u32);
        Self {
            name,
            per_second,
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        }
    }

    /// The time in which one comes.
    fn period(&self) -> Duration {
        Duration::try_from_secs_f64(1.0 / self.per_second)
            .unwrap_or(Duration::MAX)
            .max(Duration::from_nanos(1))
    }

    /// The whole seconds in which an empty bucket is full again.
    fn window(&self) -> u32 {
        seconds(self.period().saturating_mul(self.burst.get()))
    }

    /// Puts the fields on an answer, beside those of other quotas.
    pub(crate) fn describe(&self, standing: Standing, headers: &mut HeaderMap) {
        for (name, value) in self.fields(standing) {
            headers.append(name, value);
        }
    }

    fn fields(&self, standing: Standing) -> [(HeaderName, HeaderValue); 2] {
        let Self {
            name, per_second, ..
        } = self;
        let window = self.window();
        // What the rate comes to in the window: the burst, unless that is less
        // than a second's worth.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast from a float saturates"
        )]
        let in_window = (per_second * f64::from(window)).floor() as u32;
        let quota = in_window.max(self.burst.get());
        let Standing { remaining, seconds } = standing;
        let text = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        [
            (
                RATE_LIMIT_POLICY,
                text(format!("\"{name}\";q={quota};w={window}")),
            ),
            (
                RATE_LIMIT,
                text(format!("\"{name}\";r={remaining};t={seconds}")),
            ),
        ]
    }

    /// 429: there is not so much left.
    fn exceeded(&self, standing: Standing) -> Problem {
        let Self {
            name,
            per_second,
            burst,
        } = self;
        let Standing { remaining, seconds } = standing;
        let mut problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limited",
            format!(
                "The rate limit \"{name}\" is {per_second} a second and {burst} at once, of which \
                 {remaining} are left. Try again in {seconds} s."
            ),
        )
        .retry_after(seconds);
        for (name, value) in self.fields(standing) {
            problem = problem.with_field(name, value);
        }
        problem
    }

    /// 422: there never will be so much. No 429, which says that waiting helps.
    fn too_many(&self, wanted: NonZeroU32) -> Problem {
        let Self { name, burst, .. } = self;
        Problem::with_part(
            StatusCode::UNPROCESSABLE_ENTITY,
            "batch-over-burst",
            "/messages",
            format!(
                "{wanted} messages, over the {burst} that the rate limit \"{name}\" lets through at \
                 once: send them in smaller batches"
            ),
        )
    }
}

/// Whole seconds, rounded up: never too early. At least one.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX).max(1)
}

/// Buckets, by what they are of.
#[derive(Debug)]
pub(crate) struct Limiters<K>(Mutex<Buckets<K>>);

#[derive(Debug)]
struct Buckets<K> {
    by_key: HashMap<K, Bucket>,
    /// How many there may be until the full ones are looked for.
    sweep_at: usize,
}

#[derive(Debug)]
struct Bucket {
    quota: Quota,
    left: RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>,
    /// When it is full again.
    full_at: Instant,
}

impl<K> Default for Limiters<K> {
    fn default() -> Self {
        Self(Mutex::new(Buckets {
            by_key: HashMap::new(),
            sweep_at: FEW,
        }))
    }
}

impl<K: Eq + Hash> Limiters<K> {
    /// Takes `n` out of the bucket of `key`. A changed quota begins full.
    ///
    /// # Errors
    /// 429 `rate-limited`, with the fields and when to try again; 422
    /// `batch-over-burst` if the bucket could never hold so many. Nothing is
    /// taken then.
    pub(crate) fn check(&self, key: K, quota: Quota, n: usize) -> Result<Standing, Problem> {
        let Some(n) = NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX)) else {
            return Ok(Standing {
                remaining: 0,
                seconds: 1,
            });
        };
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.by_key.len() >= buckets.sweep_at {
            buckets.sweep(Instant::now());
        }
        let bucket = buckets
            .by_key
            .entry(key)
            .and_modify(|bucket| {
                if bucket.quota != quota {
                    *bucket = Bucket::new(quota);
                }
            })
            .or_insert_with(|| Bucket::new(quota));
        bucket.take(n)
    }

    /// Whether there is one left in the bucket of `key`, which is not taken.
    ///
    /// # Errors
    /// 429 if there is not.
    pub(crate) fn peek(&self, key: &K, quota: Quota) -> Result<(), Problem> {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.by_key.get(key) {
            Some(bucket) if bucket.quota == quota => bucket.peek(),
            _ => Ok(()),
        }
    }
}

impl<K> Buckets<K> {
    /// Forgets what is full again; and if that is not enough, what is soonest.
    fn sweep(&mut self, now: Instant) {
        self.by_key.retain(|_, bucket| bucket.full_at > now);
        if self.by_key.len() >= MOST {
            let mut times: Vec<Instant> = self.by_key.values().map(|b| b.full_at).collect();
            let (_, median, _) = times.select_nth_unstable(MOST / 2);
            let median = *median;
            self.by_key.retain(|_, bucket| bucket.full_at > median);
        }
        self.sweep_at = (2 * self.by_key.len()).clamp(FEW, MOST);
    }
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        let rate = governor::Quota::with_period(quota.period())
            .unwrap_or(governor::Quota::per_second(NonZeroU32::MAX))
            .allow_burst(quota.burst);
        Self {
            quota,
            left: RateLimiter::direct(rate).with_middleware(),
            full_at: Instant::now(),
        }
    }

    fn take(&mut self, n: NonZeroU32) -> Result<Standing, Problem> {
        let period = self.quota.period();
        match self.left.check_n(n) {
            Ok(Ok(state)) => {
                let remaining = state.remaining_burst_capacity();
                let missing = self.quota.burst.get().saturating_sub(remaining);
                let full_in = period.saturating_mul(missing);
                let now = Instant::now();
                // Far enough away: it is forgotten then.
                self.full_at = now
                    .checked_add(full_in)
                    .unwrap_or(now + Duration::from_hours(24));
                Ok(Standing {
                    remaining,
                    seconds: seconds(full_in),
                })
            }
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.left.clock().now());
                // As much as is missing comes in that time.
                let missing = wait.as_nanos().div_ceil(period.as_nanos());
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                Err(self.quota.exceeded(Standing {
                    remaining: n.get().saturating_sub(missing),
                    seconds: seconds(wait),
                }))
            }
            Err(InsufficientCapacity(_)) => Err(self.quota.too_many(n)),
        }
    }

    fn peek(&self) -> Result<(), Problem> {
        let Quota { burst, .. } = self.quota;
        // With one in it, all the others are still to come.
        let others = self.quota.period().saturating_mul(burst.get() - 1);
        let full_in = self.full_at.saturating_duration_since(Instant::now());
        match full_in.saturating_sub(others) {
            Duration::ZERO => Ok(()),
            wait => Err(self.quota.exceeded(Standing {
                remaining: 0,
                seconds: seconds(wait),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    /// So slow that nothing comes while a test runs.
    fn slow(burst: u32) -> Quota {
        Quota::new("publish", 0.01, Some(burst))
    }

    fn fields(quota: Quota, standing: Standing) -> [String; 2] {
        let mut headers = HeaderMap::new();
        quota.describe(standing, &mut headers);
        [RATE_LIMIT_POLICY, RATE_LIMIT]
            .map(|name| headers[name].to_str().expect("ASCII").to_owned())
    }

    fn refused(result: Result<Standing, Problem>) -> (StatusCode, HeaderMap) {
        let problem = result.expect_err("too much");
        let response = problem.clone().into_response();
        let response = problem.render("id", response);
        (response.status(), response.headers().clone())
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_says_how_long_it_takes() {
        let limiters = Limiters::default();
        let remaining = |n| {
            let standing = limiters.check("a", slow(10), n).expect("enough");
            standing.remaining
        };
        assert_eq!(remaining(1), 9);
        assert_eq!(remaining(6), 3);
        let (status, headers) = refused(limiters.check("a", slow(10), 5));
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        // Two are missing, at one in a hundred seconds.
        assert_eq!(headers["retry-after"], "200");
        assert_eq!(headers[RATE_LIMIT], "\"publish\";r=3;t=200");
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"publish\";q=10;w=1000");
        // Nothing was taken.
        assert_eq!(remaining(3), 0);
        let (_, headers) = refused(limiters.check("a", slow(10), 1));
        assert_eq!(headers[RATE_LIMIT], "\"publish\";r=0;t=100");
        // Others have their own.
        assert_eq!(
            limiters.check("b", slow(10), 10).expect("enough").remaining,
            0
        );
    }

    #[test]
    fn a_look_into_a_bucket_takes_nothing() {
        let limiters = Limiters::default();
        for left in [2, 1, 0] {
            assert!(limiters.peek(&(), slow(3)).is_ok());
            assert_eq!(
                limiters.check((), slow(3), 1).map(|s| s.remaining).ok(),
                Some(left)
            );
        }
        let looked = limiters.peek(&(), slow(3)).expect_err("nothing left");
        let (status, headers) = refused(Err(looked));
        let (as_status, as_headers) = refused(limiters.check((), slow(3), 1));
        assert_eq!((status, headers), (as_status, as_headers));
        // A changed quota begins full.
        assert!(limiters.peek(&(), slow(4)).is_ok());
    }

    #[test]
    fn what_never_fits_is_no_matter_of_waiting() {
        let limiters = Limiters::default();
        let (status, headers) = refused(limiters.check((), slow(10), 11));
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!headers.contains_key("retry-after"), "{headers:?}");
        assert!(limiters.check((), slow(10), 10).is_ok());
    }

    #[test]
    fn a_changed_quota_begins_full() {
        let limiters = Limiters::default();
        assert!(limiters.check((), slow(1), 1).is_ok());
        assert!(limiters.check((), slow(1), 1).is_err());
        assert!(limiters.check((), slow(2), 2).is_ok());
        assert!(limiters.check((), slow(2), 1).is_err());
    }

    #[test]
    fn the_policy_is_what_the_rate_comes_to_in_whole_seconds() {
        let standing = Standing {
            remaining: 0,
            seconds: 1,
        };
        for (per_second, burst, expected) in [
            (100.0, None, "\"publish\";q=100;w=1"),
            (100.0, Some(250), "\"publish\";q=300;w=3"),
            (100.0, Some(10), "\"publish\";q=100;w=1"),
            (0.5, None, "\"publish\";q=1;w=2"),
            (0.3, None, "\"publish\";q=1;w=4"),
            (1e6, None, "\"publish\";q=1000000;w=1"),
        ] {
            let quota = Quota::new("publish", per_second, burst);
            assert_eq!(
                fields(quota, standing),
                [expected, "\"publish\";r=0;t=1"],
                "{per_second} {burst:?}"
            );
        }
    }

    #[test]
    fn full_buckets_are_forgotten_and_the_others_bounded() {
        let limiters = Limiters::default();
        let quick = Quota::new("publish", 1e6, None);
        for key in 0..10 * FEW {
            limiters.check(key, quick, 1).expect("enough");
        }
        let count = |limiters: &Limiters<usize>| limiters.0.lock().expect("whole").by_key.len();
        assert!(count(&limiters) <= 2 * FEW, "{}", count(&limiters));
        for key in 0..2 * MOST {
            limiters.check(key, slow(1), 1).ok();
            assert!(count(&limiters) <= MOST);
        }
        // The last is among those that are remembered.
        assert!(limiters.check(2 * MOST - 1, slow(1), 1).is_err());
    }
}
