//! Who may do what: checks the API key of every request, before the router sees
//! it.
//!
//! Keys are kept in memory and verified without a wait; only one that is not
//! there, or too old ([`crate::store::KeysVersion`]), is read from the database.
//! What guessing costs is bounded twice: an address that has failed too often is
//! refused without a [look](looks), and of all others few are let look at a time.
//! What is wrong with a key that is refused is not said: unknown, revoked,
//! expired and mistyped look the same.

mod caller;
mod failures;
mod judge;
mod looks;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::http::Request;
use tokio_util::sync::CancellationToken;

pub(crate) use caller::Caller;
use failures::Failures;
use judge::{Bearer, access, bearer, judge};
use looks::Looks;

use super::limits::{Limiters, Quota, Standing};
use super::operations::{Access, Found};
use super::problem::Problem;
use crate::domain::{KeyHasher, NewKey, ShownKey};
use crate::store::{self, ApiKey, Store, StoredKey};

/// Keys in memory; beyond it they are read anew, which only costs time.
const MOST_KEYS: usize = 10_000;

/// How often it is noted which keys were used.
const NOTE_USES: Duration = Duration::from_mins(1);

/// The check of API keys.
pub struct Gate {
    required: bool,
    store: Store,
    hasher: KeyHasher,
    keys: RwLock<HashMap<String, Arc<Known>>>,
    looks: Looks<Result<Looked, store::Error>>,
    failures: Failures,
    /// Requests, by the id of their key.
    requests: Limiters<String>,
}

/// A key in memory.
pub(super) struct Known {
    key: ApiKey,
    hash: [u8; 32],
    previous: Option<([u8; 32], Instant)>,
    good_until: Option<Instant>,
    version: i64,
    read: Instant,
    /// Since it was last noted.
    used: AtomicBool,
}

/// What memory has of a key.
enum Recalled {
    /// All, and it is still so.
    Fresh(Arc<Known>),
    /// That there was one.
    Old,
    Nothing,
}

/// What a look into the database brought.
#[derive(Clone)]
enum Looked {
    Key(Arc<Known>),
    Nothing,
    /// It was not let: whoever asked has failed too often.
    NotLet,
}

/// What was read for a request.
pub(super) enum Read {
    Key(Arc<Known>),
    /// There is no such key.
    Nothing,
    /// It may not guess any more.
    Refused(Problem),
}

/// A key that has to be read.
pub(super) struct Unread {
    id: String,
    from: IpAddr,
}

/// A request's key, and what is left of its rate limit.
pub(super) struct Granted {
    pub(super) known: Arc<Known>,
    pub(super) standing: Option<Box<(Quota, Standing)>>,
}

/// What the gate says to a request.
pub(super) enum Admission {
    /// It may go on; with the key, if keys are asked for.
    Granted(Option<Granted>),
    /// It may not.
    Refused(Problem),
    /// This key has to be read first.
    Unread(Unread),
}

impl From<Result<Granted, Problem>> for Admission {
    fn from(checked: Result<Granted, Problem>) -> Self {
        match checked {
            Ok(granted) => Self::Granted(Some(granted)),
            Err(problem) => Self::Refused(problem),
        }
    }
}

impl Gate {
    /// A gate; not `required`, it lets everybody do everything. An address may
    /// show so many keys a minute that are not known.
    #[must_use]
    pub fn new(
        required: bool,
        store: Store,
        secret: &[u8],
        failures_per_minute: NonZeroU32,
    ) -> Self {
        Self {
            required,
            store,
            hasher: KeyHasher::new(secret),
            keys: RwLock::default(),
            looks: Looks::default(),
            failures: Failures::new(failures_per_minute),
            requests: Limiters::default(),
        }
    }

    /// A new key; a new secret for the key with this id.
    #[must_use]
    pub fn new_key(&self, id: Option<&str>) -> NewKey {
        self.hasher.make(id, rand::random(), rand::random())
    }

    /// Whether the request may go on, as far as memory can tell.
    pub(super) fn admit<B>(
        &self,
        request: &Request<B>,
        found: Option<Found<'_>>,
        from: IpAddr,
    ) -> Admission {
        if !self.required || access(request, found) == Access::Open {
            return Admission::Granted(None);
        }
        let shown = match bearer(request) {
            Bearer::Missing => return Admission::Refused(Problem::key_missing()),
            Bearer::Other => return Admission::Refused(self.failed(from)),
            Bearer::Key(shown) => shown,
        };
        match self.recall(shown.id()) {
            Recalled::Fresh(known) => {
                return self.check(&shown, known, request, found, from).into();
            }
            Recalled::Old => {}
            Recalled::Nothing => {
                if let Err(problem) = self.failures.check(from) {
                    return Admission::Refused(problem);
                }
            }
        }
        let id = shown.id().to_owned();
        Admission::Unread(Unread { id, from })
    }

    /// The same with what was read from the database.
    pub(super) fn admit_read<B>(
        &self,
        read: Read,
        request: &Request<B>,
        found: Option<Found<'_>>,
        from: IpAddr,
    ) -> Result<Granted, Problem> {
        match (read, bearer(request)) {
            (Read::Key(known), Bearer::Key(shown)) => {
                self.check(&shown, known, request, found, from)
            }
            (Read::Refused(problem), _) => Err(problem),
            _ => Err(self.failed(from)),
        }
    }

