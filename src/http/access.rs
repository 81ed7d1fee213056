//! Who may do what: checks the API key of every request, before the router sees
//! it.
//!
//! Keys are kept in memory and verified without a wait; only one that is not
//! there, or too old ([`crate::store::KeysVersion`]), is read from the database.
//! What is wrong with a key that is refused is not said: unknown, revoked,
//! expired and mistyped look the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Request, header};
use tokio_util::sync::CancellationToken;

use super::SharedGateway;
use super::failed_logins::FailedLogins;
use super::operations::{Access, Found, Kind};
use super::problem::Problem;
use crate::domain::{KeyHasher, Need, NewKey, QueueName, Scopes, ShownKey, Verb, Verdict};
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
    failures: FailedLogins,
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

/// What the gate says to a request.
pub(super) enum Admission {
    /// It may go on; with the key, if keys are asked for.
    Granted(Option<Arc<Known>>),
    /// It may not.
    Refused(Problem),
    /// The key with this id has to be read first.
    Unread(String),
}

impl From<Result<Arc<Known>, Problem>> for Admission {
    fn from(checked: Result<Arc<Known>, Problem>) -> Self {
        match checked {
            Ok(known) => Self::Granted(Some(known)),
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
            failures: FailedLogins::new(failures_per_minute),
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
            Recalled::Fresh(known) => self.check(&shown, known, request, found, from).into(),
            Recalled::Old => Admission::Unread(shown.id().to_owned()),
            Recalled::Nothing => match self.failures.count(from) {
                Ok(()) => Admission::Unread(shown.id().to_owned()),
                Err(seconds) => Admission::Refused(Problem::too_many_failures(seconds)),
            },
        }
    }

    /// The same with the key that was read from the database.
    pub(super) fn admit_read<B>(
        &self,
        read: Option<Arc<Known>>,
        request: &Request<B>,
        found: Option<Found<'_>>,
        from: IpAddr,
    ) -> Result<Arc<Known>, Problem> {
        match (read, bearer(request)) {
            (Some(known), Bearer::Key(shown)) => self.check(&shown, known, request, found, from),
            // The look was counted.
            _ => Err(Problem::key_refused()),
        }
    }

    fn check<B>(
        &self,
        shown: &ShownKey<'_>,
        known: Arc<Known>,
        request: &Request<B>,
        found: Option<Found<'_>>,
        from: IpAddr,
    ) -> Result<Arc<Known>, Problem> {
        if !known.is(shown, &self.hasher) {
            return Err(self.failed(from));
        }
        // Reading is cheaper than writing what is there already.
        if !known.used.load(Ordering::Relaxed) {
            known.used.store(true, Ordering::Relaxed);
        }
        judge(&known.key.scopes, request, found)?;
        Ok(known)
    }

    fn failed(&self, from: IpAddr) -> Problem {
        match self.failures.count(from) {
            Ok(()) => Problem::key_refused(),
            Err(seconds) => Problem::too_many_failures(seconds),
        }
    }

    fn recall(&self, id: &str) -> Recalled {
        let keys = self
            .keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match keys.get(id) {
            None => Recalled::Nothing,
            Some(known) if (self.store.keys_version()).vouches_for(known.version, known.read) => {
                Recalled::Fresh(Arc::clone(known))
            }
            Some(_) => Recalled::Old,
        }
    }

    /// Reads a key into memory.
    pub(super) async fn read(&self, id: &str) -> Result<Option<Arc<Known>>, store::Error> {
        let read = Instant::now();
        let stored = self.store.api_key(id).await?;
        let mut keys = self
            .keys
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = keys.remove(id);
        let Some(stored) = stored else {
            return Ok(None);
        };
        if keys.len() >= MOST_KEYS {
            keys.clear();
        }
        let known = Arc::new(Known::new(stored, read, before.as_deref()));
        keys.insert(id.to_owned(), Arc::clone(&known));
        Ok(Some(known))
    }

