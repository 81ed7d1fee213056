//! Idempotency keys: what a client sends along so that a request that it repeats
//! has its effect once.

use sha2::{Digest as _, Sha256};

/// Characters of a key, at most.
const LONGEST: usize = 255;

/// A client's key: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// What a header holds that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKey;

impl IdempotencyKey {
    /// Reads the value of the header `Idempotency-Key`: the characters as they are,
    /// or between quotes as draft-ietf-httpapi-idempotency-key-header-07 has them
    /// (a string of RFC 9651, in which a backslash stands before `"` and `\`). Both
    /// are the same key.
    ///
    /// # Errors
    /// [`NoKey`] for anything else.
    pub fn parse(value: &[u8]) -> Result<Self, NoKey> {
        let key = match value {
            [b'"', inner @ .., b'"'] => unquoted(inner)?,
            [b'"', ..] => return Err(NoKey),
            bare => bare.to_vec(),
        };
        let is_key = (1..=LONGEST).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
        match String::from_utf8(key) {
            Ok(key) if is_key => Ok(Self(key)),
            _ => Err(NoKey),
        }
    }

    /// What stands for this key where it is looked up: a key of one caller, for one
    /// operation on one name, is no other's.
    #[must_use]
    pub fn digest(&self, caller: &str, operation: &str, names: &[&str]) -> [u8; 32] {
        let mut hash = Sha256::new();
        let parts = [caller, operation, &self.0];
        for part in parts.iter().chain(names) {
            absorb(&mut hash, part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// The characters between quotes.
fn unquoted(inner: &[u8]) -> Result<Vec<u8>, NoKey> {
    let mut key = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Err(NoKey),
            b'\\' => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => key.push(*escaped),
                _ => return Err(NoKey),
            },
            plain => key.push(*plain),
        }
    }
    Ok(key)
}

/// With its length, so that no two lists of parts look the same.
fn absorb(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

/// What a request asks for, in 32 bytes: of its body, and of what it says in headers.
#[must_use]
pub fn fingerprint<'a>(
    body: &[u8],
    properties: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> [u8; 32] {
    let mut properties: Vec<_> = properties.into_iter().collect();
    // Headers come in any order; those of one name in theirs.
    properties.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    absorb(&mut hash, body);
    for (name, value) in properties {
        absorb(&mut hash, name.as_bytes());
        absorb(&mut hash, value);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(value: &str) -> Result<String, NoKey> {
        IdempotencyKey::parse(value.as_bytes()).map(|key| key.0)
    }

    #[test]
    fn quoted_or_not_it_is_the_same_key() {
        assert_eq!(key("8e03978e-40d5"), Ok("8e03978e-40d5".into()));
        assert_eq!(key("\"8e03978e-40d5\""), Ok("8e03978e-40d5".into()));
        assert_eq!(key(r#""a\"b\\c""#), Ok(r#"a"b\c"#.into()));
        assert_eq!(key(r#"a"b\c"#), Ok(r#"a"b\c"#.into()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(256);
        for value in [
            "",
            "\"",
            "\"\"",
            "\"a",
            "\"a\"b\"",
            r#""a\b""#,
            r#""a\""#,
            "a b",
            "\"a b\"",
            "a\tb",
            "é",
            "\"é\"",
            "\"a\";b=1",
            &long,
        ] {
            assert_eq!(key(value), Err(NoKey), "{value}");
        }
        assert_eq!(key(&long[1..]), Ok(long[1..].into()));
        assert_eq!(key(&format!("\"{}\"", &long[1..])), Ok(long[1..].into()));
    }

    #[test]
    fn keys_of_others_are_others() {
        let key = IdempotencyKey("k".into());
        let digests = [
            key.digest("", "publish", &["orders"]),
            key.digest("a", "publish", &["orders"]),
            key.digest("", "redrive", &["orders"]),
            key.digest("", "publish", &["order", "s"]),
            key.digest("", "publish", &[]),
            IdempotencyKey("l".into()).digest("", "publish", &["orders"]),
        ];
        for (at, one) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(one), "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_visible_characters_are_a_key(text in "[!#-~][!-~]{0,254}") {
            prop_assert_eq!(key(&text), Ok(text.clone()));
            let quoted = format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
            prop_assert_eq!(key(&quoted), Ok(text));
        }

        #[test]
        fn the_order_of_headers_does_not_matter(
            body in any::<Vec<u8>>(),
            mut properties in proptest::collection::btree_map("[a-z-]{1,9}", any::<Vec<u8>>(), 0..5)
        ) {
            let of = |properties: &mut dyn Iterator<Item = (&String, &Vec<u8>)>| {
                fingerprint(&body, properties.map(|(n, v)| (n.as_str(), &v[..])).collect::<Vec<_>>())
            };
            let there = of(&mut properties.iter());
            prop_assert_eq!(there, of(&mut properties.iter().rev()));
            properties.insert("another".into(), Vec::new());
            prop_assert_ne!(there, of(&mut properties.iter()));
        }
    }
}
