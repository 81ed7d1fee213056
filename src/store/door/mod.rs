//! The SQL door: messages that applications publish in transactions of their own,
//! with the functions of `migrations/0014_door.sql`.
//!
//! The functions write down what was asked, in `door`. Here it is published: by
//! the same statements as over HTTP, in one transaction with its removal, so each
//! message is stored exactly once, whoever dies when. One gateway at a time does
//! so, under an advisory lock: messages of one transaction keep their order.
//!
//! # What is new
//!
//! Rows are committed in another order than they are numbered, and those that
//! were removed stay in the index for as long as somebody holds a snapshot. A
//! floor below the first live row would have to stay below the oldest transaction
//! that runs, which may be an application's of an hour. So what is remembered is
//! not a floor but a snapshot in which nothing was left ([`Seen`]): what has come
//! since is of transactions that ran in it and have ended, or that began later,
//! and the primary key leads with the transaction. A look costs a probe for each
//! transaction that has ended, and what is new; nothing of it grows with how long
//! a snapshot or a transaction is held.
//!
//! Every ten minutes all is looked at anew ([`Forgetting`]), since after a fail-over
//! to a standby that had not heard of the last transactions their numbers come again.
//!
//! # What cannot be published
//!
//! The caller is gone; nothing is lost all the same. It moves to `door_refused`,
//! and is tried again, ever more rarely, until it can be published.

mod entries;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::arrived::{Arrived, Requests, Undeliverable};
use super::lookback::{Forgetting, Lookback};
use super::publish::Refusal;
use super::publish_topic::TopicRefusal;
use super::transaction::{End, Transaction};
use super::{Error, Logged, Store, statements};
use entries::{Entry, Refused, found, found_again, note_refused, note_refused_again};

statements! {
    DOOR = "door";
    DOOR_AGAIN = "door_again";
    DOOR_REFUSE = "door_refuse";
    DOOR_REFUSE_AGAIN = "door_refuse_again";
}

/// Messages, and bytes of bodies, that are published in one transaction.
const ROWS: i64 = 500;
const BYTES: i64 = 4 * 1024 * 1024;

/// Longer than a transaction lasts that writes down when a refused message is
/// tried again.
const SLACK: Duration = Duration::from_mins(1);

/// One gateway at a time is in the door.
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(hashtextextended('postrider door', 0))";

/// A snapshot of Postgres: which transactions had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// All from this on had not begun.
    xmax: String,
    /// Before it, these had not ended.
    running: Vec<String>,
}

impl Snapshot {
    /// In which nothing had happened.
    fn before_all() -> Self {
        Self {
            xmax: "0".to_owned(),
            running: Vec::new(),
        }
    }

    fn of(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            xmax: row.try_get("xmax")?,
            running: row.try_get("running")?,
        })
    }
}

/// What this gateway knows to be empty.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Nothing was left in this snapshot.
    empty: Option<Snapshot>,
    /// When no refused message was due.
    tried: Lookback,
    forgetting: Forgetting,
}

/// What the database is asked for what is new.
#[derive(Debug, Clone)]
pub(super) struct Since {
    pub(super) xmax: String,
    pub(super) running: Vec<String>,
    /// Seconds back that refused messages can be due.
    pub(super) seconds: f64,
    asked: Instant,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn since(&self) -> Since {
        let mut state = self.state();
        let asked = Instant::now();
        if state.forgetting.is_due() {
            (state.empty, state.tried) = (None, Lookback::default());
        }
        let Snapshot { xmax, running } = state.empty.clone().unwrap_or_else(Snapshot::before_all);
        Since {
            xmax,
            running,
            seconds: state.tried.seconds(SLACK),
            asked,
        }
    }

    /// Whether there is something new, as a row says that answers to `since`.
    pub(super) fn note(&self, since: &Since, row: &PgRow) -> Result<bool, Error> {
        let any: bool = row.try_get("door")?;
        if !any {
            let empty = Snapshot::of(row)?;
            let mut state = self.state();
            state.empty = Some(empty);
            state.tried.nothing_due(since.asked);
        }
        Ok(any)
    }
}

/// Where a pass over the door has come to. It begins anew until it finds nothing.
#[derive(Debug, Clone)]
pub struct DoorPass {
    /// What it looks for: what is new since.
    since: Since,
    /// The snapshot of its first look.
    first: Option<Snapshot>,
    /// The last row it took.
    at: (String, i64),
    /// Messages of the next transaction: one after something that Postgres would
    /// not store.
    rows: i64,
    /// All of `door` is taken; refused ones are left.
    again: bool,
    /// What was remembered of a queue or topic was old, and was read anew.
    anew: bool,
}

/// What one transaction has done.
#[derive(Debug, Default)]
pub struct DoorMoved {
    /// What was published.
    pub arrived: Arrived,
    /// What could not be published, to be told: reason, queue or topic.
    pub refused: Vec<(&'static str, String)>,
}

/// How a look at the door ended.
#[derive(Debug)]
pub enum DoorLook {
    /// Another gateway is in it.
    Busy,
    /// Something was moved, and there may be more.
    More(DoorMoved),
    /// That was all.
    Empty(DoorMoved),
}

impl Store {
    /// A pass over the door: to be looked with until that finds nothing.
    #[must_use]
    pub fn door_pass(&self) -> DoorPass {
        DoorPass {
            since: self.door.since(),
            first: None,
            at: ("0".to_owned(), 0),
            rows: ROWS,
            again: false,
            anew: false,
        }
    }

