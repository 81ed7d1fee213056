//! A message as filters see it.

use std::cell::OnceCell;

use serde_json::Value;

use super::super::message::{Headers, Message};
use super::routing_key::{RoutingKey, words};

/// What filters look at of one message. A topic may have thousands of
/// subscriptions: the key is split and the body is parsed at most once, when the
/// first filter asks for it, so a topic without body filters never parses.
#[derive(Debug)]
pub struct Candidate<'a> {
    routing_key: &'a str,
    headers: &'a Headers,
    body: Option<&'a [u8]>,
    words: OnceCell<Vec<&'a str>>,
    parsed: OnceCell<Result<Value, String>>,
}

impl<'a> Candidate<'a> {
    /// A message with these parts; `body` is `None` if it is not JSON.
    #[must_use]
    pub fn new(routing_key: &'a str, headers: &'a Headers, body: Option<&'a [u8]>) -> Self {
        Self {
            routing_key,
            headers,
            body,
            words: OnceCell::new(),
            parsed: OnceCell::new(),
        }
    }

    /// A message; filters look into its body if that is JSON.
    #[must_use]
    pub fn of(message: &'a Message, routing_key: &'a RoutingKey) -> Self {
        let body = match &message.content.content_type {
            None => Some(&message.content.body[..]),
            Some(_) => None,
        };
        Self::new(routing_key.as_str(), &message.headers, body)
    }

    pub(super) fn routing_key(&self) -> &'a str {
        self.routing_key
    }

    pub(super) fn words(&self) -> &[&'a str] {
        self.words.get_or_init(|| words(self.routing_key))
    }

    pub(super) fn headers(&self) -> &'a Headers {
        self.headers
    }

    /// The body, an object, or why there is none to look at: it is not JSON, or not an object,
    /// or more than the parser takes (128 levels, numbers beyond a double).
    pub(super) fn body(&self) -> Result<&Value, &str> {
        let parsed = self.parsed.get_or_init(|| match self.body {
            None => Err("the body is not JSON, so it matches no condition on it".to_owned()),
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| format!("the body cannot be read as JSON: {error}")),
        });
        match parsed {
            Ok(body) if body.is_object() => Ok(body),
            Ok(_) => Err("the body is not a JSON object, so it matches no condition on it"),
            Err(why) => Err(why),
        }
    }
}
