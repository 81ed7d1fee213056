//! Requests: messages that ask for a reply.
//!
//! A request's correlation id holds all that there is to know of it besides its
//! message: a random number that nobody can guess, the queue, how long the reply is
//! waited for, and when to give up asking for it. So a request that has no reply
//! yet takes no row of its own, any gateway can tell a pending one from one that
//! never was, and whoever has the id, and nobody else, can read the reply.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::name::QueueName;
use super::seconds::Seconds;

/// A message that asks for a reply, as its correlation id describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Drawn at random.
    pub id: u128,
    /// How long its sender waits for the reply, from when it was stored.
    pub timeout: Seconds,
    /// When there is no use any more in asking for the reply, by the database's
    /// clock: the deadline and a little more.
    pub over_at: DateTime<Utc>,
    /// Where it was published.
    pub queue: QueueName,
}

impl Asked {
    /// How long its sender waits who does not say.
    pub const TIMEOUT: Seconds = Seconds::new(30);
    /// The longest that one can wait: what takes longer is a job, and its answer a
    /// message of its own.
    pub const LONGEST_TIMEOUT: Seconds = Seconds::new(3600);
    /// How long a reply can be read after the request was over.
    pub const KEPT: Seconds = Seconds::new(300);
    /// From the deadline until the request is over. A publish may wait for its turn
    /// for as long before it is stored, from which on the deadline counts.
    pub const GRACE: Seconds = Seconds::new(2);

    /// A request that is made now, by the database's clock.
    #[must_use]
    pub fn new(id: u128, queue: QueueName, timeout: Seconds, now: DateTime<Utc>) -> Self {
        let millis = timeout.as_millis() + Self::GRACE.as_millis();
        Self {
            id,
            timeout,
            over_at: now + Duration::milliseconds(millis),
            queue,
        }
    }

    /// Until when it may be answered, if it was stored then.
    #[must_use]
    pub fn deadline(&self, enqueued_at: DateTime<Utc>) -> DateTime<Utc> {
        enqueued_at + Duration::milliseconds(self.timeout.as_millis())
    }

    /// Until when its reply can be read.
    #[must_use]
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.over_at + Duration::milliseconds(Self::KEPT.as_millis())
    }
}

/// Turns requests into correlation ids and back: `req_` and base64url of a version
/// byte, the random number, the two times, the queue's name, and eight bytes of
/// HMAC-SHA256 over them.
#[derive(Clone)]
pub struct RequestKey(Hmac<Sha256>);

/// How the correlation ids of requests begin.
const PREFIX: &str = "req_";
const VERSION: u8 = 1;
/// Version, random number, end and time-out in milliseconds.
const FIXED: usize = 1 + 16 + 8 + 4;
const MAC: usize = 8;
/// What the secret is used for here, so that nothing else signed with it fits.
const PURPOSE: &[u8] = b"postrider request\0";

impl std::fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestKey")
    }
}

impl RequestKey {
    /// From the secret that all gateways of a database share.
    ///
    /// # Panics
    /// Never: HMAC takes a key of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let mut mac: Hmac<Sha256> =
            Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        Self(mac)
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(signed);
        mac
    }

    /// The correlation id of a request.
    #[must_use]
    pub fn seal(&self, asked: &Asked) -> String {
        let name = asked.queue.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(FIXED + name.len() + MAC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&asked.id.to_be_bytes());
        bytes.extend_from_slice(&asked.over_at.timestamp_millis().to_be_bytes());
        // An hour of milliseconds at most.
        let timeout = u32::try_from(asked.timeout.as_millis()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&timeout.to_be_bytes());
        bytes.extend_from_slice(name);
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The request of a correlation id; `None` for anything that [`Self::seal`] with
    /// the same secret did not write.
    #[must_use]
    pub fn open(&self, correlation_id: &str) -> Option<Asked> {
        let text = correlation_id.strip_prefix(PREFIX)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
        // In constant time: how much of a guess is right must not be heard.
        self.mac(signed).verify_truncated_left(mac).ok()?;
        let (version, rest) = signed.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (over_at, rest) = rest.split_first_chunk()?;
        let (timeout, name) = rest.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        (*version == VERSION).then_some(())?;
        Some(Asked {
            id: u128::from_be_bytes(*id),
            timeout: Seconds::from_millis(u32::from_be_bytes(*timeout).into()),
            over_at: DateTime::from_timestamp_millis(i64::from_be_bytes(*over_at))?,
            queue: QueueName::parse(name, "").ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(id: u128, millis: i64, timeout: u32, queue: &str) -> Asked {
        Asked {
            id,
            timeout: Seconds::from_millis(timeout.into()),
            over_at: DateTime::from_timestamp_millis(millis).expect("a time"),
            queue: QueueName::parse(queue, "").expect("a name"),
        }
    }

    proptest! {
        #[test]
        fn requests_survive_the_round_trip(
            id: u128, millis in 0i64..4_000_000_000_000, timeout: u32, queue in "[a-z][a-z0-9-]{0,79}",
        ) {
            let key = RequestKey::new(b"secret");
            let asked = asked(id, millis, timeout, &queue);
            let sealed = key.seal(&asked);
            // What a correlation id may be.
            prop_assert!(sealed.len() <= super::super::message::Limits::TEXT);
            prop_assert_eq!(key.open(&sealed), Some(asked));
        }

        #[test]
        fn one_changed_character_makes_it_nobodys(
            id: u128, at in 4usize..60, other in "[A-Za-z0-9_-]",
        ) {
            let key = RequestKey::new(b"secret");
            let sealed = key.seal(&asked(id, 1_700_000_000_000, 30_000, "orders"));
            let mut changed = sealed.clone();
            prop_assume!(at < sealed.len());
            changed.replace_range(at..=at, &other);
            prop_assume!(changed != sealed);
            prop_assert_eq!(key.open(&changed), None);
        }

        #[test]
        fn garbage_is_no_request(text in "(req_)?[A-Za-z0-9_-]{0,90}|\\PC*") {
            prop_assert_eq!(RequestKey::new(b"secret").open(&text), None);
        }
    }

    #[test]
    fn another_databases_request_is_none() {
        let sealed = RequestKey::new(b"one").seal(&asked(7, 0, 1, "orders"));
        assert_eq!(RequestKey::new(b"other").open(&sealed), None);
    }

    #[test]
    fn a_request_is_over_a_little_after_its_deadline_and_read_for_longer() {
        let now = DateTime::from_timestamp_millis(0).expect("a time");
        let queue = QueueName::parse("orders", "").expect("a name");
        let asked = Asked::new(1, queue, Seconds::new(10), now);
        assert_eq!(asked.deadline(now).timestamp_millis(), 10_000);
        assert_eq!(asked.over_at.timestamp_millis(), 12_000);
        assert_eq!(asked.expires_at().timestamp_millis(), 312_000);
    }
}
