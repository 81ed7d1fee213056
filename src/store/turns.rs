//! Turns: in ordered queues one message of a key after the other, in fair ones one
//! after each turn of the others.
//!
//! # How it works
//!
//! A message with a key that is published to an ordered queue, and a fair one, does
//! not become ready at once. It goes to the end of its key's line, in `lined_up`
//! (`publish_lined.sql`). [`Store::next_turns`] lets the first of a line out, to
//! `ready`, if no other of the line is out: it is called after whatever may have
//! ended a turn or added to a line has been committed. From there on the message is
//! one like any other; claim, ack and settle know nothing of lines. So a blocked key
//! costs a claim nothing, however many wait behind.
//!
//! A turn ends when the message is nowhere any more (acked, dead, expired, purged);
//! of a fair message when it is claimed.
//!
//! # Why it holds
//!
//! - Each key with a line has a row in `turns`. Who adds to the line or passes the
//!   turn on locks it first. So places in a line are committed in their order, and
//!   what a line begins with does not change behind one's back.
//! - Nobody says that a turn has ended: `next_turn` looks whether the message is
//!   still in `ready` or `parked`, in a snapshot that is taken when it has the lock.
//!   Of an ack and a publish at the same moment the one whose `next_turn` comes
//!   later sees both. Once a message is in neither it stays so: what comes back from
//!   the dead letters comes back through the line.
//! - If a gateway is killed between an ack and `next_turn`, nobody has the turn.
//!   [`Store::sweep_turns`] finds such keys, by the same look, within seconds.
//! - Whether a queue is ordered is asked in the statement that stores, not in the
//!   cache; and it changes only while the queue is empty, with everybody who writes
//!   waiting for that instant (`is_empty_for_good`).
//!
//! A message without a key has no order, and no turn: it is ready at once.
//!
//! # Dead letters that hold their key
//!
//! With `on_blocked: dead_letter_key` a dead letter is written with a mark (`holds`,
//! by the statement that ends its lease), and `next_turn` sends to the dead letters
//! what follows. The key is held as long as such a letter is there: until they are
//! redriven, removed, or their mark is taken off ([`Store::unblock`]). What comes
//! back is not held by letters that died before (`admitted_at`). Only what failed
//! holds its key: not what expired, or was dropped for want of room.
//!
//! # What a snapshot that is held for long costs
//!
//! Rows of a line are inserted and deleted, so dead ones pile up in front of those
//! that are alive. Therefore `turns.floor` says where a line begins. It is moved up
//! at most once a second, and only by one call in twenty: a look walks over a
//! second's worth, and a key's row has at most 3,600 dead versions after an hour. The
//! row itself is locked, not changed, by publishes. Rows of keys that are idle are
//! removed by the sweep, once in its round. Expiry has a cost of its own
//! (`expire_lined_up.sql`).

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Error, Store, statements};

statements! {
    NEXT_TURN = "next_turn";
    FAIR_ROUND = "fair_round";
    SWEEP_TURNS = "sweep_turns";
    LEAVE_TURNS = "leave_turns";
    EXPIRE_LINED_UP = "expire_lined_up";
    BLOCKED_KEYS = "blocked_keys";
    UNBLOCK = "unblock";
}

/// A key whose turn may have to be passed on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Turn {
    /// The queue.
    pub queue_id: i64,
    /// Which key of it.
    pub of: TurnOf,
}

/// How a key is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TurnOf {
    /// By itself.
    Key(String),
    /// As that of a message which had its turn.
    Message(i64),
}

impl Turn {
    /// Of a key.
    #[must_use]
    pub fn key(queue_id: i64, key: &str) -> Self {
        Self {
            queue_id,
            of: TurnOf::Key(key.to_owned()),
        }
    }

    /// Of a message's key, if it has one.
    #[must_use]
    pub const fn message(queue_id: i64, message_id: i64) -> Self {
        Self {
            queue_id,
            of: TurnOf::Message(message_id),
        }
    }
}

/// What passing turns on came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Promoted {
    /// Queues in which messages became ready.
    pub ready: HashSet<i64>,
    /// How many did.
    pub ready_rows: usize,
    /// Queues in which messages wait for their delay, or are due because they have
    /// outlived their time, and the milliseconds until then.
    pub parked: Vec<(i64, i64)>,
    /// Messages that followed a dead letter of their key: queue and message.
    pub dead: Vec<(i64, i64)>,
}

