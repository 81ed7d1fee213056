//! The batcher by itself, over a statement that waits until it is let through.

use std::sync::{Arc, Mutex};

use postrider::batch::{Batcher, Bounds, Weigh};
use postrider::store::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{Begun, begin, eventually};

#[derive(Debug, Clone, Copy)]
struct Job {
    number: u32,
    rows: usize,
    bytes: usize,
}

impl Weigh for Job {
    fn rows(&self) -> usize {
        self.rows
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// One row, one byte.
fn job(number: u32) -> Job {
    Job {
        number,
        rows: 1,
        bytes: 1,
    }
}

/// Statements that hold such a job fail as one that the database refuses does.
const BAD: u32 = 13;
/// And such, as one that did not get through to the database does.
const AWAY: u32 = 14;
/// And such panic.
const BUG: u32 = 15;

const ROOMY: Bounds = Bounds {
    name: "test",
    writers: 1,
    alongside: 0,
    rows: 1000,
    bytes: 1000,
    waiting_bytes: 1000,
};

/// A batcher whose statements each need a permit, and note what they ran.
struct Bench {
    batcher: Batcher<Job, u32>,
    permits: Arc<Semaphore>,
    begun: Batches,
    ended: Batches,
    stop: CancellationToken,
    tracker: TaskTracker,
}

type Batches = Arc<Mutex<Vec<Vec<u32>>>>;
type Call<'a> = Begun<'a, Result<u32, Error>>;

impl Bench {
    fn start(bounds: Bounds) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let permits = Arc::new(Semaphore::new(0));
        let (begun, ended) = (Batches::default(), Batches::default());
        let shared = (Arc::clone(&permits), Arc::clone(&begun), Arc::clone(&ended));
        let batcher = Batcher::start(&tracker, &stop, bounds, move |jobs: Arc<Vec<Job>>| {
            let (permits, begun, ended) = shared.clone();
            async move {
                let numbers: Vec<u32> = jobs.iter().map(|job| job.number).collect();
                begun.lock().unwrap().push(numbers.clone());
                permits.acquire().await.unwrap().forget();
                ended.lock().unwrap().push(numbers.clone());
                if numbers.contains(&BAD) {
                    return Err(sqlx::Error::RowNotFound.into());
                }
                if numbers.contains(&AWAY) {
                    return Err(sqlx::Error::PoolTimedOut.into());
                }
                assert!(!numbers.contains(&BUG), "a bug, for the test");
                Ok(numbers.into_iter().map(|number| number * 10).collect())
            }
        });
        Self {
            batcher,
            permits,
            begun,
            ended,
            stop,
            tracker,
        }
    }

    /// A call that stands in the queue, or that was refused: then the answer.
    async fn ask(&self, job: Job) -> Result<Call<'_>, Result<u32, Error>> {
        begin(self.batcher.call(job)).await
    }

    async fn ask_each(&self, jobs: impl IntoIterator<Item = Job>) -> Vec<Call<'_>> {
        let mut calls = Vec::new();
        for job in jobs {
            calls.push(self.ask(job).await.ok().unwrap());
        }
        calls
    }

    /// Asks for a job and waits until its statement runs: what is asked for
    /// next has to wait.
    async fn occupied(&self) -> Call<'_> {
        let call = self.ask(job(0)).await.ok().unwrap();
        eventually("the statement runs", async || {
            !self.begun.lock().unwrap().is_empty()
        })
        .await;
        call
    }

    fn ended(&self) -> Vec<Vec<u32>> {
        self.ended.lock().unwrap().clone()
    }
}

