//! Lists in pages: `?limit=` and an opaque `?cursor=`.

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};

use super::problem::Problem;
use crate::store::Cursor;

/// Checks `?limit=`: 1 to 1,000, by default 100.
pub(crate) fn limit(limit: Option<i64>) -> Result<i64, Problem> {
    match limit {
        None => Ok(100),
        Some(n @ 1..=1000) => Ok(n),
        Some(_) => Err(Problem::bad_request(
            "invalid-query",
            "limit must be from 1 to 1000",
        )),
    }
}

fn invalid() -> Problem {
    Problem::bad_request(
        "invalid-cursor",
        "The cursor is not one that a list gave out: begin without one.",
    )
}

/// A cursor that another list gave out.
pub(crate) fn of_another_list() -> Problem {
    Problem::bad_request("invalid-cursor", "The cursor is of another list.")
}

/// The end of the year 9999.
const LAST_TIME: DateTime<Utc> = DateTime::from_timestamp(253_402_300_799, 0).unwrap();

/// Postgres cannot tell every time that a user can.
pub(crate) fn within_reach(time: DateTime<Utc>) -> DateTime<Utc> {
    time.clamp(DateTime::UNIX_EPOCH, LAST_TIME)
}

/// A cursor over names.
pub(crate) fn name_cursor(text: &str) -> Result<String, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    match bytes.split_first() {
        Some((b'n', name)) => String::from_utf8(name.to_vec())
            .ok()
            .filter(|name| !name.contains('\0'))
            .ok_or_else(invalid),
        _ => Err(invalid()),
    }
}

/// Writes a cursor over names.
pub(crate) fn write_name_cursor(name: &str) -> String {
    URL_SAFE_NO_PAD.encode([b"n", name.as_bytes()].concat())
}

/// A cursor over messages.
pub(crate) fn cursor(text: &str) -> Result<Cursor, Problem> {
    let bytes: [u8; 17] = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(invalid)?;
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        i64::from_be_bytes(eight)
    };
    match bytes[0] {
        b'r' => {
            let priority = i16::try_from(number(1))
                .ok()
                .filter(|p| (-1..=9).contains(p));
            Ok(Cursor::Ready {
                priority: priority.ok_or_else(invalid)?,
                position: number(9),
            })
        }
        b't' => Ok(Cursor::Timed {
            // Within what both chrono and Postgres can tell.
            micros: Some(number(1))
                .filter(|micros| (0..=253_402_300_799_000_000).contains(micros))
                .ok_or_else(invalid)?,
            message_id: number(9),
        }),
        b's' => Ok(Cursor::Stream {
            xid: Some(number(1))
                .filter(|xid| *xid >= 0)
                .ok_or_else(invalid)?,
            message_id: number(9),
        }),
        _ => Err(invalid()),
    }
}

/// Writes a cursor over messages.
pub(crate) fn write_cursor(cursor: Cursor) -> String {
    let (kind, a, b) = match cursor {
        Cursor::Ready { priority, position } => (b'r', i64::from(priority), position),
        Cursor::Timed { micros, message_id } => (b't', micros, message_id),
        Cursor::Stream { xid, message_id } => (b's', xid, message_id),
    };
    let mut bytes = vec![kind];
    bytes.extend(a.to_be_bytes());
    bytes.extend(b.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The `Link` header to the next page: this request with another cursor.
pub(crate) fn link(uri: &Uri, next_cursor: Option<&str>) -> HeaderMap {
    match next_cursor {
        Some(cursor) => link_by("cursor", uri, cursor),
        None => HeaderMap::new(),
    }
}

/// The same for a list whose cursor goes by another name.
pub(crate) fn link_by(parameter: &str, uri: &Uri, cursor: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .filter(|(name, _)| name != parameter)
    {
        query.append_pair(&name, &value);
    }
    query.append_pair(parameter, cursor);
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish());
    if let Ok(value) = HeaderValue::from_str(&link) {
        headers.insert(header::LINK, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_survive_the_round_trip(
            priority in -1i16..=9, position: i64,
            micros in 0i64..253_402_300_799_000_000, message_id: i64,
        ) {
            for c in [
                Cursor::Ready { priority, position },
                Cursor::Timed { micros, message_id },
                Cursor::Stream { xid: micros, message_id },
            ] {
                prop_assert_eq!(cursor(&write_cursor(c)).ok(), Some(c));
            }
        }

        #[test]
        fn garbage_is_no_cursor_and_no_panic(text in "\\PC*") {
            if let Ok(c) = cursor(&text) {
                prop_assert_eq!(write_cursor(c), text);
            }
        }

        #[test]
        fn bytes_that_look_like_a_cursor_are_one_or_refused(
            kind in prop::sample::select(b"rtsnx".to_vec()),
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let text = URL_SAFE_NO_PAD.encode([vec![kind], rest].concat());
            if let Ok(c) = cursor(&text) {
                prop_assert_eq!(write_cursor(c), text.clone());
            }
            if let Ok(name) = name_cursor(&text) {
                prop_assert!(!name.contains('\0'));
                prop_assert_eq!(write_name_cursor(&name), text);
            }
        }

        #[test]
        fn a_link_leads_to_the_same_list_with_another_cursor(
            query in "([a-z]{1,5}=[a-z0-9%+]{0,6}&?){0,4}", next in "[A-Za-z0-9_-]{1,20}",
        ) {
            let uri: Uri = format!("/v1/queues?{query}").parse().expect("a URI");
            let headers = link(&uri, Some(&next));
            let value = headers[header::LINK].to_str().expect("text");
            let target = value.strip_prefix('<').and_then(|v| v.strip_suffix(">; rel=\"next\""));
            let target: Uri = target.expect("a link").parse().expect("a URI");
            let pairs = |uri: &Uri| -> Vec<(String, String)> {
                let query = uri.query().unwrap_or_default().as_bytes();
                url::form_urlencoded::parse(query).into_owned().collect()
            };
            let mut expected = pairs(&uri);
            expected.retain(|(name, _)| name != "cursor");
            expected.push(("cursor".to_owned(), next));
            prop_assert_eq!(pairs(&target), expected);
        }
    }
}
