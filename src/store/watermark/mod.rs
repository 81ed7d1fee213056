//! Below which positions nothing can be alive.
//!
//! Positions are given out in order, but committed in any order: a statement
//! that drew position 5 may commit after one that drew 6. So a position is
//! known to be dead for good only if the transaction that drew it has ended,
//! and a look since then has found nothing alive at or below it.
//!
//! To know that all that drew a position have ended: note how far the sequence
//! has come, and *after that* which transactions run (a snapshot's `xmax`). Every
//! statement that draws a position has a transaction id before it does
//! (publish.sql), so those that drew up to the note are below that id, and when
//! the oldest that runs (`xmin` of a later snapshot) is not, they have ended. A
//! stranger's transaction that writes for an hour would hold this up; so what
//! is [`SETTLING`] old, longer than any of our statements may run
//! (`statement_timeout`), counts as ended in any case. A transaction that only
//! reads has no id and holds up nothing; nor does one that came to the SQL door,
//! which is known by a mark and is asked after when something holds up a
//! [note](notes) for long.
//!
//! How soon it is known decides what a claim costs while somebody holds a
//! snapshot, since then nothing between the floor and the first alive row can
//! be vacuumed and each claim walks over it. With only the minute's rule, at
//! 20,000 messages a second, claims walked a million dead entries and the rate
//! fell to a third within the minute.
//!
//! A sequence is not a row: how far it has come is seen before it is on disk, and
//! a crash of Postgres takes back what was drawn since the last flush of the log.
//! A note of that would become a floor above what is drawn anew. So the statement
//! that takes a note writes to the log, and its COMMIT flushes all that the note saw.
//! (A transaction id is not enough: who wrote nothing commits without a flush.) And
//! another server, which may have come less far if it was failed over to, is known by
//! when it was started: all is forgotten then.
//!
//! The look: ask for the first row that is alive (locked or not). All below it
//! and below the note is gone. The same holds for the ids of tallies and, with
//! times for positions, for the wake times in parked: a row's wake time is never
//! before the start of the statement that wrote it, so below both the first that
//! is alive and [`SETTLING`] ago there is nothing. Those floors are forgotten
//! every [`FORGET`], so that a step of the database's clock heals.

mod notes;

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Error, Store, statements};
use notes::Note;

statements! {
    FLOORS = "floors";
    BELOW_FLOORS = "below_floors";
    TAKE_NOTE = "take_note";
    VISITORS = "visitors";
    DUE_FLOORS = "due_floors";
    BELOW_WAKES = "below_wakes";
}

/// Longer than any statement that draws a position can run: `statement_timeout`
/// is 30 s.
pub const SETTLING: Duration = Duration::from_mins(1);

/// How long the floor of a queue's wake times is used.
const FORGET: Duration = Duration::from_mins(1);

/// Messages claimed since the last look that are worth another at once: a claim
/// that walks over them costs about as much.
const WORTH_A_LOOK: usize = 2000;

/// How long looks wait if less has been claimed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long they wait if nothing has: floors then only keep up with the time.
const LOOK_AT_REST: Duration = Duration::from_secs(10);

/// Between this machine's clock and the database's, for durations of minutes.
const SLACK: Duration = Duration::from_secs(5);

/// Longer ago than anything.
const EVER_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// Priorities in the order of receiving.
const PRIORITIES: [i16; 10] = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// One line of positions.
#[derive(Debug, Default, Clone, Copy)]
struct Watermark {
    floor: i64,
}

impl Watermark {
    /// Moves up to what `first_alive` (none: nothing is) and `settled` allow.
    fn raise(&mut self, first_alive: Option<i64>, settled: i64) {
        let to = first_alive.map_or(settled, |alive| alive.min(settled));
        self.floor = self.floor.max(to);
    }
}

/// What the sweep found below the watermarks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Violations {
    /// Lanes with a ready message there.
    pub ready: i64,
    /// Queues with a parked one.
    pub parked: i64,
}

/// The watermarks of one gateway. They start at zero and only rise.
#[derive(Debug, Default)]
pub struct Watermarks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queues: HashMap<i64, Lanes>,
    tallies: Watermark,
    /// Notes of how far the sequences had come, oldest first.
    notes: VecDeque<Note>,
    /// The oldest transaction for which it was last asked whether it is a visitor,
    /// and when.
    asked: Option<(i64, Instant)>,
    /// Every statement that drew a position up to this one has ended.
    settled: i64,
    /// Messages claimed since the last look.
    claimed: usize,
    /// When all queues were last looked at.
    looked: Option<Instant>,
    /// When the server was started that all this is known of.
    server: Option<DateTime<Utc>>,
}

