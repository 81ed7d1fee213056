//! `Retry-After`: how long a receiver asks to be left alone.

use chrono::{DateTime, Utc};

use super::seconds::Seconds;

/// The wait that a `Retry-After` asks for (RFC 9110, section 10.2.3): a number
/// of seconds, or an HTTP date in any of its three forms, seen from `now`.
///
/// `None` for anything else, negative and fractional numbers included, which
/// counts as no such header. A date in the past is no wait; a wait of more than
/// a year is a year, and the caller has a cap of its own.
#[must_use]
pub fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Seconds> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // Only a number too long for an i64 fails.
        let seconds = value.parse::<i64>().unwrap_or(i64::MAX);
        return Some(Seconds::new(seconds.min(Seconds::YEAR.as_millis() / 1000)));
    }
    let date: DateTime<Utc> = httpdate::parse_http_date(value).ok()?.into();
    let wait = date.signed_duration_since(now).num_milliseconds();
    Some(Seconds::from_millis(wait).clamp(Seconds::ZERO, Seconds::YEAR))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example.
    fn then() -> DateTime<Utc> {
        DateTime::from_timestamp(784_111_777, 0).expect("a time")
    }

    #[test]
    fn seconds_and_all_three_forms_of_a_date_are_understood() {
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            (" 5\t", 5),
            ("000007", 7),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
            ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
            ("Sun Nov  6 08:50:37 1994", 60),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 0),
            ("99999999999999999999999999", 31_536_000),
            ("9223372036854775807", 31_536_000),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 31_536_000),
        ] {
            let wait = retry_after(value, then());
            assert_eq!(wait, Some(Seconds::new(seconds)), "{value}");
        }
    }

    #[test]
    fn anything_else_counts_as_no_header() {
        for value in [
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "1e3",
            "0x10",
            "1 2",
            "soon",
            "NaN",
            "\u{661}",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 99 Nov 1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(retry_after(value, then()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_receiver_sends_the_wait_is_bounded(value in ".{0,60}") {
            if let Some(wait) = retry_after(&value, then()) {
                prop_assert!((Seconds::ZERO..=Seconds::YEAR).contains(&wait));
            }
        }

        #[test]
        fn a_date_is_as_far_away_as_it_says(ahead in 0i64..=31_536_000) {
            let date = then() + chrono::TimeDelta::seconds(ahead);
            let value = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(retry_after(&value, then()), Some(Seconds::new(ahead)));
            prop_assert_eq!(retry_after(&ahead.to_string(), then()), Some(Seconds::new(ahead)));
        }
    }
}
