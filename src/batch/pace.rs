//! How long a request would have to wait, judged by how statements go.
//!
//! Two signs say that it is too long, and either is enough:
//!
//! - So many full statements are ahead that the answer would come after
//!   [`IN_TIME`] at the pace of the last ones. This is what holds under a steady
//!   overload: the age of the oldest request alone tells too late, since at three
//!   times what the database can take, half a second's worth of requests is one
//!   and a half seconds' worth of work.
//! - The oldest has waited for longer than [`PATIENCE`]. So it is when the database
//!   does not answer, and nothing is known of the pace.

use std::time::Duration;

use super::Bounds;

/// How long a request may take that has to wait for others. Below the second that
/// we promise nearly all of them, since the pace is a guess.
const IN_TIME: Duration = Duration::from_millis(750);

/// How long the oldest may have waited for its statement to be sent.
const PATIENCE: Duration = Duration::from_millis(500);

/// One statement that took longer is taken for so long: a stall says little about
/// the next.
const LONGEST: Duration = Duration::from_secs(1);

/// What statements take. It rises at once and falls slowly: too much is let in
/// within a moment.
#[derive(Debug, Default)]
pub(super) struct Pace {
    statement: Duration,
}

/// What a request would have to wait for.
pub(super) struct Ahead {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// How long the first of them has waited.
    pub(super) oldest: Duration,
    /// How long the statement has run that runs longest.
    pub(super) running: Duration,
}

impl Pace {
    /// A statement has ended.
    pub(super) fn note(&mut self, took: Duration) {
        let took = took.min(LONGEST);
        self.statement = took.max((3 * self.statement + took) / 4);
    }

    /// Whether one more request would have to wait for too long.
    pub(super) fn is_too_slow(&self, queue: &Ahead, bounds: &Bounds) -> bool {
        // Where each statement takes that long, waiting for one is not being stuck.
        if queue.oldest > PATIENCE.max(2 * self.statement) {
            return true;
        }
        let Ahead { rows, bytes, .. } = *queue;
        let statement = self.statement.max(queue.running.min(LONGEST));
        let ahead = (rows / bounds.rows.max(1)).max(bytes / bounds.bytes.max(1));
        let in_a_row = u32::try_from(ahead.div_ceil(bounds.writers.max(1))).unwrap_or(u32::MAX);
        // The one that runs has to end before, and its own comes after them.
        let all = in_a_row.saturating_add(2);
        in_a_row > 0 && statement.saturating_mul(all) > IN_TIME
    }
}
