//! What a filter asks of a message's headers: exact values, of all the headers
//! it names or of any. Names are compared as they are written, like values; a
//! name or value that no message could carry is refused, since it would only
//! ever be a mistake.

use serde_json::Value;

use super::super::error::quoted;
use super::super::message::{Headers, Limits, is_plain, is_token_char};
use super::{Faults, Mismatch, escaped};

/// Header names and the values they must have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeaderMatch {
    wanted: Headers,
    mode: Mode,
}

/// How many of the headers must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    All,
    Any,
}

impl Mode {
    /// `match`, which is `all` if it is not given.
    pub(super) fn parse(json: Option<&Value>, at: &str, faults: &mut Faults) -> Self {
        match json {
            None => Self::All,
            Some(Value::String(mode)) if mode == "all" => Self::All,
            Some(Value::String(mode)) if mode == "any" => Self::Any,
            Some(_) => {
                faults.add(at, "must be \"all\" or \"any\"");
                Self::All
            }
        }
    }
}

impl HeaderMatch {
    /// `headers`; what is wrong goes to `faults`.
    pub(super) fn parse(json: &Value, mode: Mode, at: &str, faults: &mut Faults) -> Self {
        let mut wanted = Headers::new();
        match json {
            Value::Object(fields) if fields.is_empty() => faults.add(
                at,
                "must name at least one header, such as {\"region\": \"eu\"}; \
                 leave it out to take every message",
            ),
            Value::Object(fields) if fields.len() > Limits::HEADERS => {
                faults.add(at, "must be at most 64 headers");
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let at = format!("{at}/{}", escaped(name));
                    if name.is_empty()
                        || name.len() > Limits::HEADER_NAME
                        || !name.bytes().all(is_token_char)
                    {
                        faults.add(
                            &at,
                            "a header's name must be 1 to 128 of RFC 9110's token characters",
                        );
                    }
                    match value {
                        Value::String(value)
                            if value.len() <= Limits::HEADER_VALUE && is_plain(value) =>
                        {
                            wanted.insert(name.clone(), value.clone());
                        }
                        _ => faults.add(
                            &at,
                            "must be the header's exact value: a string of at most 4096 bytes \
                             without control characters",
                        ),
                    }
                }
            }
            _ => faults.add(
                at,
                "must be an object of header names and values, such as {\"region\": \"eu\"}",
            ),
        }
        Self { wanted, mode }
    }

    pub(super) fn matches(&self, headers: &Headers) -> bool {
        let mut wanted = self.wanted.iter();
        let has = |(name, value): (&String, &String)| headers.get(name) == Some(value);
        match self.mode {
            Mode::All => wanted.all(has),
            Mode::Any => wanted.any(has),
        }
    }

    /// Each header that is not as it should be; none if the whole matches.
    pub(super) fn explain(&self, headers: &Headers) -> Vec<Mismatch> {
        if self.matches(headers) {
            return Vec::new();
        }
        self.wanted
            .iter()
            .filter_map(|(name, value)| {
                let detail = match headers.get(name) {
                    Some(found) if found == value => return None,
                    Some(found) => format!(
                        "the header {} is {}, not {}",
                        quoted(name),
                        quoted(found),
                        quoted(value)
                    ),
                    None => format!("the header {} is missing", quoted(name)),
                };
                Some(Mismatch {
                    part: format!("/headers/{}", escaped(name)),
                    detail,
                })
            })
            .collect()
    }
}
