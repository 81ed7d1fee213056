//! Connections, and who has them.
//!
//! A pool of our own, since sqlx's cannot do what a gateway needs when the
//! network or the server plays tricks:
//!
//! - a connection that went silent is never noticed there, and once all have,
//!   nothing works until a restart (transact-rs/sqlx#4349). Here each connection
//!   in use is on a list with its server process and since when, so that the
//!   [watchdog](super::watch) can ask the server whether that process still works
//!   on it, and [cut](Pool::cut) it short if not;
//! - a connection goes back to the pool there as long as it answers, to a server
//!   that has become read-only too: after a fail-over the old primary would be
//!   asked again and again. Here [`judge`] says which are thrown away;
//! - giving one back costs a round trip there, and a task. Here it costs a lock.
//!
//! It is an [`Executor`](sqlx::Executor) ([`executor`](super::executor)), so
//! statements are run on it as they are on sqlx's. A future that is dropped
//! half-way takes its connection with it: nobody knows what that would answer
//! next.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::ConnectOptions;
use super::connect::connect;
use super::error::{Connection, Kind, is_worth_waiting, judge};
use crate::metrics::Histogram;

/// How long a statement waits for its connection. A server that restarts within
/// that is not noticed by those who wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection that has rested may take to show that it lives.
const PING: Duration = Duration::from_secs(1);

/// Age at which a connection is closed: what its server process has cached does
/// not grow for ever, and a name that means another server is looked up again.
const LIFETIME: Duration = Duration::from_hours(1);

/// Seconds over which the ends of connections that were made together are spread:
/// a new one has to prepare its statements anew.
const SPREAD: u64 = 600;

/// Between two tries to connect: the first pause, doubled from there, and the
/// longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// At most so many connections, made when needed.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    options: ConnectOptions,
    permits: Arc<Semaphore>,
    most: u32,
    /// One that has rested for so long is tried before it is used.
    rested: Duration,
    /// How long it takes to get one; counted for the hot paths.
    acquire_seconds: Option<Histogram>,
    /// Whether a statement has found the disk full since this was last asked.
    full: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last used on top: a few are warm rather than all lukewarm.
    idle: Vec<Idle>,
    busy: Vec<Busy>,
    /// Counts how often all connections were thrown away; those of an earlier
    /// era do not come back.
    era: u64,
    closed: bool,
}

struct Idle {
    live: Live,
    since: Instant,
}

/// A connection to a server process.
struct Live {
    raw: PgConnection,
    pid: i32,
    born: Instant,
    era: u64,
    /// Cancelled when waiting for it is of no use.
    cut: CancellationToken,
}

struct Busy {
    ticket: u64,
    pid: i32,
    since: Instant,
    cut: CancellationToken,
}

/// A statement that has been on its way for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stuck {
    /// Which; never the same twice.
    pub(super) ticket: u64,
    /// The server's process.
    pub(super) pid: i32,
    /// For how long.
    pub(super) age: Duration,
}

impl Pool {
    pub(super) fn new(
        options: ConnectOptions,
        most: u32,
        rested: Duration,
        acquire_seconds: Option<Histogram>,
    ) -> Self {
        Self(Arc::new(Shared {
            acquire_seconds,
            options,
            permits: Arc::new(Semaphore::new(most as usize)),
            most,
            rested,
            full: AtomicBool::new(false),
            state: Mutex::default(),
        }))
    }

    /// How to connect.
    pub(super) fn options(&self) -> &ConnectOptions {
        &self.0.options
    }

    /// Connections there may be.
    pub(super) fn most(&self) -> u32 {
        self.0.most
    }

