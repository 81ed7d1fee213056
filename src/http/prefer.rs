//! `Prefer: wait=10` (RFC 7240): how long a client would wait for an answer that is
//! not there yet. A preference that is not understood is none.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

/// The longest that anybody waits, as for a receive.
const LONGEST: u64 = 60;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// For how many seconds to wait. The first `wait` counts.
pub(super) fn wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER);
    let texts = values.iter().filter_map(|value| value.to_str().ok());
    let seconds = texts.flat_map(|text| text.split(',')).find_map(|one| {
        // What follows a semicolon are parameters, and `wait` has none.
        let (name, value) = one.split(';').next()?.split_once('=')?;
        let is_it = name.trim().eq_ignore_ascii_case("wait");
        is_it.then(|| value.trim().trim_matches('"').to_owned())
    })?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|c| c.is_ascii_digit());
    // More digits than a number has are more than enough.
    is_number.then(|| seconds.parse().unwrap_or(LONGEST).min(LONGEST))
}

/// The same as a time.
pub(super) fn time(wait: Option<u64>) -> Duration {
    Duration::from_secs(wait.unwrap_or(0))
}

/// What an answer says that took a preference into account.
pub(super) fn applied(wait: Option<u64>) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(format!("wait={}", wait?)).ok()?;
    Some((PREFERENCE_APPLIED, value))
}

/// An answer that says so.
pub(super) fn with_applied(mut response: Response, wait: Option<u64>) -> Response {
    if let Some((name, value)) = applied(wait) {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_found_among_preferences_and_what_is_none_is_ignored() {
        for (values, expected) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, wait=10"], Some(10)),
            (&["respond-async", "Wait = \"7\""], Some(7)),
            (&["wait=3; foo=bar, wait=9"], Some(3)),
            (&["wait=0"], Some(0)),
            (&["wait=600"], Some(60)),
            (&["wait=99999999999999999999999"], Some(60)),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait="], None),
            (&["wait"], None),
            (&["waiting=1"], None),
            (&["return=minimal"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(PREFER, HeaderValue::from_static(value));
            }
            assert_eq!(wait(&headers), expected, "{values:?}");
        }
    }
}
