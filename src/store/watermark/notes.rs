//! Notes of how far the sequences had come, until all that drew up to there have
//! ended.

use std::time::{Duration, Instant};

use super::State;

/// How long a note waits before it is asked whether that is for a visitor of the
/// SQL door.
const HELD_UP: Duration = Duration::from_millis(500);

/// How far the sequences had come at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) taken: Instant,
    pub(super) position: i64,
    pub(super) tally: i64,
    /// All transactions that ran then are below this id.
    pub(super) below_xid: Option<i64>,
}

impl State {
    /// Whether the oldest note has waited for long for a transaction that runs.
    pub(super) fn is_held_up(&self, xmin: i64) -> bool {
        self.notes.front().is_some_and(|note| {
            note.taken.elapsed() > HELD_UP && note.below_xid.is_some_and(|below| xmin < below)
        })
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
