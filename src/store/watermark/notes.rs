//! Notes of how far the sequences had come, until all that drew up to there have
//! ended.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{State, TAKE_NOTE, VISITORS};
use crate::store::{Error, Store};

/// How long a note waits before it is asked whether that is for a visitor of the
/// SQL door.
const HELD_UP: Duration = Duration::from_millis(500);

/// How long until it is asked again while the same transaction is the oldest: it
/// reads all locks there are, and looks come ten times a second.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How far the sequences had come at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) taken: Instant,
    pub(super) position: i64,
    pub(super) tally: i64,
    /// All transactions that ran then are below this id.
    pub(super) below_xid: Option<i64>,
}

impl Store {
    /// Takes a note, and raises what is settled by those before. At most two
    /// statements.
    pub(super) async fn settle_notes(&self, settling: Duration) -> Result<(), Error> {
        let taken = Instant::now();
        // All rows, so that the COMMIT is known to have been flushed.
        let rows = sqlx::query(TAKE_NOTE)
            .bind(self.watermarks.tallies())
            .fetch_all(&self.pool)
            .await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        self.watermarks.state().ask_of(row.try_get("server")?);
        let note = Note {
            taken,
            position: row.try_get("position")?,
            tally: row.try_get("tally")?,
            below_xid: None,
        };
        let first_tally: Option<i64> = row.try_get("first_tally")?;
        let (mut xmin, xmax) = (row.try_get("xmin")?, row.try_get("xmax")?);
        if self.watermarks.state().is_held_up(xmin) {
            let without = sqlx::query(VISITORS).fetch_one(&self.pool).await?;
            xmin = xmin.max(without.try_get(0)?);
        }
        let mut state = self.watermarks.state();
        if let Some(settled) = state.settle(note, xmin, xmax, settling) {
            state.tallies.raise(first_tally, settled.tally);
            state.settled = settled.position;
        }
        Ok(())
    }
}

impl State {
    /// What is known is known of this server, or is forgotten.
    fn ask_of(&mut self, server: DateTime<Utc>) {
        if self.server.is_some_and(|known| known != server) {
            tracing::info!("another server, or the same started again: watermarks begin anew");
            self.forget();
        }
        self.server = Some(server);
    }

    /// Whether the oldest note has waited for long for a transaction that runs, and
    /// for whom was not asked just now.
    pub(super) fn is_held_up(&mut self, xmin: i64) -> bool {
        let waits = self.notes.front().is_some_and(|note| {
            note.taken.elapsed() > HELD_UP && note.below_xid.is_some_and(|below| xmin < below)
        });
        let was_asked = (self.asked).is_some_and(|(of, at)| of == xmin && at.elapsed() < ASK_AGAIN);
        if !waits || was_asked {
            return false;
        }
        self.asked = Some((xmin, Instant::now()));
        true
    }

    /// Adds a note, and takes away those that have settled; answers with the
    /// last of them. `xmin` and `xmax` are of a snapshot that was taken after all
    /// earlier notes, and before this one.
    pub(super) fn settle(
        &mut self,
        note: Note,
        xmin: i64,
        xmax: i64,
        settling: Duration,
    ) -> Option<Note> {
        for earlier in self.notes.iter_mut().rev() {
            if earlier.below_xid.is_some() {
                break;
            }
            earlier.below_xid = Some(xmax);
        }
        self.notes.push_back(note);
        let mut settled = None;
        while self.notes.front().is_some_and(|n| {
            n.taken.elapsed() >= settling || n.below_xid.is_some_and(|below| xmin >= below)
        }) {
            settled = self.notes.pop_front();
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_once_a_second_for_whom_a_note_waits() {
        let mut state = State::default();
        state.notes.push_back(Note {
            taken: Instant::now().checked_sub(HELD_UP * 2).unwrap(),
            position: 1,
            tally: 1,
            below_xid: Some(10),
        });
        assert!(!state.is_held_up(10), "all have ended");
        assert!(state.is_held_up(7));
        assert!(!state.is_held_up(7), "it was asked just now");
        assert!(state.is_held_up(8), "another holds it up");
        let (xmin, at) = state.asked.unwrap();
        state.asked = Some((xmin, at.checked_sub(ASK_AGAIN).unwrap()));
        assert!(state.is_held_up(8), "that was a while ago");
    }
}
