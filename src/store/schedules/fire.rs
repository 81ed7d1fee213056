//! Ticks of schedules that are due: each has its message once.
//!
//! In one transaction the row of the schedule is locked, the message stored, and
//! `next_run` moved on, by the database's clock. So whichever gateway comes first
//! does it, another finds nothing to do, and one that dies leaves all as it was.
//!
//! A tick that cannot be published (the queue is gone or full, or has another
//! schema now) is noted in `last_error` and is over: what the clock brings comes
//! again.
//!
//! A schedule that this gateway cannot read, since a newer one has made it, stays as
//! it is. It is looked at again every second, and as long as there is one nothing
//! before it is known to be done with ([`Looked`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::super::arrived::{Arrived, LookUp, Reason, Requests};
use super::super::lookback::{Forgetting, Lookback};
use super::super::transaction::{End, Transaction};
use super::super::{Error, Logged, Store};
use super::{SCHEDULES_DONE, SCHEDULES_DUE, SCHEDULES_NEXT, Schedule, schedule};
use crate::domain::Message;

/// Schedules that are dealt with in one transaction.
const SCHEDULES: i64 = 50;

/// Ticks of one schedule, and bytes of bodies, in one transaction.
const TICKS: usize = 100;
const BYTES: usize = 4 * 1024 * 1024;

/// Longer than a transaction lasts that moves a schedule on, and than clocks of
/// databases are set back.
const SLACK: Duration = Duration::from_mins(1);

/// How long a schedule that cannot be read is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// What this gateway knows of what is due.
#[derive(Debug, Default)]
pub(in crate::store) struct Looked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    forgetting: Forgetting,
    /// When nothing was due.
    due: Lookback,
    /// Schedules that it could not read, and when it tried to.
    strange: HashMap<i64, Instant>,
}

impl Looked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many seconds back a tick can be due.
    pub(in crate::store) fn seconds(&self) -> f64 {
        let mut state = self.state();
        if state.forgetting.is_due() {
            state.due = Lookback::default();
            state.strange.clear();
        }
        state.due.seconds(SLACK)
    }

    fn nothing_due(&self, asked: Instant) {
        let mut state = self.state();
        if state.strange.is_empty() {
            state.due.nothing_due(asked);
        }
    }

    /// Those that are left alone for now, and how long until the first of them is
    /// looked at again.
    fn strange(&self) -> (Vec<i64>, Option<Duration>) {
        let state = self.state();
        let left = state.strange.iter().filter_map(|(id, tried)| {
            let left = AGAIN.checked_sub(tried.elapsed())?;
            Some((*id, left))
        });
        let (ids, left): (Vec<i64>, Vec<Duration>) = left.unzip();
        (ids, left.into_iter().min())
    }

    /// One could not be read; whether that is new.
    fn is_strange(&self, id: i64) -> bool {
        self.state().strange.insert(id, Instant::now()).is_none()
    }

    fn is_read(&self, id: i64) {
        self.state().strange.remove(&id);
    }
}

/// What was done for schedules that were due.
#[derive(Debug, Default)]
pub struct Fired {
    /// What was published.
    pub arrived: Arrived,
    /// Ticks without a message.
    pub failed: Vec<ScheduleFailure>,
    /// How long until the next is due; `None`: there is none.
    pub next_in: Option<Duration>,
}

/// A tick without a message.
#[derive(Debug)]
pub struct ScheduleFailure {
    /// The schedule.
    pub schedule: String,
    /// Why, as the code of a refusal over HTTP.
    pub code: &'static str,
    /// The same in words.
    pub detail: String,
}

/// What becomes of a schedule.
struct Done {
    id: i64,
    name: String,
    next: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
    failure: Option<Reason>,
}

impl Done {
    fn failed(&mut self, reason: Reason) {
        self.last = None;
        self.failure = Some(reason);
    }
}

/// How a try is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Try {
    Together,
    /// One by one, after something that Postgres would not store.
    Alone,
    /// This one it was: it is moved on without a message.
    Not(i64),
}

