//! A message to be published: parsed once, valid from then on.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::error::{Error, Invalid};
use super::seconds::Seconds;

/// Headers of a message, string to string.
pub type Headers = BTreeMap<String, String>;

/// The bytes of a body and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Byte for byte what was published.
    pub body: Bytes,
    /// `None` for a JSON value.
    pub content_type: Option<String>,
}

/// A message as its publisher described it. [`Message::check`] makes it valid
/// for a queue or topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Body and content type.
    pub content: Content,
    /// The publisher's headers.
    pub headers: Headers,
    /// Ordering and partition key.
    pub key: Option<String>,
    /// Whether it takes turns with other keys; the queue's word if the publisher
    /// did not say.
    pub fair: Option<bool>,
    /// 0 to 9, 9 first.
    pub priority: i16,
    /// Delay; the queue's if the publisher did not say.
    pub delay: Option<Seconds>,
    /// Or the time of delivery.
    pub deliver_at: Option<DateTime<Utc>>,
    /// Time to live; the queue's if the publisher did not say.
    pub ttl: Option<Seconds>,
    /// A second publish with the same id stores nothing.
    pub dedup_id: Option<String>,
    /// The publisher's own.
    pub correlation_id: Option<String>,
    /// Where the publisher wants the answer.
    pub reply_to: Option<String>,
    /// W3C Trace Context.
    pub traceparent: Option<String>,
    /// W3C Trace Context.
    pub tracestate: Option<String>,
    /// The version of the schema that the body was checked with; `None`: there is no
    /// schema.
    pub schema_version: Option<i32>,
}

impl Message {
    /// A message of which nothing else is said.
    #[must_use]
    pub fn new(content: Content, headers: Headers) -> Self {
        Self {
            content,
            headers,
            key: None,
            fair: None,
            priority: 0,
            delay: None,
            deliver_at: None,
            ttl: None,
            dedup_id: None,
            correlation_id: None,
            reply_to: None,
            traceparent: None,
            tracestate: None,
            schema_version: None,
        }
    }
}

/// Bounds of a message's parts.
pub struct Limits;

impl Limits {
    /// Headers a message.
    pub const HEADERS: usize = 64;
    /// Characters of a header's name.
    pub const HEADER_NAME: usize = 128;
    /// Bytes of a header's value.
    pub const HEADER_VALUE: usize = 4096;
    /// Bytes of a key, dedup id, correlation id, reply-to.
    pub const TEXT: usize = 256;
    /// Bytes of a content type.
    pub const CONTENT_TYPE: usize = 256;
    /// Messages a batch.
    pub const BATCH: usize = 1000;
}

impl Message {
    /// Checks a key that stands by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer`.
    pub fn check_key(key: &str, pointer: &str) -> Result<(), Error> {
        if is_text(key) {
            Ok(())
        } else {
            Err(Error::invalid(pointer, TEXT_RULE))
        }
    }

    /// Checks the message against the most bytes that its queue or topic takes.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_size(&self, max_bytes: u32, at: &str) -> Result<(), Error> {
        let (size, limit) = (self.content.body.len(), max_bytes as usize);
        if size <= limit {
            return Ok(());
        }
        Err(Error::TooLarge {
            pointer: format!("{at}/body"),
            size,
            limit,
        })
    }

    /// Checks the message against the rules and the most bytes that its queue or
    /// topic takes. `at` is the JSON pointer of the message in the request (empty
    /// if it is the whole), `now` the time for the bound on `deliver_at`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::Invalid`] with each part that is wrong.
    pub fn check(&self, max_bytes: u32, at: &str, now: DateTime<Utc>) -> Result<(), Error> {
        self.check_size(max_bytes, at)?;
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, field: &str, detail: &str| {
            if !holds {
                wrong.push(Invalid {
                    pointer: format!("{at}/{field}"),
                    detail: detail.to_owned(),
                });
            }
        };
        demand(
            (0..=9).contains(&self.priority),
            "priority",
            "must be from 0 to 9",
        );
        if let Some(delay) = self.delay {
            demand(
                (Seconds::ZERO..=Seconds::YEAR).contains(&delay),
                "delay_seconds",
                "must be from 0 to 31536000 (365 days)",
            );
            demand(
                self.deliver_at.is_none(),
                "deliver_at",
                "not together with delay_seconds",
            );
        }
        if let Some(ttl) = self.ttl {
            demand(
                (Seconds::from_millis(1)..=Seconds::YEAR).contains(&ttl),
                "ttl_seconds",
                "must be from 0.001 to 31536000 (365 days)",
            );
        }
        if let Some(time) = self.deliver_at {
            demand(
                time.signed_duration_since(now).num_days() <= 365,
                "deliver_at",
                "must be at most 365 days ahead",
            );
        }
        for (field, text) in [
            ("key", &self.key),
            ("dedup_id", &self.dedup_id),
            ("correlation_id", &self.correlation_id),
            ("reply_to", &self.reply_to),
        ] {
            if let Some(text) = text {
                demand(is_text(text), field, TEXT_RULE);
            }
        }
        if let Some(content_type) = &self.content.content_type {
            demand(
                !content_type.is_empty()
                    && content_type.len() <= Limits::CONTENT_TYPE
                    && content_type.bytes().all(|c| (b' '..=b'~').contains(&c)),
                "content_type",
                "must be 1 to 256 printable ASCII characters, such as text/plain",
            );
        }
        demand(
            self.headers.len() <= Limits::HEADERS,
            "headers",
            "must be at most 64",
        );
        for (name, value) in self.headers.iter().take(Limits::HEADERS) {
            let field = format!("headers/{}", name.replace('~', "~0").replace('/', "~1"));
            demand(
                !name.is_empty()
                    && name.len() <= Limits::HEADER_NAME
                    && name.bytes().all(is_token_char),
                &field,
                "a header's name must be 1 to 128 of RFC 9110's token characters",
            );
            demand(
                value.len() <= Limits::HEADER_VALUE && is_plain(value),
                &field,
                "a header's value must be at most 4096 bytes without control characters",
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(wrong))
        }
    }
}

/// What keys and ids must be.
const TEXT_RULE: &str = "must be 1 to 256 bytes without control characters";

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= Limits::TEXT && is_plain(text)
}

/// No NUL, CR, LF or other control characters.
pub(super) fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token_char(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}