    /// Publishes some of what came through the door: a transaction, in which it is
    /// removed too.
    ///
    /// # Errors
    /// Any; nothing was done, or it is not known whether it was.
    pub async fn look_at_door(&self, pass: &mut DoorPass) -> Result<DoorLook, Error> {
        let shared = Arc::new(pass.clone());
        let looked = self.transaction_again(move |transaction| {
            let pass = Arc::clone(&shared);
            Box::pin(async move {
                Ok(match look(transaction, &pass).await? {
                    Look::Done(looked) => End::Commit(Look::Done(looked)),
                    nothing => End::Rollback(nothing),
                })
            })
        });
        let looked = match looked.await {
            // Which of them it was is found out one by one.
            Err(Error::Inconsistent(_)) if pass.rows > 1 => {
                pass.rows = 1;
                return Ok(DoorLook::More(DoorMoved::default()));
            }
            // This one it was: it is put aside without a try.
            Err(Error::Inconsistent(error)) if pass.rows == 1 => {
                let error = Logged(&error);
                tracing::error!(%error, "a message of the SQL door could not be stored");
                pass.rows = 0;
                return Ok(DoorLook::More(DoorMoved::default()));
            }
            other => other?,
        };
        let looked = match looked {
            Look::Done(looked) => looked,
            Look::Busy => return Ok(DoorLook::Busy),
            Look::Stale => {
                pass.anew = true;
                return Ok(DoorLook::More(DoorMoved::default()));
            }
        };
        pass.rows = pass.rows.max(1);
        pass.anew = false;
        pass.first = pass.first.take().or(looked.snapshot);
        if let Some(last) = looked.last {
            pass.at = last;
        }
        if looked.more {
            return Ok(DoorLook::More(looked.moved));
        }
        if looked.due && !pass.again {
            pass.again = true;
            return Ok(DoorLook::More(looked.moved));
        }
        let mut state = self.door.state();
        state.empty = pass.first.take().or(state.empty.take());
        state.tried.nothing_due(pass.since.asked);
        Ok(DoorLook::Empty(looked.moved))
    }
}

/// Takes some of what is there, unless another gateway does.
async fn look(transaction: &mut Transaction, pass: &DoorPass) -> Result<Look, Error> {
    let lock = transaction.on()?.fetch_all(sqlx::query(LOCK)).await?;
    let is_ours = lock.first().ok_or(sqlx::Error::RowNotFound)?;
    if !is_ours.try_get::<bool, _>(0)? {
        return Ok(Look::Busy);
    }
    let found = if pass.again {
        found_again(transaction, pass).await?
    } else {
        found(transaction, pass).await?
    };
    let mut looked = Looked {
        moved: DoorMoved::default(),
        snapshot: found.snapshot,
        last: found.last,
        more: found.more,
        due: found.due,
    };
    let entries = found.entries;
    let refused = if pass.rows == 0 {
        (0..entries.len()).map(Refused::by_the_database).collect()
    } else {
        let published = publish_entries(transaction, &entries, found.now, pass.anew).await?;
        let Some((arrived, refused)) = published else {
            return Ok(Look::Stale);
        };
        looked.moved.arrived = arrived;
        refused
    };
    for Refused { at, reason, .. } in &refused {
        let entry = &entries[*at];
        let name = entry.queue.as_ref().or(entry.topic.as_ref());
        let name = name.cloned().unwrap_or_default();
        looked.moved.refused.push((reason, name));
    }
    if pass.again {
        note_refused_again(transaction, &entries, &refused).await?;
    } else if !refused.is_empty() {
        note_refused(transaction, &entries, &refused).await?;
    }
    Ok(Look::Done(Box::new(looked)))
}

/// Publishes what can be; which cannot. `None`: what was remembered of some queue or
/// topic was not so any more, and is forgotten. Put aside, its messages would come
/// behind those of after; so, unless that was done (`anew`), all are to be looked at
/// once more.
async fn publish_entries(
    transaction: &mut Transaction,
    entries: &[Entry],
    now: DateTime<Utc>,
    anew: bool,
) -> Result<Option<(Arrived, Vec<Refused>)>, Error> {
    let (mut requests, mut refused) = (Requests::default(), Vec::new());
    for (at, entry) in entries.iter().enumerate() {
        match entry.address(&transaction.store, now).await? {
            Ok(request) => requests.add(at, request),
            Err((reason, detail)) => refused.push(Refused { at, reason, detail }),
        }
    }
    let (arrived, not) = transaction.publish_all(requests).await?;
    let store = &transaction.store;
    let mut is_stale = false;
    for (_, why) in &not {
        match why {
            Undeliverable::ToQueue(Refusal::NoQueue, queue) => store.queues.remove(&queue.name),
            Undeliverable::ToTopic(TopicRefusal::NoTopic, _) => store.topologies.forget(),
            Undeliverable::ToQueue(..) | Undeliverable::ToTopic(..) => continue,
        }
        is_stale = true;
    }
    if is_stale && !anew {
        return Ok(None);
    }
    refused.extend(not.into_iter().map(|(at, why)| {
        let (reason, detail) = why.reason();
        Refused { at, reason, detail }
    }));
    Ok(Some((arrived, refused)))
}

/// How a transaction in the door ended.
enum Look {
    /// Another gateway is in it.
    Busy,
    /// Nothing is done: it went by what was not so any more.
    Stale,
    /// It did this.
    Done(Box<Looked>),
}

/// What a look has done before the commit.
struct Looked {
    moved: DoorMoved,
    snapshot: Option<Snapshot>,
    last: Option<(String, i64)>,
    more: bool,
    /// Whether a refused message is to be tried again.
    due: bool,
}