impl Store {
    /// Publishes what schedules have due, and moves them on.
    ///
    /// # Errors
    /// Any; nothing was done, or it is not known whether it was.
    pub async fn fire_schedules(&self) -> Result<Fired, Error> {
        let asked = Instant::now();
        let (mut how, alone) = (Try::Together, Arc::default());
        loop {
            match self.try_to_fire(how, &alone).await {
                Err(Error::Inconsistent(_)) if how == Try::Together => how = Try::Alone,
                Err(Error::Inconsistent(error)) if how == Try::Alone => {
                    let error = Logged(&error);
                    tracing::error!(%error, "the message of a schedule could not be stored");
                    how = Try::Not(alone.load(Ordering::Relaxed));
                }
                Ok(fired) => {
                    if fired.next_in.is_none_or(|next_in| next_in > Duration::ZERO) {
                        self.schedules.nothing_due(asked);
                    }
                    return Ok(fired);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One that is tried alone is put into `alone`.
    async fn try_to_fire(&self, how: Try, alone: &Arc<AtomicI64>) -> Result<Fired, Error> {
        let alone = Arc::clone(alone);
        self.transaction_again(move |transaction| {
            let alone = Arc::clone(&alone);
            Box::pin(async move { Ok(End::Commit(fire(transaction, how, &alone).await?)) })
        })
        .await
    }
}

async fn fire(transaction: &mut Transaction, how: Try, alone: &AtomicI64) -> Result<Fired, Error> {
    let store = transaction.store.clone();
    let seconds = store.schedules.seconds();
    let only = match how {
        Try::Not(id) => Some(id),
        Try::Together | Try::Alone => None,
    };
    let query = sqlx::query(SCHEDULES_DUE)
        .bind(if how == Try::Together { SCHEDULES } else { 1 })
        .bind(seconds)
        .bind(store.schedules.strange().0)
        .bind(only);
    let rows = transaction.on()?.fetch_all(query).await?;
    let (mut done, mut fired) = (Vec::with_capacity(rows.len()), Fired::default());
    let mut requests = Requests::default();
    let mut looked_up = Vec::new();
    for row in &rows {
        let at = done.len();
        let mut one = Done {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            next: None,
            last: None,
            failure: None,
        };
        if how == Try::Alone {
            alone.store(one.id, Ordering::Relaxed);
        }
        let schedule = match schedule(row) {
            Ok(schedule) => schedule,
            // It was made by a newer gateway, and this one leaves it be.
            Err(error) => {
                if store.schedules.is_strange(one.id) {
                    one.failed(("invalid", error.to_string()));
                    fired.failed.extend(failure(one));
                }
                continue;
            }
        };
        store.schedules.is_read(one.id);
        let messages = plan(&schedule, row.try_get("now")?, &mut one);
        if only.is_some() {
            let detail = "the database would not store the message";
            one.failed(("internal", detail.to_owned()));
        } else if !messages.is_empty() {
            // By the database: a tick that is refused since what is remembered of its
            // queue is old does not come again. The message was checked when the
            // schedule was made; only the bound may be another now.
            let target = &schedule.settings.target;
            let look_up = if looked_up.contains(target) {
                LookUp::Remembered
            } else {
                looked_up.push(target.clone());
                LookUp::Now
            };
            let check = |message: &Message, most| message.check_size(most, "");
            let addressed = store.address(target, look_up, messages, check).await?;
            match addressed {
                Ok(request) => requests.add(at, request),
                Err(reason) => one.failed(reason),
            }
        }
        done.push(one);
    }
    let (arrived, refused) = transaction.publish_all(requests).await?;
    fired.arrived = arrived;
    for (at, why) in refused {
        done[at].failed(why.reason());
    }
    if !done.is_empty() {
        note(transaction, &done).await?;
    }
    fired.failed.extend(done.into_iter().filter_map(failure));
    let (strange, look_again) = store.schedules.strange();
    let query = sqlx::query(SCHEDULES_NEXT).bind(seconds).bind(strange);
    let next = transaction.on()?.fetch_all(query).await?;
    let next = next.first().ok_or(sqlx::Error::RowNotFound)?;
    let next: Option<i64> = next.try_get("in_ms")?;
    let next = next.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    fired.next_in = next.into_iter().chain(look_again).min();
    Ok(fired)
}

/// The messages that are due; how the schedule goes on stands in `done`.
fn plan(schedule: &Schedule, now: DateTime<Utc>, done: &mut Done) -> Vec<Message> {
    let settings = &schedule.settings;
    let Some(first) = schedule.next_run else {
        return Vec::new();
    };
    let most = (BYTES / settings.message.content.body.len().max(1)).clamp(1, TICKS);
    let due = settings.cron.due(first, now, settings.catch_up, most);
    done.next = due.next;
    done.last = due.ticks.last().copied();
    let ticks = due.ticks.into_iter();
    ticks
        .map(|tick| settings.message_for(&schedule.name, tick))
        .collect()
}

fn failure(done: Done) -> Option<ScheduleFailure> {
    let (code, detail) = done.failure?;
    Some(ScheduleFailure {
        schedule: done.name,
        code,
        detail,
    })
}

async fn note(transaction: &mut Transaction, done: &[Done]) -> Result<(), Error> {
    let failures = done.iter().map(|one| one.failure.clone().unzip());
    let (codes, details): (Vec<Option<&str>>, Vec<Option<String>>) = failures.unzip();
    let query = sqlx::query(SCHEDULES_DONE)
        .bind(done.iter().map(|one| one.id).collect::<Vec<_>>())
        .bind(done.iter().map(|one| one.next).collect::<Vec<_>>())
        .bind(done.iter().map(|one| one.last).collect::<Vec<_>>())
        .bind(codes)
        .bind(details);
    transaction.on()?.fetch_all(query).await?;
    Ok(())
}