/// What is remembered of one queue.
#[derive(Debug)]
struct Lanes {
    /// When it was last claimed from.
    used: Instant,
    /// Whether it has been since the last look.
    claimed: bool,
    /// In the order of [`PRIORITIES`].
    positions: [Watermark; 10],
    /// Nothing in parked wakes before this; and since when that is known.
    wakes: Option<(Instant, Instant)>,
}

impl Watermarks {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A queue's priorities, 9 first, and the floor of each.
    #[must_use]
    pub fn lanes(&self, queue_id: i64) -> ([i16; 10], [i64; 10]) {
        let mut state = self.state();
        let now = Instant::now();
        let lanes = state.queues.entry(queue_id).or_insert(Lanes {
            used: now,
            claimed: false,
            positions: Default::default(),
            wakes: None,
        });
        lanes.used = now;
        lanes.claimed = true;
        (PRIORITIES, lanes.positions.map(|w| w.floor))
    }

    /// Counts what was claimed.
    pub(super) fn claimed(&self, messages: usize) {
        self.state().claimed += messages;
    }

    /// The queues there are, and the floors of each, as many as it has priorities.
    pub(super) fn floors_by_queue(&self) -> (Vec<i64>, Vec<i64>) {
        let state = self.state();
        let floors = state
            .queues
            .values()
            .flat_map(|lanes| lanes.positions.map(|w| w.floor));
        (state.queues.keys().copied().collect(), floors.collect())
    }

    /// Whether a look is due.
    #[must_use]
    pub fn want_raising(&self) -> bool {
        let state = self.state();
        state.claimed >= WORTH_A_LOOK || state.wants_all()
    }

    /// The lowest floor of a queue.
    #[must_use]
    pub fn lowest(&self, queue_id: i64) -> i64 {
        let state = self.state();
        let lanes = state.queues.get(&queue_id);
        lanes
            .and_then(|l| l.positions.iter().map(|w| w.floor).min())
            .unwrap_or(0)
    }

    /// The floor of the tallies' ids.
    #[must_use]
    pub fn tallies(&self) -> i64 {
        self.state().tallies.floor
    }

    /// A position up to which every statement that drew one has ended.
    #[must_use]
    pub fn settled(&self) -> i64 {
        self.state().settled
    }

    /// How many seconds back the parked rows of a queue must be looked for.
    #[must_use]
    pub fn wakes_within_seconds(&self, queue_id: i64) -> f64 {
        let state = self.state();
        match state.queues.get(&queue_id).and_then(|lanes| lanes.wakes) {
            Some((floor, known)) if known.elapsed() < FORGET => {
                (floor.elapsed() + SLACK).as_secs_f64()
            }
            _ => EVER_SECONDS,
        }
    }

    /// Forgets queues that nobody has claimed from for an hour: memory stays
    /// bounded, and a floor of zero is always right.
    fn forget_idle(&self) {
        self.state()
            .queues
            .retain(|_, lanes| lanes.used.elapsed() < Duration::from_hours(1));
    }

    /// The queues there are, and how far back to look in each.
    pub(super) fn wake_columns(&self) -> (Vec<i64>, Vec<f64>) {
        let ids: Vec<i64> = self.state().queues.keys().copied().collect();
        let seconds = ids
            .iter()
            .map(|id| self.wakes_within_seconds(*id))
            .collect();
        (ids, seconds)
    }

    /// Raises the lanes, given what the first alive position is in each.
    fn raise(
        &self,
        queue_ids: &[i64],
        priorities: &[i16],
        alive: &HashMap<(i64, i16), i64>,
        settled: i64,
    ) {
        let mut state = self.state();
        for (queue_id, priority) in queue_ids.iter().zip(priorities) {
            let lane = PRIORITIES.iter().position(|p| p == priority);
            if let (Some(lanes), Some(lane)) = (state.queues.get_mut(queue_id), lane) {
                lanes.claimed = false;
                let first_alive = alive.get(&(*queue_id, *priority)).copied();
                lanes.positions[lane].raise(first_alive, settled);
            }
        }
    }

    /// The lanes whose floor is below a position, as three columns: queue,
    /// priority, floor; of all queues, or of those that were claimed from.
    pub(super) fn columns(&self, all: bool, below: i64) -> (Vec<i64>, Vec<i16>, Vec<i64>) {
        let state = self.state();
        let mut columns = (Vec::new(), Vec::new(), Vec::new());
        for (queue_id, lanes) in state.queues.iter().filter(|(_, l)| all || l.claimed) {
            for (priority, lane) in PRIORITIES.iter().zip(lanes.positions) {
                if lane.floor < below {
                    columns.0.push(*queue_id);
                    columns.1.push(*priority);
                    columns.2.push(lane.floor);
                }
            }
        }
        columns
    }
}

