//! Bounds how often an address may show keys that are not known.
//!
//! A key that the gateway has in memory is served all the same: others behind
//! the same address are not locked out by one that guesses. What is counted is
//! a wrong secret, and each look into the database for a key that is not in
//! memory, since that is what guessing costs.

use std::net::IpAddr;
use std::num::NonZeroU32;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Addresses that are remembered apart; those beyond share one count, so that
/// memory stays bounded.
const MOST_ADDRESSES: usize = 100_000;

/// Counts by address.
pub(super) struct FailedLogins {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl FailedLogins {
    /// So many are free at once, and come back in a minute.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::keyed(Quota::per_minute(per_minute)),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one.
    ///
    /// # Errors
    /// If it is one too many: the seconds until the next is free.
    pub(super) fn count(&self, from: IpAddr) -> Result<(), u32> {
        self.limiter
            .check_key(&self.counted_as(from))
            .map_err(|not_until| {
                let wait = not_until.wait_time_from(self.clock.now());
                u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1)
            })
    }

    /// Forgets addresses that have all of theirs back.
    pub(super) fn forget_old(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    fn counted_as(&self, from: IpAddr) -> IpAddr {
        if self.limiter.len() >= MOST_ADDRESSES {
            return IpAddr::from([0, 0, 0, 0]);
        }
        match from.to_canonical() {
            // Who has one address of a /64 has them all.
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[8..].fill(0);
                octets.into()
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: NonZeroU32 = NonZeroU32::new(10).expect("not zero");

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_uses_up_its_own_and_a_network_of_ipv6_is_one() {
        let logins = FailedLogins::new(TEN);
        for _ in 0..TEN.get() {
            assert_eq!(logins.count(address("2001:db8::1")), Ok(()));
        }
        assert!(logins.count(address("2001:db8::2")).is_err());
        assert_eq!(logins.count(address("2001:db8:0:1::1")), Ok(()));
        assert_eq!(logins.count(address("192.0.2.1")), Ok(()));
        assert_eq!(logins.count(address("::ffff:192.0.2.1")), Ok(()));
    }

    #[test]
    fn however_many_addresses_come_the_memory_is_bounded() {
        let logins = FailedLogins::new(TEN);
        for number in 0..u32::try_from(MOST_ADDRESSES).expect("small") + 1000 {
            // Those beyond use up what they share.
            let _ = logins.count(IpAddr::from(number.to_be_bytes()));
        }
        assert!(logins.limiter.len() <= MOST_ADDRESSES + 1);
    }
}