async fn answers(calls: Vec<Call<'_>>) -> Vec<Result<u32, Error>> {
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_statement_runs_is_the_next_one_and_answered_in_order() {
    let bench = Bench::start(ROOMY);
    let mut calls = vec![bench.occupied().await];
    calls.extend(bench.ask_each((1..=6).map(job)).await);
    bench.permits.add_permits(2);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20, 30, 40, 50, 60]);
    assert_eq!(bench.ended(), [vec![0], vec![1, 2, 3, 4, 5, 6]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_bounded_by_rows_and_by_bytes_and_takes_one_request_of_any_size() {
    let bench = Bench::start(Bounds {
        rows: 10,
        bytes: 100,
        ..ROOMY
    });
    let mut calls = vec![bench.occupied().await];
    for (number, rows, bytes) in [
        // Ten rows, and no eleventh.
        (1, 4, 1),
        (2, 6, 1),
        (3, 1, 1),
        // Alone, though too large: there is no smaller one.
        (4, 11, 1),
        // A hundred bytes.
        (5, 1, 60),
        (6, 1, 40),
        (7, 1, 1),
        (8, 1, 500),
        (9, 1, 1),
    ] {
        let job = Job {
            number,
            rows,
            bytes,
        };
        calls.extend(bench.ask_each([job]).await);
    }
    bench.permits.add_permits(100);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    let expected: [&[u32]; 7] = [&[0], &[1, 2], &[3], &[4], &[5, 6], &[7], &[8]];
    assert_eq!(bench.ended()[..7], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_bound_a_request_is_refused_at_once_until_there_is_room_again() {
    let bench = Bench::start(Bounds {
        waiting_bytes: 100,
        ..ROOMY
    });
    let heavy = |number| Job {
        number,
        rows: 1,
        bytes: 40,
    };
    let mut calls = vec![bench.occupied().await];
    calls.extend(bench.ask_each([heavy(1), heavy(2)]).await);
    // The third would be 120 bytes: its first poll is its last.
    let refused = bench.ask(heavy(3)).await.err().unwrap();
    assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
    // What is small still has room, to the byte.
    let last = Job {
        number: 4,
        rows: 1,
        bytes: 20,
    };
    calls.extend(bench.ask_each([last]).await);
    assert!(bench.ask(job(5)).await.is_err());

    bench.permits.add_permits(100);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20, 40]);
    assert_eq!(bench.batcher.call(heavy(6)).await.unwrap(), 60);
    // A request larger than the bound is not refused for ever.
    let huge = Job {
        number: 7,
        rows: 1,
        bytes: 500,
    };
    assert_eq!(bench.batcher.call(huge).await.unwrap(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_request_fails_alone() {
    let bench = Bench::start(ROOMY);
    let first = bench.occupied().await;
    let calls = bench.ask_each([1, 2, BAD, 3, 4].map(job)).await;
    bench.permits.add_permits(100);
    first.await.unwrap();
    let answers = answers(calls).await;
    let good: Vec<Option<u32>> = answers
        .iter()
        .map(|answer| answer.as_ref().ok().copied())
        .collect();
    assert_eq!(good, [Some(10), Some(20), None, Some(30), Some(40)]);
    let bad = answers[2].as_ref();
    assert!(matches!(bad, Err(Error::Inconsistent(_))), "{bad:?}");
    assert_eq!(bench.batcher.call(job(5)).await.unwrap(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_database_is_away_the_whole_batch_hears_it_once_and_the_next_goes_through() {
    let bench = Bench::start(ROOMY);
    let first = bench.occupied().await;
    let calls = bench.ask_each([1, AWAY, 2].map(job)).await;
    bench.permits.add_permits(100);
    first.await.unwrap();
    for answer in answers(calls).await {
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    }
    assert_eq!(bench.batcher.call(job(3)).await.unwrap(), 30);
    // Whether it was done is not known, so it is not done again.
    assert_eq!(bench.ended(), [vec![0], vec![1, AWAY, 2], vec![3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_batch_and_the_writer_goes_on() {
    let bench = Bench::start(ROOMY);
    let first = bench.occupied().await;
    let calls = bench.ask_each([1, BUG, 2].map(job)).await;
    bench.permits.add_permits(100);
    first.await.unwrap();
    for answer in answers(calls).await {
        assert!(matches!(answer, Err(Error::Panicked)), "{answer:?}");
    }
    assert_eq!(bench.batcher.call(job(3)).await.unwrap(), 30);
    // Its statement may have taken effect, so it is not done again.
    assert_eq!(bench.ended(), [vec![0], vec![1, BUG, 2], vec![3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_cancel_no_statement_and_shift_no_answer() {
    let bench = Bench::start(ROOMY);
    let running = bench.occupied().await;
    let mut calls = bench.ask_each((1..=3).map(job)).await;
    drop(running);
    drop(calls.remove(1));
    bench.permits.add_permits(2);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [10, 30]);
    assert_eq!(bench.ended(), [vec![0], vec![1, 2, 3]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_writers_work_when_there_is_work_for_all() {
    let bench = Bench::start(Bounds {
        writers: 2,
        rows: 1,
        ..ROOMY
    });
    let mut calls = vec![bench.occupied().await];
    calls.extend(bench.ask_each((1..=2).map(job)).await);
    eventually("two statements run", async || {
        bench.begun.lock().unwrap().len() == 2
    })
    .await;
    bench.permits.add_permits(3);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_statement_is_sent_only_for_enough_rows() {
    let bench = Bench::start(Bounds {
        writers: 2,
        alongside: 3,
        ..ROOMY
    });
    let mut calls = vec![bench.occupied().await];
    calls.extend(bench.ask_each((1..=2).map(job)).await);
    calls.extend(bench.ask_each((3..=3).map(job)).await);
    eventually("the second statement runs", async || {
        bench.begun.lock().unwrap().len() == 2
    })
    .await;
    // All three, although the first two were there before.
    assert_eq!(bench.begun.lock().unwrap()[1], [1, 2, 3]);
    bench.permits.add_permits(3);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20, 30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_when_it_is_told_to_stop_is_still_answered() {
    let bench = Bench::start(ROOMY);
    let mut calls = vec![bench.occupied().await];
    calls.extend(bench.ask_each((1..=3).map(job)).await);
    bench.stop.cancel();
    bench.tracker.close();
    bench.permits.add_permits(100);
    let answers: Vec<u32> = answers(calls).await.into_iter().flatten().collect();
    assert_eq!(answers, [0, 10, 20, 30]);
    bench.tracker.wait().await;
}
