//! Routing keys, and how they fall into words.

use serde::Serialize;

use super::super::error::{Error, quoted};
use super::super::message::is_plain;

/// A valid routing key: words separated by dots, such as `orders.eu.created`;
/// at most 255 bytes (as in AMQP 0-9-1) and no control characters. The empty
/// key is what a publisher has that gives none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RoutingKey(String);

impl RoutingKey {
    /// Longest key, and longest pattern, in bytes: AMQP's short string.
    pub const MAX_BYTES: usize = 255;

    /// Parses a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer` if it is too long or holds a control
    /// character.
    pub fn parse(key: &str, pointer: &str) -> Result<Self, Error> {
        if acceptable(key) {
            Ok(Self(key.to_owned()))
        } else {
            Err(Error::invalid(
                pointer,
                format!(
                    "{} is not a routing key: at most 255 bytes without control characters",
                    quoted(key)
                ),
            ))
        }
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for RoutingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule that keys and patterns share.
pub(super) fn acceptable(text: &str) -> bool {
    text.len() <= RoutingKey::MAX_BYTES && is_plain(text)
}

/// The words of a key or of a pattern, as `RabbitMQ` splits them: the empty
/// text has none, every other has one more than it has dots, so that words may
/// be empty (`a..b` has three).
pub(super) fn words(text: &str) -> Vec<&str> {
    if text.is_empty() {
        Vec::new()
    } else {
        text.split('.').collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_at_most_255_bytes_without_control_characters() {
        for key in ["", "a", "orders.eu", "..", "ü.*.#", &"x".repeat(255)] {
            assert_eq!(
                RoutingKey::parse(key, "/routing_key").unwrap().as_str(),
                key
            );
        }
        for key in ["a\n", "a\0b", "\u{7f}", &"x".repeat(256), &"ü".repeat(128)] {
            let Err(Error::Invalid(wrong)) = RoutingKey::parse(key, "/routing_key") else {
                panic!("{key:?} was taken");
            };
            assert_eq!(wrong[0].pointer, "/routing_key");
        }
    }

    #[test]
    fn words_are_split_as_rabbitmq_does() {
        assert_eq!(words(""), Vec::<&str>::new());
        assert_eq!(words("a"), ["a"]);
        assert_eq!(words("a.b"), ["a", "b"]);
        assert_eq!(words("a..b"), ["a", "", "b"]);
        assert_eq!(words("."), ["", ""]);
    }
}
