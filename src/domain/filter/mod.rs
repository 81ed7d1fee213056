//! The filters of subscriptions: which messages of a topic a queue gets.
//!
//! A filter has up to three parts, all of which must match: a [`pattern`] for the
//! routing key, values of [`headers`], and a [`policy`] for the body. It is parsed
//! and compiled once, when a subscription changes, and then asked for every message;
//! so what is costly or can fail happens in [`Filter::parse`], and matching can
//! neither fail nor take more than (what the filter names) × (what the message has).
//!
//! `matches` and `explain` are two functions, since a publish must not pay for
//! sentences; a property test holds them together.

mod candidate;
mod condition;
mod headers;
mod number;
mod parse_policy;
mod pattern;
mod policy;
mod routing_key;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::error::{Error, Invalid, quoted};

pub use candidate::Candidate;
use headers::{HeaderMatch, Mode};
use pattern::Pattern;
use policy::Policy;
pub use routing_key::RoutingKey;

/// A subscription's filter, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    json: Value,
    routing_key: Option<Pattern>,
    headers: Option<HeaderMatch>,
    body: Option<Policy>,
}

/// A part of a filter that a message does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// JSON pointer into the filter, such as `/headers/shop`.
    pub part: String,
    /// What the message has there and what the filter wants.
    pub detail: String,
}

impl Filter {
    /// Compiles `{"routing_key": .., "headers": {..}, "match": "all" or "any",
    /// "body": {..}}`, in which every part may be missing or null. `at` is the
    /// filter's JSON pointer in the request.
    ///
    /// # Errors
    /// [`Error::Invalid`] with each part that is wrong (the first
    /// [`Faults::MOST`] of them), unknown ones included.
    pub fn parse(json: &Value, at: &str) -> Result<Self, Error> {
        let Value::Object(fields) = json else {
            return Err(Error::invalid(
                at,
                "must be an object with routing_key, headers, match, body, or {} to take \
                 every message",
            ));
        };
        let mut faults = Faults::default();
        for name in fields.keys() {
            if !["routing_key", "headers", "match", "body"].contains(&name.as_str()) {
                faults.add(
                    format!("{at}/{}", escaped(name)),
                    format!(
                        "{} is unknown; a filter has routing_key, headers, match, body",
                        quoted(name)
                    ),
                );
            }
        }
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let routing_key = given("routing_key").and_then(|json| {
            json.as_str()
                .ok_or_else(|| {
                    "must be a pattern such as \"orders.*.created\" or \"orders.#\"".to_owned()
                })
                .and_then(Pattern::parse)
                .map_err(|detail| faults.add(format!("{at}/routing_key"), detail))
                .ok()
        });
        let match_at = format!("{at}/match");
        let mode = Mode::parse(given("match"), &match_at, &mut faults);
        let headers = given("headers")
            .map(|json| HeaderMatch::parse(json, mode, &format!("{at}/headers"), &mut faults));
        if headers.is_none() && given("match").is_some() {
            faults.add(
                match_at,
                "says how many headers must match, and there are none; add headers or \
                 leave it out",
            );
        }
        let body =
            given("body").map(|json| parse_policy::parse(json, &format!("{at}/body"), &mut faults));
        faults.none_or(Self {
            json: json.clone(),
            routing_key,
            headers,
            body,
        })
    }

    /// The filter of a subscription that gives none.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            json: Value::Object(Map::new()),
            routing_key: None,
            headers: None,
            body: None,
        }
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_json(&self) -> &Value {
        &self.json
    }

    /// Whether the subscription gets the message.
    #[must_use]
    pub fn matches(&self, message: &Candidate<'_>) -> bool {
        // Cheapest first.
        self.routing_key
            .as_ref()
            .is_none_or(|pattern| pattern.matches(message.words()))
            && self
                .headers
                .as_ref()
                .is_none_or(|headers| headers.matches(message.headers()))
            && self
                .body
                .as_ref()
                .is_none_or(|policy| message.body().is_ok_and(|body| policy.matches(Some(body))))
    }

    /// Each part that does not match: none if the subscription gets the message.
    #[must_use]
    pub fn explain(&self, message: &Candidate<'_>) -> Vec<Mismatch> {
        let mut mismatches = Vec::new();
        if let Some(pattern) = &self.routing_key
            && !pattern.matches(message.words())
        {
            mismatches.push(Mismatch {
                part: "/routing_key".to_owned(),
                detail: format!(
                    "routing_key {} does not match the pattern {}",
                    quoted(message.routing_key()),
                    quoted(pattern.as_str())
                ),
            });
        }
        if let Some(headers) = &self.headers {
            mismatches.extend(headers.explain(message.headers()));
        }
        if let Some(policy) = &self.body {
            match message.body() {
                Ok(body) => policy.explain(Some(body), "/body", &mut mismatches),
                Err(why) => mismatches.push(Mismatch {
                    part: "/body".to_owned(),
                    detail: why.to_owned(),
                }),
            }
        }
        mismatches
    }
}

/// What is wrong with a filter, as far as it has been read.
#[derive(Debug, Default)]
struct Faults(Vec<Invalid>);

impl Faults {
    /// More than these are not reported: an answer is for reading.
    const MOST: usize = 50;

    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.0.len() < Self::MOST {
            self.0.push(Invalid {
                pointer: pointer.into(),
                detail: detail.into(),
            });
        }
    }

    fn none_or<T>(self, parsed: T) -> Result<T, Error> {
        if self.0.is_empty() {
            Ok(parsed)
        } else {
            Err(Error::Invalid(self.0))
        }
    }
}

/// A name as a JSON pointer has it (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