    /// Connections there are: in use, and in all.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.busy.len(), state.busy.len() + state.idle.len())
    }

    /// Whether a statement has found the disk full since this was last asked.
    pub(super) fn was_full(&self) -> bool {
        self.0.full.swap(false, Ordering::Relaxed)
    }

    /// Statements that began longer ago.
    pub(super) fn stuck(&self, longer: Duration) -> Vec<Stuck> {
        let state = self.0.lock();
        let all = state.busy.iter().map(|busy| Stuck {
            ticket: busy.ticket,
            pid: busy.pid,
            age: busy.since.elapsed(),
        });
        all.filter(|busy| busy.age > longer).collect()
    }

    /// Ends the wait for these statements, which fail, and throws their
    /// connections away.
    pub(super) fn cut(&self, stuck: &[Stuck]) {
        let state = self.0.lock();
        for busy in &state.busy {
            if stuck.iter().any(|stuck| stuck.ticket == busy.ticket) {
                busy.cut.cancel();
            }
        }
    }

    /// Throws all connections away: those that rest at once, those in use when
    /// their statement has ended.
    pub(super) fn renew(&self) {
        let era = self.0.lock().era;
        self.0.renew(era);
    }

    /// Closes all connections, once those in use are given back.
    pub(super) async fn close(&self) {
        self.0.lock().closed = true;
        // Whoever waits for one is told; whoever has one ends first.
        let _all = self.0.permits.acquire_many(self.0.most).await;
        self.0.permits.close();
        let idle = std::mem::take(&mut self.0.lock().idle);
        for Idle { live, .. } in idle {
            // It is dead already, or dies of this.
            let _ = live.raw.close().await;
        }
    }

    /// Takes a connection that works, as far as that can be told.
    pub(super) async fn take(&self) -> Result<Taken, sqlx::Error> {
        let began = Instant::now();
        let mut refusal = None;
        let taken = match tokio::time::timeout(PATIENCE, self.find(&mut refusal)).await {
            Ok(found) => found,
            Err(_) => Err(refusal.unwrap_or(sqlx::Error::PoolTimedOut)),
        };
        if let Some(histogram) = &self.0.acquire_seconds {
            histogram.record_time(began.elapsed());
        }
        taken
    }

    async fn find(&self, refusal: &mut Option<sqlx::Error>) -> Result<Taken, sqlx::Error> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let taken = |live| Taken::new(Arc::clone(&self.0), permit, live);
        while let Some(Idle { mut live, since }) = self.0.pop()? {
            if live.is_old() {
                // Politely, but not for long.
                let _ = tokio::time::timeout(PING, live.raw.close()).await;
                continue;
            }
            if since.elapsed() <= self.0.rested {
                return Ok(taken(live));
            }
            if let Ok(Ok(())) = tokio::time::timeout(PING, live.raw.ping()).await {
                return Ok(taken(live));
            }
            // What killed this one has killed those that have rested longer.
            self.0.lock().idle.retain(|other| other.since > since);
        }
        let mut pause = PAUSES.0;
        loop {
            match self.connect().await {
                Ok(live) => return Ok(taken(live)),
                Err(error) if is_worth_waiting(&error) => *refusal = Some(error),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(&self) -> Result<Live, sqlx::Error> {
        let era = self.0.lock().era;
        let (raw, pid) = connect(&self.0.options).await?;
        Ok(Live {
            raw,
            pid,
            born: Instant::now(),
            era,
            cut: CancellationToken::new(),
        })
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (busy, all) = self.size();
        f.debug_struct("Pool")
            .field("busy", &busy)
            .field("all", &all)
            .field("most", &self.0.most)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last used of those that rest.
    fn pop(&self) -> Result<Option<Idle>, sqlx::Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(sqlx::Error::PoolClosed);
        }
        Ok(state.idle.pop())
    }

    /// Throws all connections of this era away. Once: whoever finds that his has
    /// died of the same says nothing of those that were made since.
    fn renew(&self, era: u64) {
        let mut state = self.lock();
        if state.era != era {
            return;
        }
        state.era += 1;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }
}

impl Live {
    /// Whether it is to be closed. Not all at the same time, which they were made
    /// at.
    fn is_old(&self) -> bool {
        let spread = Duration::from_secs(u64::from(self.pid.unsigned_abs()) % SPREAD);
        self.born.elapsed() > LIFETIME + spread
    }
}

/// A connection in use. Dropped, it is thrown away; [`Self::end`] gives it back.
pub(super) struct Taken {
    // Before the permit: another may connect when this one is closed.
    live: Option<Live>,
    ticket: u64,
    pool: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Taken {
    fn new(pool: Arc<Shared>, permit: OwnedSemaphorePermit, live: Live) -> Self {
        /// Of the next connection to be used, in whatever pool.
        static TICKET: AtomicU64 = AtomicU64::new(1);
        let ticket = TICKET.fetch_add(1, Ordering::Relaxed);
        pool.lock().busy.push(Busy {
            ticket,
            pid: live.pid,
            since: Instant::now(),
            cut: live.cut.clone(),
        });
        Self {
            live: Some(live),
            ticket,
            pool,
            _permit: permit,
        }
    }

    /// The connection, and what ends the wait for it.
    pub(super) fn parts(&mut self) -> Result<(&mut PgConnection, &CancellationToken), sqlx::Error> {
        match &mut self.live {
            Some(live) => Ok((&mut live.raw, &live.cut)),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }

    /// Gives it back, unless it is not to be trusted after such a result.
    pub(super) fn end<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        match &result {
            Err(error) if self.is_lost(error) => self.lost(error),
            _ => self.give_back(),
        }
        result
    }

    /// Whether it is not to be trusted after such an error.
    pub(super) fn is_lost(&self, error: &sqlx::Error) -> bool {
        let (kind, fate) = judge(error);
        if kind == Kind::Full {
            self.pool.full.store(true, Ordering::Relaxed);
        }
        fate != Connection::Keep
    }

    /// Throws it away, and all others if that is what the error means.
    pub(super) fn lost(self, error: &sqlx::Error) {
        if judge(error).1 == Connection::DropAll
            && let Some(live) = &self.live
        {
            self.pool.renew(live.era);
        }
    }

    fn give_back(&mut self) {
        if let Some(live) = self.live.take() {
            let mut state = self.pool.lock();
            state.busy.retain(|busy| busy.ticket != self.ticket);
            if live.era == state.era && !live.cut.is_cancelled() {
                state.idle.push(Idle {
                    live,
                    since: Instant::now(),
                });
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.live.is_none() {
            // It was given back.
            return;
        }
        let mut state = self.pool.lock();
        state.busy.retain(|busy| busy.ticket != self.ticket);
    }
}