impl State {
    /// All floors, and what they would be raised by: looks begin at the beginning
    /// again, which is always right.
    fn forget(&mut self) {
        for lanes in self.queues.values_mut() {
            lanes.positions = Default::default();
            lanes.wakes = None;
        }
        self.tallies = Watermark::default();
        self.notes.clear();
        self.asked = None;
        self.settled = 0;
    }

    fn wants_all(&self) -> bool {
        let every = if self.claimed > 0 {
            LOOK_EVERY
        } else {
            LOOK_AT_REST
        };
        self.looked.is_none_or(|looked| looked.elapsed() >= every)
    }
}

impl Store {
    /// Raises the watermarks as far as is known to be safe; called when
    /// [`Watermarks::want_raising`]. At most four statements.
    ///
    /// # Errors
    /// Any; the watermarks then stay.
    pub async fn raise_watermarks(&self) -> Result<(), Error> {
        self.raise_watermarks_after(SETTLING).await
    }

    /// The same with another settling time, for tests that cannot wait.
    ///
    /// # Errors
    /// Any.
    pub async fn raise_watermarks_after(&self, settling: Duration) -> Result<(), Error> {
        self.watermarks.forget_idle();
        let all = {
            let mut state = self.watermarks.state();
            state.claimed = 0;
            let all = state.wants_all() || settling < SETTLING;
            if all {
                state.looked = Some(Instant::now());
            }
            all
        };
        self.settle_notes(settling).await?;
        self.raise_positions(all).await?;
        if all {
            self.raise_wakes(settling).await?;
        }
        Ok(())
    }

    async fn raise_positions(&self, all: bool) -> Result<(), Error> {
        let settled = self.watermarks.settled();
        // What is there already cannot rise: a database at rest is not asked.
        let (queue_ids, priorities, floors) = self.watermarks.columns(all, settled);
        if queue_ids.is_empty() {
            return Ok(());
        }
        let rows = sqlx::query(FLOORS)
            .bind(&queue_ids)
            .bind(&priorities)
            .bind(&floors)
            .fetch_all(&self.pool)
            .await?;
        let mut alive = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = (row.try_get::<i64, _>(0)?, row.try_get::<i16, _>(1)?);
            alive.insert(key, row.try_get::<i64, _>(2)?);
        }
        self.watermarks
            .raise(&queue_ids, &priorities, &alive, settled);
        Ok(())
    }

    async fn raise_wakes(&self, settling: Duration) -> Result<(), Error> {
        let (queue_ids, seconds) = self.watermarks.wake_columns();
        if queue_ids.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let rows = sqlx::query(DUE_FLOORS)
            .bind(&queue_ids)
            .bind(seconds)
            // What wakes in the future is no bound on the past.
            .bind(0i64)
            .fetch_all(&self.pool)
            .await?;
        let mut ages: HashMap<i64, f64> = HashMap::with_capacity(rows.len());
        for row in rows {
            ages.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let mut state = self.watermarks.state();
        for queue_id in queue_ids {
            let age = Duration::try_from_secs_f64(ages.get(&queue_id).copied().unwrap_or(0.0))
                .unwrap_or_default();
            if let (Some(lanes), Some(floor)) = (
                state.queues.get_mut(&queue_id),
                asked.checked_sub(age.max(settling)),
            ) {
                let known = match lanes.wakes {
                    Some((_, known)) if known.elapsed() < FORGET => known,
                    _ => asked,
                };
                lanes.wakes = Some((floor, known));
            }
        }
        Ok(())
    }

    /// What lies below this gateway's watermarks. Must be nothing: such a message
    /// waits for another gateway, or for the watermarks to be forgotten, as they are
    /// now if there is any.
    ///
    /// # Errors
    /// Any.
    pub async fn watermark_violations(&self) -> Result<Violations, Error> {
        let (queue_ids, priorities, floors) = self.watermarks.columns(true, i64::MAX);
        let ready = sqlx::query_scalar(BELOW_FLOORS)
            .bind(queue_ids)
            .bind(priorities)
            .bind(floors)
            .fetch_one(&self.pool)
            .await?;
        let (queue_ids, mut seconds) = self.watermarks.wake_columns();
        // As long as a connection may be waited for, so that what became due
        // meanwhile is not taken for a violation.
        for ago in &mut seconds {
            *ago += SLACK.as_secs_f64();
        }
        let parked = sqlx::query_scalar(BELOW_WAKES)
            .bind(queue_ids)
            .bind(seconds)
            .fetch_one(&self.pool)
            .await?;
        let found = Violations { ready, parked };
        if found != Violations::default() {
            self.watermarks.state().forget();
        }
        Ok(found)
    }
}
