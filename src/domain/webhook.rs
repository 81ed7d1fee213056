//! A webhook's settings: defaults beside the fields, ranges in one place, and
//! which headers are not a user's to set.

use std::collections::BTreeMap;

use super::breaker::BreakerSettings;
use super::error::{Error, Invalid};
use super::seconds::Seconds;

/// All settings of a webhook, valid once [checked](Self::check).
///
/// What its URL may be is not checked here: that is a matter of addresses, and
/// of what its gateway allows.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// Where to push to.
    pub url: String,
    /// Headers to send along.
    pub headers: BTreeMap<String, String>,
    /// How long a push may take in all.
    pub timeout: Seconds,
    /// Pushes on their way at a time.
    pub max_in_flight: u32,
    /// Pushes a second; `None` for no bound.
    pub rate_limit_per_second: Option<f64>,
    /// When to stop for a while.
    pub circuit_breaker: BreakerSettings,
    /// For how long nothing but failures is borne.
    pub disable_after: Seconds,
}

/// Whether a webhook is pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookStatus {
    /// It is.
    Active,
    /// Somebody paused it.
    Paused,
    /// The gateway gave it up.
    Disabled,
}

/// Why the gateway gave a webhook up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisableReason {
    /// The endpoint answered 410 Gone.
    Gone,
    /// Nothing but failures for `disable_after`.
    Failing,
}

impl WebhookStatus {
    /// Its name in answers and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

impl DisableReason {
    /// Its name in answers and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

impl Default for WebhookSettings {
    /// All defaults, without a URL.
    fn default() -> Self {
        Self {
            url: String::new(),
            headers: BTreeMap::new(),
            timeout: Seconds::new(15),
            max_in_flight: 10,
            rate_limit_per_second: None,
            circuit_breaker: BreakerSettings::default(),
            disable_after: Seconds::new(5 * 86_400),
        }
    }
}

/// Headers that describe the push or the connection: the gateway sets them, and
/// one that is set twice means different things to different receivers.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Families of such headers.
const RESERVED_PREFIXES: &[&str] = &["webhook-", "proxy-", "postrider-"];

impl WebhookSettings {
    /// Custom headers, at most.
    pub const MAX_HEADERS: usize = 32;
    /// Bytes of a custom header's name, at most.
    pub const MAX_HEADER_NAME: usize = 128;
    /// Bytes of a custom header's value, at most: room for a signed token.
    pub const MAX_HEADER_VALUE: usize = 4096;

    /// Checks every range and every header.
    ///
    /// # Errors
    /// [`Error::Invalid`] with each setting that is not acceptable.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, pointer: &str, detail: &str| {
            if !holds {
                wrong.push(Invalid {
                    pointer: pointer.to_owned(),
                    detail: detail.to_owned(),
                });
            }
        };
        demand(
            (Seconds::from_millis(100)..=Seconds::new(300)).contains(&self.timeout),
            "/timeout_seconds",
            "must be from 0.1 to 300",
        );
        demand(
            (1..=1000).contains(&self.max_in_flight),
            "/max_in_flight",
            "must be from 1 to 1000",
        );
        demand(
            self.rate_limit_per_second
                .is_none_or(|rate| (0.01..=100_000.0).contains(&rate)),
            "/rate_limit_per_second",
            "must be from 0.01 to 100000, or null for no bound",
        );
        demand(
            (Seconds::new(60)..=Seconds::YEAR).contains(&self.disable_after),
            "/disable_after_seconds",
            "must be from 60 to 31536000 (365 days)",
        );
        demand(
            self.headers.len() <= Self::MAX_HEADERS,
            "/headers",
            "must be at most 32",
        );
        self.check_headers(&mut wrong);
        self.circuit_breaker.check("/circuit_breaker", &mut wrong);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(wrong))
        }
    }

    fn check_headers(&self, wrong: &mut Vec<Invalid>) {
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in self.headers.iter().take(Self::MAX_HEADERS) {
            let lower = name.to_ascii_lowercase();
            let detail = if !is_header_name(name) {
                Some("a header's name must be 1 to 128 of RFC 9110's token characters")
            } else if is_reserved(&lower) {
                Some("the gateway sets this header itself")
            } else if seen.contains(&lower) {
                Some("this header is there already, in other letters")
            } else if !is_header_value(value) {
                Some("a header's value must be at most 4096 visible ASCII characters")
            } else {
                None
            };
            if let Some(detail) = detail {
                let name = name.replace('~', "~0").replace('/', "~1");
                wrong.push(Invalid {
                    pointer: format!("/headers/{name}"),
                    detail: detail.to_owned(),
                });
            }
            seen.push(lower);
        }
    }

    /// Whether an endpoint that has done nothing but fail since
    /// `failing_since` is given up at `now`, both in milliseconds of the
    /// database's clock.
    #[must_use]
    pub fn gives_up(&self, failing_since: i64, now: i64) -> bool {
        now.saturating_sub(failing_since) >= self.disable_after.as_millis()
    }
}

