//! Consumer claims: what they are called, and who holds them.

use std::fmt;

use super::error::Error;
use super::id;
use super::message::is_plain;

/// What a consumer calls a thing that must be done once: 1 to 255 characters, none
/// of them a control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey(String);

impl ClaimKey {
    /// Characters of a key.
    pub const LENGTH: usize = 255;

    /// Parses a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer`.
    pub fn parse(key: &str, pointer: &str) -> Result<Self, Error> {
        if !key.is_empty() && key.chars().count() <= Self::LENGTH && is_plain(key) {
            Ok(Self(key.to_owned()))
        } else {
            Err(Error::invalid(
                pointer,
                "must be 1 to 255 characters without control characters",
            ))
        }
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that scopes go by: what stands before the first colon.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

/// Who has taken a claim: a number that grows with each taking. Shown as `clm_` and
/// thirteen digits, like the ids of messages, so that a later one sorts behind an
/// earlier one as text, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimToken(pub i64);

const PREFIX: &str = "clm_";

impl ClaimToken {
    /// Parses what [`fmt::Display`] wrote.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer` for anything else.
    pub fn parse(text: &str, pointer: &str) -> Result<Self, Error> {
        let number = text.strip_prefix(PREFIX).and_then(id::number);
        number
            .map(Self)
            .ok_or_else(|| Error::invalid(pointer, "is not the token of a claim"))
    }
}

impl fmt::Display for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        id::write(f, self.0)
    }
}

impl serde::Serialize for ClaimToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_survive_the_round_trip_and_sort_as_they_were_drawn(a in 0i64.., b in 0i64..) {
            let text = ClaimToken(a).to_string();
            prop_assert_eq!(ClaimToken::parse(&text, ""), Ok(ClaimToken(a)));
            prop_assert_eq!(text.cmp(&ClaimToken(b).to_string()), a.cmp(&b));
        }

        #[test]
        fn garbage_is_no_token(text in "(clm_)?[0-9a-zA-Z]{0,14}|\\PC*") {
            if let Ok(token) = ClaimToken::parse(&text, "") {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }

    #[test]
    fn keys_are_short_text_without_control_characters() {
        let longest = "é".repeat(255);
        for key in ["a", "orders:42", "a/b c", "ключ", longest.as_str()] {
            assert_eq!(ClaimKey::parse(key, "").expect(key).as_str(), key);
        }
        let too_long = "x".repeat(256);
        for key in ["", "a\0", "a\n", "\u{85}", too_long.as_str()] {
            assert!(ClaimKey::parse(key, "").is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_keys_name_stands_before_its_first_colon() {
        for (key, name) in [
            ("orders", "orders"),
            ("orders:42", "orders"),
            ("orders:a:b", "orders"),
            (":42", ""),
            ("a/b:c", "a/b"),
        ] {
            assert_eq!(ClaimKey::parse(key, "").expect(key).name(), name);
        }
    }
}
