//! The batcher under more than its statements can take; how much that is, is known.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::batch::{Batcher, Bounds, Weigh};
use postrider::store::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One row.
#[derive(Debug)]
struct Job;

impl Weigh for Job {
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        100
    }
}

const BOUNDS: Bounds = Bounds {
    name: "test",
    writers: 2,
    alongside: 5,
    rows: 10,
    bytes: usize::MAX,
    waiting_bytes: usize::MAX,
};

/// A batcher whose statements take so long as the mutex says.
fn start(takes: &Arc<Mutex<Duration>>) -> Arc<Batcher<Job, ()>> {
    let takes = Arc::clone(takes);
    let run = move |jobs: Arc<Vec<Job>>| {
        let takes = *takes.lock().unwrap();
        async move {
            tokio::time::sleep(takes).await;
            Ok(vec![(); jobs.len()])
        }
    };
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    Arc::new(Batcher::start(&tracker, &stop, BOUNDS, run))
}

/// What became of requests, and how long each took.
#[derive(Default)]
struct Outcome {
    accepted: Vec<Duration>,
    refused: Vec<Duration>,
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Asks `count` times, `apart` from each other, whatever comes of it.
async fn offer(batcher: &Arc<Batcher<Job, ()>>, apart: Duration, count: u32) -> Outcome {
    let mut calls = JoinSet::new();
    let began = Instant::now();
    for n in 0..count {
        tokio::time::sleep_until(began + apart * n).await;
        let batcher = Arc::clone(batcher);
        calls.spawn(async move {
            let began = Instant::now();
            (batcher.call(Job).await, began.elapsed())
        });
    }
    let mut outcome = Outcome::default();
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            (Ok(()), took) => outcome.accepted.push(took),
            (Err(Error::Overloaded), took) => outcome.refused.push(took),
            (Err(error), _) => panic!("{error}"),
        }
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn at_three_times_what_it_can_take_the_accepted_are_in_time_and_the_rest_know_at_once() {
    let cases = [(100, 3), (100, 10), (250, 3)];
    let tests = cases.map(|(takes, factor)| overload(Duration::from_millis(takes), factor));
    futures_util::future::join_all(tests).await;
}

/// No accepted request takes longer, on a machine that is busy with other tests too.
const SLOWEST: Duration = Duration::from_secs(3);

/// Statements that take so long, and so many times as much as they can take.
async fn overload(takes: Duration, factor: u32) {
    // Two statements of ten at a time.
    let apart = takes / 20 / factor;
    let count = Duration::from_secs(4).as_nanos() / apart.as_nanos();
    let count = u32::try_from(count).unwrap();
    let mut tries = 0;
    loop {
        // A new one each time: it has learned nothing from the last.
        let batcher = start(&Arc::new(Mutex::new(takes)));
        let outcome = offer(&batcher, apart, count).await;
        let (good, what) = judge(outcome, takes, factor, count);
        tries += 1;
        if good {
            return;
        }
        // A machine that is busy with other tests may be slow; not every time.
        assert!(tries < 3, "{what}");
    }
}

/// Whether all is as it should be, and what it is. However busy the machine: some
/// are accepted, none too late, and the others refused.
fn judge(outcome: Outcome, takes: Duration, factor: u32, count: u32) -> (bool, String) {
    let (accepted, refused) = (outcome.accepted.len(), outcome.refused.len());
    let capacity = usize::try_from(count / factor).unwrap();
    let what = format!("{takes:?} x {factor}: {accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{what}");
    let slowest = outcome.accepted.iter().max().unwrap();
    assert!(*slowest < SLOWEST, "{what}, the slowest {slowest:?}");
    let (in_time, at_once) = (p99(outcome.accepted), p99(outcome.refused));
    let what = format!("{what}, p99 {in_time:?} and {at_once:?}");
    // As much as it can take, and what waits in the end.
    let good = accepted >= capacity * 7 / 10
        && accepted <= capacity * 13 / 10
        && in_time < Duration::from_secs(1)
        && at_once < Duration::from_millis(100);
    (good, what)
}

#[tokio::test(flavor = "multi_thread")]
async fn below_what_it_can_take_nobody_is_refused_however_it_comes() {
    let batcher = start(&Arc::new(Mutex::new(Duration::from_millis(100))));
    // 120/s of 200/s.
    let steady = offer(&batcher, Duration::from_micros(8333), 240).await;
    assert_eq!(steady.refused.len(), 0);
    // In heaps of a quarter of a second's worth.
    for _ in 0..3 {
        let heap = offer(&batcher, Duration::ZERO, 50).await;
        assert_eq!(heap.refused.len(), 0);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_statement_that_is_stuck_newcomers_are_refused_until_it_is_over() {
    let takes = Arc::new(Mutex::new(Duration::from_millis(5)));
    let batcher = start(&takes);
    offer(&batcher, Duration::from_millis(5), 100).await;
    *takes.lock().unwrap() = Duration::from_secs(3);
    let stuck = {
        let batcher = Arc::clone(&batcher);
        let mut calls = JoinSet::new();
        // The first two run, the rest waits.
        for _ in 0..8 {
            let batcher = Arc::clone(&batcher);
            calls.spawn(async move { batcher.call(Job).await });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        calls
    };
    *takes.lock().unwrap() = Duration::from_millis(5);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let early = tokio::time::timeout(Duration::from_millis(10), batcher.call(Job)).await;
    assert!(early.is_err(), "it waits");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = offer(&batcher, Duration::from_millis(10), 100).await;
    assert_eq!(late.refused.len(), 100);
    assert!(p99(late.refused) < Duration::from_millis(100));
    // Who was let in before is served.
    for answer in stuck.join_all().await {
        answer.unwrap();
    }
    // One stall is no reason to refuse anybody afterwards.
    let after = offer(&batcher, Duration::from_millis(5), 200).await;
    assert_eq!(after.refused.len(), 0);
}
