//! Small statements of the hot paths one after the other, where that is quicker.
//!
//! Side by side they take each other's cores, and each has fewer rows than if it had
//! waited for the other one: what comes meanwhile would have gone with it. On 2 cores
//! 64 clients that receive and ack one by one did 17,800/s with claims and acks side by
//! side, and 20,800/s with one after the other; with 32 that publish and 32 that consume
//! it was 16,500/s and 17,400/s, for 0.87 and 0.65 of a core in Postgres.
//!
//! It pays for small ones only; whatever has many rows does not come here. And whoever
//! would have to wait for long goes at once, beside what runs:
//!
//! - Where statements take longer than [`QUICK`], on a slow disk or over a network, they
//!   share what they wait for.
//! - So do those of many queues: more than [`LINE`] are not in line.
//! - One that takes long for once holds nobody up for longer than [`QUICK`].

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// What statements take where it pays, and how long one waits for others.
const QUICK: Duration = Duration::from_millis(2);

/// How many wait at most: of publishes, claims and acks of one busy queue one runs and
/// two wait.
const LINE: usize = 2;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct OneByOne {
    turns: Semaphore,
    waiting: AtomicUsize,
    /// How long one waits: [`QUICK`].
    patience: Duration,
    /// What statements take, in microseconds.
    pace: AtomicU64,
}

/// A statement's, until it has ended.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    of: &'a OneByOne,
    since: Instant,
    permit: Option<SemaphorePermit<'a>>,
}

impl OneByOne {
    /// One after the other on up to 3 cores, two side by side on 4, and so on.
    pub(super) fn on_this_machine() -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self::side_by_side((cores / 2).max(1), QUICK)
    }

    fn side_by_side(most: usize, patience: Duration) -> Self {
        Self {
            turns: Semaphore::new(most),
            waiting: AtomicUsize::new(0),
            patience,
            pace: AtomicU64::new(0),
        }
    }

    /// Waits for the statements that run, if it is worth it.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let permit = match self.turns.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => self.wait().await,
        };
        Turn {
            of: self,
            since: Instant::now(),
            permit,
        }
    }

    async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        if Duration::from_micros(self.pace.load(Ordering::Relaxed)) > QUICK {
            return None;
        }
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Ordering::Relaxed) >= LINE {
            return None;
        }
        timeout(self.patience, self.turns.acquire())
            .await
            .ok()?
            .ok()
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let pace = self.of.pace.load(Ordering::Relaxed);
        // If two end at once one of them is not counted.
        let pace = (pace / 8 * 7).saturating_add(took / 8);
        self.of.pace.store(pace, Ordering::Relaxed);
        drop(self.permit.take());
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::{FutureExt as _, poll};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::batch::requests::ACKS;
    use crate::batch::{Batcher, Weigh};

    const FOR_EVER: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn the_next_waits_for_the_end_of_the_first_but_not_for_ever() {
        let mut all = OneByOne::side_by_side(1, FOR_EVER);
        {
            let first = all.turn().await;
            let mut next = pin!(all.turn());
            assert!(poll!(&mut next).is_pending());
            drop(first);
            let next = next.now_or_never().expect("its turn has come");
            assert!(next.permit.is_some());
        }
        all.patience = QUICK;
        let _first = all.turn().await;
        assert!(all.turn().await.permit.is_none(), "nobody makes room");
    }

    #[tokio::test]
    async fn as_many_as_there_is_room_for_run_side_by_side() {
        let all = OneByOne::side_by_side(2, FOR_EVER);
        let (_first, _second) = (all.turn().await, all.turn().await);
        assert!(poll!(pin!(all.turn())).is_pending());
    }

    #[tokio::test]
    async fn where_statements_are_slow_nobody_waits_until_they_are_quick_again() {
        let all = OneByOne::side_by_side(1, FOR_EVER);
        let _running = all.turn().await;
        all.pace.store(100_000, Ordering::Relaxed);
        let mut quick_ones = 0;
        while let Some(turn) = all.turn().now_or_never() {
            assert!(turn.permit.is_none());
            quick_ones += 1;
        }
        assert!(quick_ones > 10, "{quick_ones}");
        assert!(poll!(pin!(all.turn())).is_pending());
    }

    #[tokio::test]
    async fn no_more_wait_than_the_publishes_claims_and_acks_of_one_queue() {
        let all = OneByOne::side_by_side(1, FOR_EVER);
        let _running = all.turn().await;
        let (mut second, mut third) = (pin!(all.turn()), pin!(all.turn()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        let fourth = all.turn().now_or_never();
        assert!(fourth.is_some_and(|turn| turn.permit.is_none()));
    }

    /// A request of so many rows.
    struct Rows(usize);

    impl Weigh for Rows {
        fn rows(&self) -> usize {
            self.0
        }
        fn bytes(&self) -> usize {
            self.0
        }
    }

    /// Answers each request with how many were in its statement.
    fn counting(others: &Arc<OneByOne>) -> Batcher<Rows, usize> {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let run = |items: Arc<Vec<Rows>>| async move { Ok(vec![items.len(); items.len()]) };
        Batcher::start_among(Some(others), &tracker, &stop, ACKS, run)
    }

    async fn until_somebody_waits(others: &OneByOne) {
        let waits = async {
            while others.waiting.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        };
        let waits = timeout(Duration::from_secs(10), waits).await;
        waits.expect("nobody waits for its turn");
    }

    #[tokio::test]
    async fn what_comes_while_a_small_batch_waits_for_its_turn_goes_with_it() {
        let others = Arc::new(OneByOne::side_by_side(1, FOR_EVER));
        let batcher = counting(&others);
        let running = others.turn().await;
        let (mut first, mut second) = (pin!(batcher.call(Rows(1))), pin!(batcher.call(Rows(1))));
        assert!(poll!(&mut first).is_pending());
        until_somebody_waits(&others).await;
        assert!(poll!(&mut second).is_pending());
        drop(running);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (2, 2));
    }

    #[tokio::test]
    async fn a_large_batch_does_not_wait() {
        let others = Arc::new(OneByOne::side_by_side(1, FOR_EVER));
        let batcher = counting(&others);
        let _running = others.turn().await;
        let small = batcher.call(Rows(1));
        let mut small = pin!(small);
        assert!(poll!(&mut small).is_pending());
        until_somebody_waits(&others).await;
        // With it goes what waits.
        assert_eq!(batcher.call(Rows(ACKS.alongside)).await.unwrap(), 2);
        assert_eq!(small.await.unwrap(), 2);
    }
}