/// A key that does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedKey {
    /// The key.
    pub key: String,
    /// `dead-letter`, `leased`, `backing-off` or `delayed`.
    pub reason: String,
    /// The message that it waits for.
    pub message_id: i64,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When the lease or the wait ends.
    pub until: Option<DateTime<Utc>>,
    /// How many wait behind.
    pub waiting: i64,
}

/// What an unblock did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unblocked {
    /// The key.
    pub key: String,
    /// Dead letters that held it and do no longer.
    pub dead_letters: i64,
    /// Whether its first message was resting, and is due now.
    pub woken: bool,
    /// Whether its first message is leased, and was left alone.
    pub leased: bool,
}

/// Where a sweep has got to: queue and key.
pub type SweptTo = (i64, String);

impl Store {
    /// Keys looked at by one statement of a sweep.
    const SWEEP_KEYS: i64 = 1000;

    /// Keys looked at by one statement of a fair round.
    const ROUND_KEYS: i64 = 1000;

    /// Messages that follow a dead letter by one statement.
    const FOLLOWERS: i64 = 1000;

    /// Messages in line whose time is over, by one statement.
    const EXPIRED: i64 = 1000;

    /// Of how many messages that wait behind a blocked key it counts.
    pub const COUNTED_BEHIND: i64 = 10_000;

    /// Passes turns on where they have ended. As many statements as a key has
    /// thousands that follow a dead letter, else one.
    ///
    /// # Errors
    /// Any; the sweep then does it.
    pub async fn next_turns(&self, turns: &[Turn]) -> Result<Promoted, Error> {
        let mut promoted = Promoted::default();
        let mut again = self.pass_on(turns, &mut promoted).await?;
        while !again.is_empty() {
            again = self.pass_on(&again, &mut promoted).await?;
        }
        Ok(promoted)
    }

    /// The same by one statement; which of them to look at once more.
    async fn pass_on(&self, turns: &[Turn], promoted: &mut Promoted) -> Result<Vec<Turn>, Error> {
        let mut again = Vec::new();
        if turns.is_empty() {
            return Ok(again);
        }
        let (mut queue_ids, mut keys, mut message_ids) = (vec![], vec![], vec![]);
        for turn in turns.iter().collect::<HashSet<_>>() {
            queue_ids.push(turn.queue_id);
            let (key, message_id) = match &turn.of {
                TurnOf::Key(key) => (Some(key.as_str()), None),
                TurnOf::Message(id) => (None, Some(*id)),
            };
            keys.push(key);
            message_ids.push(message_id);
        }
        let rows = sqlx::query(NEXT_TURN)
            .bind(queue_ids)
            .bind(keys)
            .bind(message_ids)
            .bind(Self::FOLLOWERS)
            .fetch_all(&self.hot)
            .await?;
        for row in rows {
            let queue_id = row.try_get("queue_id")?;
            match row.try_get::<&str, _>("became")? {
                "ready" => {
                    promoted.ready.insert(queue_id);
                    promoted.ready_rows += 1;
                }
                "parked" => promoted
                    .parked
                    .push((queue_id, row.try_get("wakes_in_ms")?)),
                _ => {
                    promoted.dead.push((queue_id, row.try_get("message_id")?));
                    // There may be more, or somebody who is not held.
                    again.push(Turn::key(queue_id, row.try_get("key")?));
                }
            }
        }
        Ok(again)
    }

    /// Lets up to `wanted` messages of a fair queue out beyond their turn, of keys
    /// behind `after`: how many, and the key it came to; `None` at the end of the
    /// round.
    ///
    /// # Errors
    /// Any; they then wait for their turn.
    pub async fn fair_round(
        &self,
        queue_id: i64,
        after: &str,
        wanted: usize,
    ) -> Result<(usize, Option<String>), Error> {
        let row = sqlx::query(FAIR_ROUND)
            .bind(queue_id)
            .bind(after)
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .bind(Self::ROUND_KEYS)
            .fetch_one(&self.hot)
            .await?;
        let promoted: i64 = row.try_get("promoted")?;
        Ok((usize::try_from(promoted).unwrap_or(0), row.try_get("key")?))
    }

