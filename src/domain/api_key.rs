//! API keys as they are written: `pr_`, an id of 12 hexadecimal digits, `_`, and
//! a secret of 48 (192 random bits).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A key that somebody showed, well-formed; whether it is good is another matter.
#[derive(Clone, Copy)]
pub struct ShownKey<'a> {
    id: &'a str,
    secret: &'a str,
}

const PREFIX: &str = "pr_";
const ID_DIGITS: usize = 12;
const SECRET_BYTES: usize = 24;

impl<'a> ShownKey<'a> {
    /// Parses a key.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str, digits| {
            text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        };
        (is_hex(id, ID_DIGITS) && is_hex(secret, 2 * SECRET_BYTES)).then_some(Self { id, secret })
    }

    /// The part that is no secret.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }
}

/// A new key, to be shown once.
pub struct NewKey {
    /// Its id.
    pub id: String,
    /// The whole of it.
    pub key: String,
    /// What is stored of it.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Makes and compares the hashes that are stored of keys.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    /// From the secret that all gateways of a database share.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let new = |key: &[u8]| {
            Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length")
        };
        // The secret authenticates receipts too: another key for another use.
        let mut derived = new(secret);
        derived.update(b"postrider API keys");
        Self(new(&derived.finalize().into_bytes()))
    }

    fn mac(&self, id: &str, secret: &str) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(id.as_bytes());
        mac.update(b"_");
        mac.update(secret.as_bytes());
        mac
    }

    /// Whether `hash` is the key's; takes the same time for every wrong key.
    #[must_use]
    pub fn matches(&self, key: &ShownKey<'_>, hash: &[u8; 32]) -> bool {
        self.mac(key.id, key.secret).verify_slice(hash).is_ok()
    }

    /// A key of random bytes, with an id that it has already if it is a rotation.
    #[must_use]
    pub fn make(
        &self,
        id: Option<&str>,
        random_id: [u8; ID_DIGITS / 2],
        random: [u8; SECRET_BYTES],
    ) -> NewKey {
        let id = id.map_or_else(|| hex(&random_id), str::to_owned);
        let secret = hex(&random);
        NewKey {
            hash: self.mac(&id, &secret).finalize().into_bytes().into(),
            key: format!("{PREFIX}{id}_{secret}"),
            id,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_its_own_and_no_other(
            id: [u8; 6], secret: [u8; 24], at in 16usize..64, other in "[0-9a-f]",
        ) {
            let hasher = KeyHasher::new(b"secret");
            let made = hasher.make(None, id, secret);
            let shown = ShownKey::parse(&made.key).expect("well-formed");
            prop_assert_eq!(shown.id(), &made.id);
            prop_assert!(hasher.matches(&shown, &made.hash));
            prop_assert!(!KeyHasher::new(b"another").matches(&shown, &made.hash));
            let mut changed = made.key.clone();
            changed.replace_range(at..=at, &other);
            prop_assume!(changed != made.key);
            let changed = ShownKey::parse(&changed).expect("well-formed");
            prop_assert!(!hasher.matches(&changed, &made.hash));
        }

        #[test]
        fn what_is_not_a_key_is_not_parsed(text in "\\PC*") {
            prop_assert!(ShownKey::parse(&text).is_none());
        }
    }

    #[test]
    fn keys_have_one_form() {
        let made = KeyHasher::new(b"").make(Some("0123456789ab"), [0; 6], [0xab; 24]);
        assert_eq!(made.key, format!("pr_0123456789ab_{}", "ab".repeat(24)));
        assert!(!format!("{made:?}").contains("abab"));
        for wrong in [
            made.key.to_uppercase(),
            format!("{} ", made.key),
            made.key[..made.key.len() - 1].to_owned(),
            format!("{}0", made.key),
            made.key.replace("pr_", "pk_"),
        ] {
            assert!(ShownKey::parse(&wrong).is_none(), "{wrong}");
        }
    }
}
