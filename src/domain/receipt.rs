//! Receipts: what a consumer shows to settle a delivery.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::error::Error;

/// One lease of one message, as the database knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The queue's internal id.
    pub queue_id: i64,
    /// The message.
    pub message_id: i64,
    /// The lease's own random number, never 0.
    pub token: i64,
    /// Which attempt this is, 1 first.
    pub attempt: u32,
}

/// Turns leases into receipts and back: base64url of a version byte, the four
/// numbers, and eight bytes of HMAC-SHA256 over them.
///
/// The MAC tells a receipt that was damaged or made up from one that is merely
/// old, without a look into the database; the token decides the rest.
#[derive(Clone)]
pub struct ReceiptKey(Hmac<Sha256>);

const VERSION: u8 = 1;
const SIGNED: usize = 1 + 8 + 8 + 8 + 4;
const LENGTH: usize = SIGNED + 8;

impl ReceiptKey {
    /// From the secret that all gateways of a database share.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(signed);
        mac
    }

    /// The receipt for a lease.
    #[must_use]
    pub fn seal(&self, lease: &Lease) -> String {
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&lease.queue_id.to_be_bytes());
        bytes[9..17].copy_from_slice(&lease.message_id.to_be_bytes());
        bytes[17..25].copy_from_slice(&lease.token.to_be_bytes());
        bytes[25..29].copy_from_slice(&lease.attempt.to_be_bytes());
        let mac = self.mac(&bytes[..SIGNED]).finalize().into_bytes();
        bytes[SIGNED..].copy_from_slice(&mac[..LENGTH - SIGNED]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The lease of a receipt.
    ///
    /// # Errors
    /// [`Error::ReceiptMalformed`] for anything that [`Self::seal`] with the
    /// same secret did not write.
    ///
    /// # Panics
    /// Never: the slices have the lengths they are read with.
    pub fn open(&self, receipt: &str) -> Result<Lease, Error> {
        let mut bytes = [0; LENGTH];
        let length = URL_SAFE_NO_PAD
            .decode_slice(receipt, &mut bytes)
            .map_err(|_| Error::ReceiptMalformed)?;
        if length != LENGTH || bytes[0] != VERSION {
            return Err(Error::ReceiptMalformed);
        }
        // In constant time: how much of a guess is right must not be heard.
        self.mac(&bytes[..SIGNED])
            .verify_truncated_left(&bytes[SIGNED..])
            .map_err(|_| Error::ReceiptMalformed)?;
        let number = |at: usize| {
            i64::from_be_bytes(
                bytes[at..at + 8]
                    .try_into()
                    .expect("eight bytes were cut out"),
            )
        };
        Ok(Lease {
            queue_id: number(1),
            message_id: number(9),
            token: number(17),
            attempt: u32::from_be_bytes(bytes[25..29].try_into().expect("four bytes were cut out")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn receipts_survive_the_round_trip(
            queue_id: i64, message_id: i64, token: i64, attempt: u32,
        ) {
            let key = ReceiptKey::new(b"secret");
            let lease = Lease { queue_id, message_id, token, attempt };
            prop_assert_eq!(key.open(&key.seal(&lease)), Ok(lease));
        }

        #[test]
        fn one_changed_character_is_malformed(
            message_id: i64, at in 0usize..50, other in "[A-Za-z0-9_-]",
        ) {
            let key = ReceiptKey::new(b"secret");
            let lease = Lease { queue_id: 1, message_id, token: 5, attempt: 1 };
            let receipt = key.seal(&lease);
            let mut changed = receipt.clone();
            changed.replace_range(at..=at, &other);
            prop_assume!(changed != receipt);
            prop_assert_eq!(key.open(&changed), Err(Error::ReceiptMalformed));
        }

        #[test]
        fn one_flipped_bit_is_malformed(
            queue_id: i64, message_id: i64, token: i64, attempt: u32, bit in 0..LENGTH * 8,
        ) {
            let key = ReceiptKey::new(b"secret");
            let receipt = key.seal(&Lease { queue_id, message_id, token, attempt });
            let mut bytes = URL_SAFE_NO_PAD.decode(receipt).expect("base64");
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(key.open(&flipped), Err(Error::ReceiptMalformed));
        }

        #[test]
        fn a_receipt_has_one_spelling(message_id: i64, more in "[A-Za-z0-9_=-]{1,4}", cut in 1usize..50) {
            let key = ReceiptKey::new(b"secret");
            let receipt = key.seal(&Lease { queue_id: 1, message_id, token: 5, attempt: 1 });
            for other in [
                format!("{receipt}{more}"),
                format!("{more}{receipt}"),
                receipt[..cut].to_owned(),
                receipt[cut..].to_owned(),
                receipt.replace('-', "+").replace('_', "/") + "=",
            ] {
                prop_assert_eq!(key.open(&other), Err(Error::ReceiptMalformed), "{}", other);
            }
        }

        #[test]
        fn garbage_is_malformed(text in "\\PC*") {
            let key = ReceiptKey::new(b"secret");
            prop_assert_eq!(key.open(&text), Err(Error::ReceiptMalformed));
        }
    }

    #[test]
    fn another_databases_receipt_is_malformed() {
        let lease = Lease {
            queue_id: 1,
            message_id: 2,
            token: 3,
            attempt: 1,
        };
        let receipt = ReceiptKey::new(b"one").seal(&lease);
        assert_eq!(
            ReceiptKey::new(b"other").open(&receipt),
            Err(Error::ReceiptMalformed)
        );
    }
}