    /// Notes once a minute which keys were used, and forgets what is of no use,
    /// until told to stop.
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
            self.failures.forget_old();
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

/// What the request needs. Where there is no operation the router will refuse
/// it; under `/v1` only after a key was shown.
fn access<B>(request: &Request<B>, found: Option<Found<'_>>) -> Access {
    match found {
        Some(found) => found.operation.access,
        None if request.uri().path().starts_with("/v1") => Access::Key,
        None => Access::Open,
    }
}

/// What stands behind `Authorization: Bearer`.
enum Bearer<'r> {
    /// There is no such header.
    Missing,
    /// No key, or more than one.
    Other,
    Key(ShownKey<'r>),
}

fn bearer<B>(request: &Request<B>) -> Bearer<'_> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let only = match (values.next(), values.next()) {
        (None, _) => return Bearer::Missing,
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    only.and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| ShownKey::parse(key.trim())).flatten()
    })
    .map_or(Bearer::Other, Bearer::Key)
}

/// Whether a key with these scopes may do what the request asks for.
fn judge<B>(
    scopes: &Scopes,
    request: &Request<B>,
    found: Option<Found<'_>>,
) -> Result<(), Problem> {
    let (need, scope) = match access(request, found) {
        Access::Open => return Ok(()),
        Access::Key => (Need::Key, String::new()),
        Access::Monitor => (Need::Monitor, "monitor".to_owned()),
        Access::Admin => (Need::Admin, "admin".to_owned()),
        access @ (Access::Seen | Access::Named(_)) => {
            let named = found.and_then(|found| found.name());
            // What is no name is not there for anybody: the endpoint says why.
            let Some((kind, name)) = named else {
                return Ok(());
            };
            let Ok(name) = QueueName::parse(&name, "") else {
                return Ok(());
            };
            let makes = found.is_some_and(|found| found.operation.makes);
            return judge_named(scopes, access, kind, &name, makes);
        }
    };
    match scopes.judge(need) {
        Verdict::Allowed => Ok(()),
        Verdict::Forbidden | Verdict::Hidden => Err(Problem::scope_missing(&scope)),
    }
}

fn judge_named(
    scopes: &Scopes,
    access: Access,
    kind: Kind,
    name: &QueueName,
    makes: bool,
) -> Result<(), Problem> {
    let (need, scope) = match access {
        Access::Named(verb) => (Need::Named(verb, name), format!("{}:{name}", verb.as_str())),
        _ => (Need::Seen(name), String::new()),
    };
    match scopes.judge(need) {
        Verdict::Allowed => Ok(()),
        // What would make it cannot say that it is missing.
        Verdict::Hidden if !makes => Err(match kind {
            Kind::Queue => Problem::queue_not_found(name),
            Kind::Topic => Problem::topic_not_found(name),
        }),
        Verdict::Hidden | Verdict::Forbidden => Err(Problem::scope_missing(&scope)),
    }
}

/// Whose request it is: what an endpoint asks before it touches what the path
/// does not name.
#[derive(Clone)]
pub(crate) struct Caller(
    /// Without a key everything is allowed.
    Option<Arc<Known>>,
);

impl Caller {
    /// With this key.
    pub(super) fn new(key: Arc<Known>) -> Self {
        Self(Some(key))
    }

    /// Refuses what the key may not do, as if there were no such queue if it
    /// does not see it.
    pub(crate) fn check_queue(&self, verb: Verb, name: &QueueName) -> Result<(), Problem> {
        let Some(known) = &self.0 else {
            return Ok(());
        };
        let access = Access::Named(verb);
        judge_named(&known.key.scopes, access, Kind::Queue, name, false)
    }

    /// Refuses to make the own queue of a subscription that it does not manage.
    pub(crate) fn check_own_queue(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
    ) -> Result<(), Problem> {
        // What would be no name is refused where it is made.
        match QueueName::parse(&format!("{topic}.{subscription}"), "") {
            Ok(queue) => self
                .check_queue(Verb::Manage, &queue)
                .map_err(|_| Problem::scope_missing(&format!("manage:{queue}"))),
            Err(_) => Ok(()),
        }
    }

    /// The patterns of the names that it sees; `None` is all.
    pub(crate) fn patterns(&self) -> Option<Vec<String>> {
        self.0
            .as_ref()
            .and_then(|known| known.key.scopes.patterns())
    }
}

impl FromRequestParts<SharedGateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &SharedGateway,
    ) -> Result<Self, Problem> {
        match parts.extensions.get::<Self>() {
            Some(caller) => Ok(caller.clone()),
            None if gateway.gate.required => Err(Problem::key_missing()),
            None => Ok(Self(None)),
        }
    }
}
