//! A time at which somebody has to do something.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The earliest of the times that were noted.
#[derive(Debug, Default)]
pub struct Alarm {
    at: Mutex<Option<Instant>>,
    sooner: Notify,
}

impl Alarm {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.at
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// It rings after so long, or before.
    pub fn note(&self, after: Duration) {
        // What is years away is noted again.
        let Some(time) = Instant::now().checked_add(after) else {
            return;
        };
        let mut at = self.lock();
        if at.is_none_or(|at| time < at) {
            *at = Some(time);
            self.sooner.notify_one();
        }
    }

    /// Waits until it rings; it then rings no more.
    pub async fn rings(&self) {
        loop {
            let sooner = self.sooner.notified();
            let at = *self.lock();
            match at {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {
                        // A note of the last moment is of the same ring.
                        *self.lock() = None;
                        return;
                    }
                    () = sooner => {}
                },
                None => sooner.await,
            }
        }
    }
}
