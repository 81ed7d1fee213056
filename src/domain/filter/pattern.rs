//! Topic patterns of AMQP 0-9-1: `*` stands for exactly one word, `#` for any
//! number of them, none included; a star or hash inside a longer word is an
//! ordinary character, as in `RabbitMQ`.
//!
//! Matching is that of file globs, over words: after a `#`, walk on, and on a
//! mismatch let the last `#` take one word more. An earlier `#` never has to be
//! tried again, because whatever follows the last one could take over its words.
//! So it takes at most (words of the key + 1) × (words of the pattern + 1)
//! steps, whoever wrote the pattern.

use super::super::error::quoted;
use super::routing_key::{acceptable, words};

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pattern {
    text: String,
    words: Vec<Word>,
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// This one.
    Literal(String),
    /// `*`
    One,
    /// `#`
    Any,
}

impl Pattern {
    /// Compiles a pattern, or says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !acceptable(text) {
            return Err(format!(
                "{} is not a pattern: at most 255 bytes without control characters, \
                 such as \"orders.*.created\" or \"orders.#\"",
                quoted(text)
            ));
        }
        let mut compiled: Vec<Word> = words(text)
            .into_iter()
            .map(|word| match word {
                "*" => Word::One,
                "#" => Word::Any,
                word => Word::Literal(word.to_owned()),
            })
            .collect();
        compiled.dedup_by(|a, b| *a == Word::Any && *b == Word::Any);
        Ok(Self {
            text: text.to_owned(),
            words: compiled,
        })
    }

    /// The pattern as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a key of these words matches.
    pub(super) fn matches(&self, key: &[&str]) -> bool {
        self.walk(key).0
    }

    /// Whether it matches, and in how many steps that was found out.
    fn walk(&self, key: &[&str]) -> (bool, usize) {
        let (mut at, mut word, mut steps) = (0, 0, 0);
        // Of the last `#`: the place after it, and the first word it leaves.
        let mut last: Option<(usize, usize)> = None;
        loop {
            steps += 1;
            match (self.words.get(at), key.get(word)) {
                (Some(Word::Any), _) => {
                    at += 1;
                    last = Some((at, word));
                    continue;
                }
                (Some(Word::One), Some(_)) => {
                    (at, word) = (at + 1, word + 1);
                    continue;
                }
                (Some(Word::Literal(literal)), Some(found)) if literal == found => {
                    (at, word) = (at + 1, word + 1);
                    continue;
                }
                (None, None) => return (true, steps),
                // Words of the pattern are left that need words of the key.
                (Some(_), None) => return (false, steps),
                (_, Some(_)) => {}
            }
            let Some((after, leaves)) = last else {
                return (false, steps);
            };
            last = Some((after, leaves + 1));
            (at, word) = (after, leaves + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word; exponential.
    fn naive(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", pattern)), None) => naive(pattern, key),
            (Some((&"#", rest)), Some((_, key_rest))) => {
                naive(rest, key) || naive(pattern, key_rest)
            }
            (None, Some(_)) | (Some(_), None) => false,
            (Some((word, pattern)), Some((found, key))) => {
                (*word == "*" || word == found) && naive(pattern, key)
            }
        }
    }

    fn matches(pattern: &str, key: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&words(key))
    }

    proptest! {
        #[test]
        fn it_matches_what_the_definition_matches(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "*", "#"]), 0..8),
            key in prop::collection::vec(prop::sample::select(vec!["a", "b", "", "*", "#"]), 0..10),
        ) {
            let (pattern, key) = (pattern.join("."), key.join("."));
            prop_assert_eq!(
                matches(&pattern, &key),
                naive(&words(&pattern), &words(&key)),
                "{} on {}", pattern, key
            );
        }

        #[test]
        fn any_text_is_a_pattern_or_refused_by_its_length_or_a_control_character(
            text in "\\PC{0,200}", control in "[\\x00-\\x1f\\x7f]",
        ) {
            let parsed = Pattern::parse(&text);
            prop_assert_eq!(parsed.is_ok(), text.len() <= 255);
            if let Ok(pattern) = parsed {
                prop_assert_eq!(pattern.as_str(), text.as_str());
            }
            prop_assert!(Pattern::parse(&("a".to_owned() + &control)).is_err());
        }

        #[test]
        fn steps_are_at_most_words_times_words(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "*", "#"]), 0..60),
            key in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..120),
        ) {
            let compiled = Pattern::parse(&pattern.join(".")).unwrap();
            let (_, steps) = compiled.walk(&key);
            prop_assert!(steps <= (pattern.len() + 1) * (key.len() + 1), "{steps} steps");
        }
    }

    #[test]
    fn patterns_of_the_specification() {
        for (pattern, key, expected) in [
            ("*.stock.#", "usd.stock", true),
            ("*.stock.#", "eur.stock.db", true),
            ("*.stock.#", "stock.nasdaq", false),
            ("orders.us.#", "orders.eu", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("*", "", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("", "", true),
            ("", "a", false),
            ("a.*", "a.", true),
            ("a.#", "a", true),
            ("a.#.#.b", "a.b", true),
            ("#.*", "", false),
            ("#.*", "a", true),
            ("*.#.*", "a", false),
            ("a*", "ab", false),
            ("a*", "a*", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern:?} on {key:?}");
        }
    }

    #[test]
    fn a_nasty_pattern_takes_few_steps() {
        let nasty = "#.a.".repeat(60) + "#.b";
        let key = vec!["a"; 127];
        let pattern = Pattern::parse(&nasty).unwrap();
        let (matched, steps) = pattern.walk(&key);
        assert!(!matched);
        assert!(steps <= 122 * 128, "{steps} steps");
    }

    #[test]
    fn a_pattern_is_at_most_255_bytes_without_control_characters() {
        assert!(Pattern::parse(&"x".repeat(255)).is_ok());
        assert!(Pattern::parse(&"x".repeat(256)).is_err());
        assert!(Pattern::parse("a\n").is_err());
    }
}
