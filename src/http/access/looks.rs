//! Looks into the database for keys: one at a time for each id, and few at a time
//! for ids that are not in memory, which anybody can make up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Looks at the same time for ids that are not in memory: a few of the
/// database's connections, and a thousand looks a second.
const TURNS: usize = 4;

/// How long one may wait for its turn. After a restart many keys come at once;
/// when the database does not answer, that is long enough.
const TURN_TIME: Duration = Duration::from_secs(1);

/// What looks are under way, which bring a `T`.
pub(super) struct Looks<T> {
    /// Those that have ended are swept before the map would grow.
    under_way: Mutex<HashMap<String, Weak<OnceCell<T>>>>,
    turns: Semaphore,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            turns: Semaphore::new(TURNS),
        }
    }
}

impl<T: Clone> Looks<T> {
    /// What the look for this id brings: one that is under way, if there is, and
    /// this one otherwise. If whoever began it goes away, the next goes on with
    /// his own.
    pub(super) async fn join(&self, id: &str, look: impl Future<Output = T>) -> T {
        let cell = self.cell(id);
        cell.get_or_init(|| look).await.clone()
    }

    fn cell(&self, id: &str) -> Arc<OnceCell<T>> {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // What one that has ended brought may be old.
        if let Some(cell) = under_way.get(id).and_then(Weak::upgrade)
            && !cell.initialized()
        {
            return cell;
        }
        if under_way.len() == under_way.capacity() {
            under_way.retain(|_, cell| cell.strong_count() > 0);
        }
        let cell = Arc::new(OnceCell::new());
        under_way.insert(id.to_owned(), Arc::downgrade(&cell));
        cell
    }

    /// The turn of a look for what is not in memory; `None` if it takes too long
    /// to come.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        timeout(TURN_TIME, self.turns.acquire()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_look_is_under_way_gets_what_it_brings() {
        let (looks, go) = (Looks::default(), Notify::new());
        let first = looks.join("a", async {
            go.notified().await;
            1
        });
        let others = join_all((0..10).map(|_| looks.join("a", ready(2))));
        let another = async {
            // Another id has its own.
            assert_eq!(looks.join("b", ready(3)).await, 3);
            go.notify_one();
        };
        let (first, others, ()) = tokio::join!(first, others, another);
        assert_eq!((first, others), (1, vec![1; 10]));
        assert_eq!(looks.join("a", ready(4)).await, 4);
    }

    #[tokio::test]
    async fn a_look_whose_asker_goes_is_taken_over() {
        let looks = Looks::default();
        let mut first = Box::pin(looks.join("a", pending()));
        assert_eq!(first.as_mut().now_or_never(), None);
        let mut second = Box::pin(looks.join("a", ready(2)));
        assert_eq!(second.as_mut().now_or_never(), None);
        drop(first);
        assert_eq!(second.await, 2);
    }

    #[tokio::test]
    async fn looks_that_have_ended_take_no_memory() {
        let looks = Looks::default();
        for id in 0..10_000 {
            looks.join(&id.to_string(), ready(())).await;
        }
        let under_way = looks.under_way.lock().expect("whole");
        assert!(under_way.capacity() < 100, "{}", under_way.capacity());
    }

    #[tokio::test]
    async fn a_turn_that_does_not_come_is_given_up() {
        let looks = Looks::<()>::default();
        let turns = join_all((0..TURNS).map(|_| looks.turn())).await;
        assert!(turns.iter().all(Option::is_some));
        assert!(looks.turn().await.is_none());
        drop(turns);
        assert!(looks.turn().await.is_some());
    }
}
