//! Logins that failed, by the address that they came from.
//!
//! A failure is a key that is not known or has a wrong secret; what could not be
//! looked at is none. Keys in memory go on whatever an address has done: nobody
//! is locked out by a neighbour that guesses.

use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::http::limits::{Limiters, Quota};
use crate::http::problem::Problem;

/// How often each address has failed.
pub(super) struct Failures {
    by_address: Limiters<IpAddr>,
    quota: Quota,
}

impl Failures {
    /// An address may fail so often in a minute.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            by_address: Limiters::default(),
            quota: Quota::new(
                "failed-logins",
                f64::from(per_minute.get()) / 60.0,
                Some(per_minute.get()),
            ),
        }
    }

    /// Counts a failure.
    ///
    /// # Errors
    /// 429 if that was one too many.
    pub(super) fn count(&self, from: IpAddr) -> Result<(), Problem> {
        self.by_address
            .check(party(from), self.quota, 1)
            .map(|_| ())
    }

    /// Whether another failure would be one too many; counts nothing.
    ///
    /// # Errors
    /// 429 if so.
    pub(super) fn check(&self, from: IpAddr) -> Result<(), Problem> {
        self.by_address.peek(&party(from), self.quota)
    }
}

/// Who has an address: who has one of a /64 has them all.
fn party(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((v6.to_bits() & !u128::from(u64::MAX)).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two addresses are counted together.
    fn is_shared(one: &str, other: &str) -> bool {
        let failures = Failures::new(NonZeroU32::MIN);
        let [one, other] = [one, other].map(|text| text.parse().expect("an address"));
        assert!(failures.check(one).is_ok() && failures.check(other).is_ok());
        assert!(failures.count(one).is_ok());
        assert!(failures.check(one).is_err() && failures.count(one).is_err());
        let is_refused = failures.check(other).is_err();
        assert_eq!(failures.count(other).is_err(), is_refused);
        is_refused
    }

    #[test]
    fn each_address_has_its_own_count() {
        assert!(!is_shared("192.0.2.1", "192.0.2.2"));
        assert!(!is_shared("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!is_shared("192.0.2.1", "2001:db8::1"));
    }

    #[test]
    fn an_address_of_a_64_counts_for_all_of_it_and_a_mapped_one_is_what_it_maps() {
        assert!(is_shared("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(is_shared("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!is_shared("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
    }
}