    /// Looks at a thousand keys from behind `from`, of one queue or of all, passes
    /// turns on that nobody has, and forgets keys that are idle. Where it got to,
    /// unless that was the end.
    ///
    /// # Errors
    /// Any.
    pub async fn sweep_turns(
        &self,
        from: &SweptTo,
        queue_id: Option<i64>,
    ) -> Result<(Promoted, Option<SweptTo>), Error> {
        let rows = sqlx::query(SWEEP_TURNS)
            .bind(from.0)
            .bind(&from.1)
            .bind(Self::SWEEP_KEYS)
            .bind(queue_id)
            .fetch_all(&self.pool)
            .await?;
        let mut stuck = Vec::new();
        let (mut idle_in, mut idle_keys) = (Vec::new(), Vec::new());
        let mut last = None;
        for row in &rows {
            let (queue_id, key): (i64, String) = (row.try_get("queue_id")?, row.try_get("key")?);
            match row.try_get::<&str, _>("state")? {
                "stuck" => stuck.push(Turn::key(queue_id, &key)),
                "idle" => {
                    idle_in.push(queue_id);
                    idle_keys.push(key.clone());
                }
                _ => {}
            }
            last = Some((queue_id, key));
        }
        let promoted = self.next_turns(&stuck).await?;
        if !idle_in.is_empty() {
            sqlx::query(LEAVE_TURNS)
                .bind(idle_in)
                .bind(idle_keys)
                .fetch_one(&self.pool)
                .await?;
        }
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= Self::SWEEP_KEYS;
        Ok((promoted, last.filter(|_| full)))
    }

    /// As [`expire`](Self::expire), for what waits for its key's turn in these
    /// queues.
    ///
    /// # Errors
    /// Any.
    pub async fn expire_lined_up(&self, queue_ids: &[i64]) -> Result<Vec<i64>, Error> {
        let rows = sqlx::query(EXPIRE_LINED_UP)
            .bind(Self::EXPIRED)
            .bind(queue_ids)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// A page of the keys of a queue that do not move, in order, from behind
    /// `after`, and where the next page begins.
    ///
    /// # Errors
    /// Any.
    pub async fn blocked_keys(
        &self,
        queue_id: i64,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<BlockedKey>, Option<String>), Error> {
        let mut blocked = Vec::new();
        let mut after = after.to_owned();
        let page = i64::try_from(limit + 1).unwrap_or(i64::MAX).max(200);
        // Keys that flow are passed over.
        loop {
            let rows = sqlx::query(BLOCKED_KEYS)
                .bind(queue_id)
                .bind(&after)
                .bind(page)
                .bind(Self::COUNTED_BEHIND)
                .fetch_all(&self.pool)
                .await?;
            for row in &rows {
                let Some(reason) = row.try_get("reason")? else {
                    continue;
                };
                if blocked.len() == limit {
                    let next = blocked.last().map(|last: &BlockedKey| last.key.clone());
                    return Ok((blocked, next));
                }
                blocked.push(BlockedKey {
                    key: row.try_get("key")?,
                    reason,
                    message_id: row.try_get("message_id")?,
                    since: row.try_get("since")?,
                    until: row.try_get("until")?,
                    waiting: row.try_get("waiting")?,
                });
            }
            match rows.last() {
                Some(last) if i64::try_from(rows.len()).unwrap_or(0) >= page => {
                    after = last.try_get("key")?;
                }
                _ => return Ok((blocked, None)),
            }
        }
    }

    /// Lets keys of a queue flow again; a result for each, once. Who calls this
    /// passes their turns on afterwards.
    ///
    /// # Errors
    /// Any.
    pub async fn unblock(&self, queue_id: i64, keys: &[String]) -> Result<Vec<Unblocked>, Error> {
        let rows = sqlx::query(UNBLOCK)
            .bind(queue_id)
            .bind(keys)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Unblocked {
                    key: row.try_get("key")?,
                    dead_letters: row.try_get("dead_letters")?,
                    woken: row.try_get("woken")?,
                    leased: row.try_get("leased")?,
                })
            })
            .collect()
    }
}
