//! Secrets at rest: sealed before they go to the database, which is backed up,
//! replicated and read by more people than those who may know them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use sha2::{Digest as _, Sha256};

/// The first byte of what is sealed; another form would have another.
const VERSION: u8 = 1;
/// Bytes that tell one key from another, so that a wrong key is not taken for
/// damage.
const KEY_ID: usize = 4;
const NONCE: usize = 12;
/// Of Poly1305.
const TAG: usize = 16;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// The key that seals: ChaCha20-Poly1305 (RFC 8439). It does not show itself.
#[derive(Clone)]
pub struct SealingKey {
    cipher: ChaCha20Poly1305,
    id: [u8; KEY_ID],
}

/// Why something sealed does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// Another key sealed it.
    #[error(
        "a secret in the database was sealed with another key than this gateway's: start it with \
         the key file that it had (--secret-key-file), or give the webhook a new secret \
         (rotate-secret)"
    )]
    WrongKey,
    /// Changed, cut, or moved here from somewhere else.
    #[error(
        "a secret in the database is damaged: restore it from a backup, or give the webhook a \
         new secret (rotate-secret)"
    )]
    Damaged,
    /// Made by a newer gateway.
    #[error("a secret in the database was sealed by a newer version of postrider (form {0})")]
    UnknownVersion(u8),
}

impl SealingKey {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// From its bytes.
    #[must_use]
    pub fn new(key: [u8; Self::BYTES]) -> Self {
        let mut id = [0; KEY_ID];
        let digest = Sha256::new()
            .chain_update(b"postrider key id")
            .chain_update(key)
            .finalize();
        id.copy_from_slice(&digest[..KEY_ID]);
        Self {
            cipher: ChaCha20Poly1305::new(&key.into()),
            id,
        }
    }

    /// From text: 64 hex digits, or the 43 or 44 characters of base64; white
    /// space around it does not count.
    ///
    /// # Errors
    /// What is wrong, without the key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let bytes = match text.len() {
            64 => from_hex(text),
            44 => STANDARD
                .decode(text)
                .or_else(|_| URL_SAFE.decode(text))
                .ok(),
            43 => STANDARD_NO_PAD
                .decode(text)
                .or_else(|_| URL_SAFE_NO_PAD.decode(text))
                .ok(),
            _ => None,
        };
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self::new)
            .ok_or("a key is 32 bytes, as 64 hex digits or 44 characters of base64")
    }

    /// Seals: a version byte, the key's id, the nonce, the cipher text and its
    /// tag. `nonce` must be random; `context` says what this is (a queue's id),
    /// and what is sealed opens only with the same.
    ///
    /// # Panics
    /// Never: only a text of 256 GiB is too long.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE], plain: &[u8], context: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEAD + plain.len() + TAG);
        sealed.push(VERSION);
        sealed.extend(self.id);
        sealed.extend(nonce);
        let payload = Payload {
            msg: plain,
            aad: context,
        };
        let encrypted = self.cipher.encrypt(&nonce.into(), payload);
        sealed.extend(encrypted.expect("short enough for the cipher"));
        sealed
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, Unsealable> {
        match sealed.first() {
            Some(&VERSION) if sealed.len() >= HEAD + TAG => {}
            Some(&VERSION) | None => return Err(Unsealable::Damaged),
            Some(&other) => return Err(Unsealable::UnknownVersion(other)),
        }
        if sealed[1..=KEY_ID] != self.id {
            return Err(Unsealable::WrongKey);
        }
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&sealed[1 + KEY_ID..HEAD]);
        let payload = Payload {
            msg: &sealed[HEAD..],
            aad: context,
        };
        self.cipher
            .decrypt(&nonce.into(), payload)
            .map_err(|_| Unsealable::Damaged)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(hidden)")
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn key() -> SealingKey {
        SealingKey::parse(HEX).expect("a key")
    }

    #[test]
    fn a_key_is_read_in_either_form() {
        let sealed = key().seal([1; 12], b"secret", b"7");
        for text in [
            HEX.to_uppercase(),
            format!("  {HEX}\r\n"),
            BASE64.to_owned(),
            BASE64.trim_end_matches('=').to_owned(),
        ] {
            let key = SealingKey::parse(&text).expect("a key");
            assert_eq!(key.open(&sealed, b"7"), Ok(b"secret".to_vec()));
        }
        let last = "w".repeat(64);
        for text in [
            "",
            "s3cret",
            &HEX[1..],
            &BASE64[4..],
            &last,
            &HEX.replace('a', "ä"),
        ] {
            let error = SealingKey::parse(text).expect_err(text);
            assert!(!error.contains("s3cret"));
        }
        assert_eq!(format!("{:?}", key()), "SealingKey(hidden)");
    }

    #[test]
    fn a_wrong_key_is_told_from_damage_and_both_say_what_to_do() {
        let sealed = key().seal([1; 12], b"secret", b"7");
        let wrong = SealingKey::new([9; 32]).open(&sealed, b"7");
        assert_eq!(wrong, Err(Unsealable::WrongKey));
        assert!(
            Unsealable::WrongKey
                .to_string()
                .contains("--secret-key-file")
        );
        assert_eq!(key().open(&sealed, b"8"), Err(Unsealable::Damaged));
        assert_eq!(key().open(&sealed[..20], b"7"), Err(Unsealable::Damaged));
        assert_eq!(key().open(&[], b"7"), Err(Unsealable::Damaged));
        assert_eq!(
            key().open(&[2, 3], b"7"),
            Err(Unsealable::UnknownVersion(2))
        );
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_a_changed_bit_does_not(
            nonce in any::<[u8; 12]>(), plain in prop::collection::vec(any::<u8>(), 0..100),
            context in prop::collection::vec(any::<u8>(), 0..20), at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut sealed = key().seal(nonce, &plain, &context);
            prop_assert_eq!(key().open(&sealed, &context), Ok(plain.clone()));
            if plain.len() > 8 {
                prop_assert!(!sealed.windows(plain.len()).any(|part| part == plain));
            }
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(key().open(&sealed, &context).is_err());
        }
    }
}