    fn check<B>(
        &self,
        shown: &ShownKey<'_>,
        known: Arc<Known>,
        request: &Request<B>,
        found: Option<Found<'_>>,
        from: IpAddr,
    ) -> Result<Granted, Problem> {
        if !known.is(shown, &self.hasher) {
            return Err(self.failed(from));
        }
        // Reading is cheaper than writing what is there already.
        if !known.used.load(Ordering::Relaxed) {
            known.used.store(true, Ordering::Relaxed);
        }
        judge(&known.key.scopes, request, found)?;
        let standing = match known.key.rate {
            Some(rate) => {
                let quota = Quota::new("key", rate.per_second, Some(rate.burst));
                let standing = self.requests.check(known.key.id.clone(), quota, 1)?;
                Some(Box::new((quota, standing)))
            }
            None => None,
        };
        Ok(Granted { known, standing })
    }

    /// What becomes of a request with a key that is not good.
    fn failed(&self, from: IpAddr) -> Problem {
        self.failures
            .count(from)
            .err()
            .unwrap_or_else(Problem::key_refused)
    }

    fn recall(&self, id: &str) -> Recalled {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match keys.get(id) {
            None => Recalled::Nothing,
            Some(known) if self.vouches_for(known) => Recalled::Fresh(Arc::clone(known)),
            Some(_) => Recalled::Old,
        }
    }

    /// Whether a key is still as it was read.
    fn vouches_for(&self, known: &Known) -> bool {
        let version = self.store.keys_version();
        version.vouches_for(known.version, known.read)
    }

    /// Reads a key, or waits for somebody who does.
    pub(super) async fn read(&self, unread: &Unread) -> Result<Read, store::Error> {
        let Unread { id, from } = unread;
        let asked = Instant::now();
        loop {
            match self.looks.join(id, self.look(id, *from)).await? {
                // Somebody else's look may have begun before a change that was
                // answered before this request came.
                Looked::Key(known) if known.read >= asked || self.vouches_for(&known) => {
                    return Ok(Read::Key(known));
                }
                Looked::Key(_) => {}
                Looked::Nothing => return Ok(Read::Nothing),
                // It may have been somebody else who was not let.
                Looked::NotLet => {
                    if let Err(problem) = self.failures.check(*from) {
                        return Ok(Read::Refused(problem));
                    }
                }
            }
        }
    }

    /// Reads a key into memory.
    async fn look(&self, id: &str, from: IpAddr) -> Result<Looked, store::Error> {
        let _turn = match self.recall(id) {
            // Since it was asked for.
            Recalled::Fresh(known) => return Ok(Looked::Key(known)),
            Recalled::Old => None,
            Recalled::Nothing => {
                let turn = self.looks.turn().await;
                let turn = turn.ok_or(store::Error::Overloaded)?;
                if self.failures.check(from).is_err() {
                    return Ok(Looked::NotLet);
                }
                Some(turn)
            }
        };
        let read = Instant::now();
        let stored = self.store.api_key(id).await?;
        let mut keys = self
            .keys
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = keys.remove(id);
        let Some(stored) = stored else {
            return Ok(Looked::Nothing);
        };
        let known = Arc::new(Known::new(stored, read, before.as_deref()));
        remember(&mut keys, id, Arc::clone(&known));
        Ok(Looked::Key(known))
    }

    /// Notes once a minute which keys were used, until told to stop.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(NOTE_USES);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first comes at once.
        ticks.tick().await;
        while !stop.is_cancelled() {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => {}
            }
            let used = self.take_used();
            if !used.is_empty()
                && let Err(error) = self.store.note_key_uses(&used).await
            {
                tracing::debug!(%error, "the use of keys was not noted");
            }
        }
    }

    fn take_used(&self) -> Vec<String> {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.iter()
            .filter(|(_, known)| known.used.swap(false, Ordering::Relaxed))
            .map(|(id, _)| id.clone())
            .collect()
    }
}

/// Keeps a key in memory, with no more than [`MOST_KEYS`] others.
fn remember<K>(keys: &mut HashMap<String, K>, id: &str, known: K) {
    if keys.len() >= MOST_KEYS && !keys.contains_key(id) {
        keys.clear();
    }
    keys.insert(id.to_owned(), known);
}

impl Known {
    fn new(stored: StoredKey, read: Instant, before: Option<&Self>) -> Self {
        Self {
            hash: stored.hash,
            // Counted from before the question: never too long.
            previous: stored
                .previous
                .and_then(|(hash, left)| Some((hash, read.checked_add(left)?))),
            good_until: stored.good_for.and_then(|left| read.checked_add(left)),
            version: stored.version,
            read,
            used: AtomicBool::new(before.is_some_and(|b| b.used.load(Ordering::Relaxed))),
            key: stored.key,
        }
    }

    /// The key's id, which is no secret.
    pub(super) fn id(&self) -> &str {
        &self.key.id
    }

    /// Whether this key is the one that was shown, and good.
    fn is(&self, shown: &ShownKey<'_>, hasher: &KeyHasher) -> bool {
        let now = Instant::now();
        if self.good_until.is_some_and(|until| now >= until) {
            return false;
        }
        hasher.matches(shown, &self.hash)
            || self
                .previous
                .is_some_and(|(hash, until)| now < until && hasher.matches(shown, &hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_keys_are_used_memory_has_only_so_many() {
        let mut keys = HashMap::new();
        for n in 0..3 * MOST_KEYS {
            let id = format!("{n:012x}");
            remember(&mut keys, &id, n);
            assert!(keys.len() <= MOST_KEYS, "{}", keys.len());
            assert_eq!(keys[&id], n);
        }
        // One that is read anew takes no more room.
        let before = keys.len();
        let last = format!("{:012x}", 3 * MOST_KEYS - 1);
        remember(&mut keys, &last, 0);
        assert_eq!((keys.len(), keys[&last]), (before, 0));
    }
}
