//! How far back something that becomes due can be due.
//!
//! What was dealt with stays in the index for as long as somebody holds a snapshot.
//! So a look for what is due does not begin with all that ever was, but a little
//! before the last look that found nothing.

use std::time::{Duration, Instant};

/// How many seconds back a look goes that has none before it.
const EVER: f64 = 1e9;

/// When nothing was due.
#[derive(Debug, Default)]
pub(super) struct Lookback {
    nothing: Option<Instant>,
}

impl Lookback {
    /// How many seconds back something can be due. `slack`: how much longer than until
    /// the last look, for what that could not see.
    pub(super) fn seconds(&self, slack: Duration) -> f64 {
        self.nothing
            .map_or(EVER, |nothing| (nothing.elapsed() + slack).as_secs_f64())
    }

    /// A look that began at `asked` has left nothing.
    pub(super) fn nothing_due(&mut self, asked: Instant) {
        self.nothing = Some(asked);
    }
}

/// That it is time to forget what is known, since databases are set back and fail
/// over.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    whole: Option<Instant>,
}

impl Forgetting {
    const AFTER: Duration = Duration::from_mins(10);

    /// Whether it is time; the next time is then counted from now.
    pub(super) fn is_due(&mut self) -> bool {
        let is_due = (self.whole).is_none_or(|whole| whole.elapsed() > Self::AFTER);
        if is_due {
            self.whole = Some(Instant::now());
        }
        is_due
    }
}
