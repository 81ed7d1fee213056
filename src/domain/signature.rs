//! Signatures of pushes, after Standard Webhooks 1.0.0
//! (<https://github.com/standard-webhooks/standard-webhooks>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The value of `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over
/// `id.timestamp.body`, once for each secret (two during a rotation), the newest
/// first, with spaces between. `timestamp` is in seconds since 1970.
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn sign(secrets: &[&[u8]], id: &str, timestamp: i64, body: &[u8]) -> String {
    let head = format!("{id}.{timestamp}.");
    let mut signatures = String::with_capacity(secrets.len() * 48);
    for secret in secrets {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(head.as_bytes());
        mac.update(body);
        if !signatures.is_empty() {
            signatures.push(' ');
        }
        signatures.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut signatures);
    }
    signatures
}

/// What a webhook and its receiver share: 24 to 64 bytes. It does not show
/// itself; [`reveal`](Self::reveal) does.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// Bytes of a new one.
    pub const NEW_BYTES: usize = 32;

    const PREFIX: &str = "whsec_";

    /// A new one, of random bytes.
    #[must_use]
    pub fn new(random: [u8; Self::NEW_BYTES]) -> Self {
        Self(random.into())
    }

    /// From its bytes.
    ///
    /// # Errors
    /// What is wrong, without the secret, if they are not 24 to 64.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err("a webhook's secret is 24 to 64 bytes")
        }
    }

    /// From `whsec_` and base64.
    ///
    /// # Errors
    /// What is wrong, without the secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let base64 = text
            .strip_prefix(Self::PREFIX)
            .ok_or("a webhook's secret begins with whsec_")?;
        let bytes = STANDARD
            .decode(base64)
            .map_err(|_| "a webhook's secret is whsec_ and base64")?;
        Self::from_bytes(bytes)
    }

    /// What HMAC is keyed with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret in the form in which the receiver gets it, once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn secret() -> WebhookSecret {
        WebhookSecret::parse(SECRET).expect("a secret")
    }

    #[test]
    fn the_reference_libraries_own_example_is_signed_alike() {
        assert_eq!(
            sign(
                &[secret().as_bytes()],
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                br#"{"email":"test@example.com","username":"test_user"}"#,
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    /// From the specification's text, "Verifying signatures".
    #[test]
    fn the_specifications_example_is_signed_alike() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(
            sign(
                &[secret.expect("a secret").as_bytes()],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#,
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn during_a_rotation_both_secrets_sign() {
        let old = WebhookSecret::new([7; 32]);
        let both = sign(&[secret().as_bytes(), old.as_bytes()], "1", 2, b"x");
        let (new_one, old_one) = both.split_once(' ').expect("two signatures");
        assert_eq!(new_one, sign(&[secret().as_bytes()], "1", 2, b"x"));
        assert_eq!(old_one, sign(&[old.as_bytes()], "1", 2, b"x"));
    }

    #[test]
    fn a_secret_does_not_show() {
        assert!(!format!("{:?}", secret()).contains("C2FV"));
        assert_eq!(secret().reveal(), SECRET);
    }

    #[test]
    fn what_is_not_a_secret_is_refused_without_repeating_it() {
        for text in [
            "",
            "whsec_",
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "whsec_C2FVsBQIhrscChlQIMV",
            "whsec_C2FVsBQIhrscChlQIMV-b5sSYspob7oD",
            &format!("whsec_{}", STANDARD.encode([1; 23])),
            &format!("whsec_{}", STANDARD.encode([1; 65])),
        ] {
            let error = WebhookSecret::parse(text).expect_err(text);
            assert!(!error.contains("C2FV"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn the_reference_library_verifies_every_signature(
            bytes in prop::collection::vec(any::<u8>(), 24..=64), id in "[a-zA-Z0-9_]{1,30}",
            timestamp in 0i64..=4_000_000_000, body in ".{0,200}",
        ) {
            let secret = WebhookSecret::from_bytes(bytes).expect("24 to 64 bytes");
            let reference = Webhook::new(&secret.reveal()).expect("a secret");
            prop_assert_eq!(
                sign(&[secret.as_bytes()], &id, timestamp, body.as_bytes()),
                reference.sign(&id, timestamp, body.as_bytes()).expect("text")
            );
        }
    }
}