/// What the sealed secret of a queue's webhook is bound to: it opens for no
/// other.
#[must_use]
pub fn secret_context(queue_id: i64) -> Vec<u8> {
    format!("postrider webhook secret {queue_id}").into_bytes()
}

fn is_reserved(lower: &str) -> bool {
    RESERVED.contains(&lower)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| lower.starts_with(prefix))
}

/// RFC 9110, section 5.6.2.
fn is_header_name(name: &str) -> bool {
    (1..=WebhookSettings::MAX_HEADER_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
}

/// RFC 9110, section 5.5, without the bytes that it calls obsolete; no space at
/// either end, which a receiver would strip.
fn is_header_value(value: &str) -> bool {
    value.len() <= WebhookSettings::MAX_HEADER_VALUE
        && value
            .bytes()
            .all(|c| c == b'\t' || (b' '..=b'~').contains(&c))
        && value.trim_matches([' ', '\t']) == value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut WebhookSettings)) -> Vec<String> {
        let mut settings = WebhookSettings::default();
        change(&mut settings);
        match settings.check() {
            Ok(()) => Vec::new(),
            Err(Error::Invalid(parts)) => parts.into_iter().map(|part| part.pointer).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    fn with_header(name: &str, value: &str) -> Vec<String> {
        with(|s| {
            s.headers.insert(name.to_owned(), value.to_owned());
        })
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(with(|_| {}).is_empty());
    }

    #[test]
    fn every_range_has_two_ends() {
        let seconds = Seconds::from_millis;
        for (timeout, fits) in [(99, false), (100, true), (300_000, true), (300_001, false)] {
            assert_eq!(
                with(|s| s.timeout = seconds(timeout)).is_empty(),
                fits,
                "{timeout}"
            );
        }
        for (most, fits) in [(0, false), (1, true), (1000, true), (1001, false)] {
            assert_eq!(with(|s| s.max_in_flight = most).is_empty(), fits, "{most}");
        }
        for (rate, fits) in [
            (0.0, false),
            (0.01, true),
            (100_000.0, true),
            (100_001.0, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
            (-1.0, false),
        ] {
            let wrong = with(|s| s.rate_limit_per_second = Some(rate));
            assert_eq!(wrong.is_empty(), fits, "{rate}");
        }
        for (after, fits) in [
            (59, false),
            (60, true),
            (31_536_000, true),
            (31_536_001, false),
        ] {
            let wrong = with(|s| s.disable_after = Seconds::new(after));
            assert_eq!(wrong.is_empty(), fits, "{after}");
        }
    }

    #[test]
    fn headers_of_the_push_and_of_the_connection_are_refused_in_any_spelling() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Keep-Alive",
            "TE",
            "Trailer",
            "Upgrade",
            "Expect",
            "Content-Type",
            "Webhook-Id",
            "webhook-anything",
            "Proxy-Authorization",
            "Postrider-Queue",
        ] {
            assert_eq!(with_header(name, "x"), [format!("/headers/{name}")]);
        }
        for name in [
            "Authorization",
            "X-Api-Key",
            "Cookie",
            "x-webhook-id",
            "Accept",
        ] {
            assert!(with_header(name, "x").is_empty(), "{name}");
        }
    }

    #[test]
    fn what_would_end_a_header_early_is_refused() {
        for value in [
            "a\r\nb: c",
            "a\nb",
            "a\rb",
            "a\0b",
            "\u{7f}",
            "ü",
            " a",
            "a ",
            &"x".repeat(4097),
        ] {
            assert_eq!(with_header("x-a", value), ["/headers/x-a"], "{value:?}");
        }
        for name in ["", "a b", "a:b", "a\r\nb", "ü", &"x".repeat(129)] {
            assert_eq!(with_header(name, "x").len(), 1, "{name:?}");
        }
        assert_eq!(with_header("a/~b", "x"), ["/headers/a~1~0b"]);
        assert!(with_header("x-a", "Bearer a, b;c=\"d\"\te").is_empty());
    }

    #[test]
    fn a_header_may_not_be_there_twice() {
        let wrong = with(|s| {
            for name in ["X-A", "x-a"] {
                s.headers.insert(name.to_owned(), "x".to_owned());
            }
        });
        assert_eq!(wrong, ["/headers/x-a"]);
    }

    #[test]
    fn at_most_32_headers_are_taken() {
        let many = |n: usize| {
            with(|s| s.headers = (0..n).map(|n| (format!("x-{n}"), String::new())).collect())
        };
        assert!(many(32).is_empty());
        assert_eq!(many(33), ["/headers"]);
    }

    #[test]
    fn an_endpoint_is_given_up_when_the_time_is_over() {
        let settings = WebhookSettings {
            disable_after: Seconds::new(60),
            ..WebhookSettings::default()
        };
        assert!(!settings.gives_up(1000, 60_999));
        assert!(settings.gives_up(1000, 61_000));
    }
}
