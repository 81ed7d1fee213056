//! Names of queues, topics and subscriptions.

use serde::Serialize;

use super::error::{Error, quoted};

/// A valid name of a queue, and of a topic or subscription, which follow the
/// same rule: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct QueueName(String);

impl QueueName {
    /// The pattern, as the API documents it.
    pub const PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$";

    /// Parses a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer` if it does not match [`Self::PATTERN`]
    /// or contains `..`.
    pub fn parse(name: &str, pointer: &str) -> Result<Self, Error> {
        let mut chars = name.bytes();
        let valid = name.len() <= 80
            && chars
                .next()
                .is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_')
            && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
            && !name.contains("..");
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::invalid(
                pointer,
                format!(
                    "{} is not a name: 1 to 80 letters, digits, '_', '.' and '-', \
                     beginning with a letter, digit or '_', without '..'",
                    quoted(name)
                ),
            ))
        }
    }

    /// Whether the name belongs to the gateway itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with("system.")
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_follows_the_rule_is_a_name_and_stays_as_it_is(
            first in "[A-Za-z0-9_]", words in prop::collection::vec("[A-Za-z0-9_-]{1,8}", 0..8),
        ) {
            let name = [vec![first], words].concat().join(".");
            let parsed = QueueName::parse(&name, "queue").expect("a name");
            prop_assert_eq!(parsed.as_str(), name);
        }

        #[test]
        fn one_character_of_another_kind_is_enough_to_refuse(
            before in "[a-z]{1,20}", other in "[^A-Za-z0-9_.-]", after in "[a-z]{0,20}",
        ) {
            let name = format!("{before}{other}{after}");
            prop_assert!(QueueName::parse(&name, "queue").is_err(), "{}", name);
        }

        #[test]
        fn a_name_needs_no_escaping_anywhere(name in "\\PC{1,90}") {
            if let Ok(parsed) = QueueName::parse(&name, "queue") {
                prop_assert!(parsed.as_str().len() <= 80);
                prop_assert!(!parsed.as_str().contains(['/', '%', '"', '\\', '*', ' ']));
                prop_assert!(!parsed.as_str().contains(".."));
            }
        }
    }

    #[test]
    fn names_follow_the_pattern() {
        for name in ["a", "_", "0", "orders.eu-1_x", &"x".repeat(80)] {
            assert!(QueueName::parse(name, "queue").is_ok(), "{name}");
        }
        for name in [
            "",
            ".a",
            "-a",
            "a/b",
            "a b",
            "a..b",
            "..",
            "a\0",
            "ü",
            "a\u{202e}b",
            &"x".repeat(81),
        ] {
            assert!(QueueName::parse(name, "queue").is_err(), "{name}");
        }
    }
}
