//! The whole cycle with a hand-held clock, and what always holds.

use proptest::prelude::*;

use super::*;
use crate::domain::Seconds;

const SETTINGS: BreakerSettings = BreakerSettings {
    failure_rate: 0.5,
    window: 4,
    min_calls: 4,
    open: Seconds::new(30),
};

fn feed(breaker: &mut Breaker, results: &[bool], now: i64) -> Vec<Transition> {
    results
        .iter()
        .filter_map(|success| {
            let call = breaker.call();
            breaker.record(&SETTINGS, call, *success, now, 10)
        })
        .collect()
}

fn opened_at(now: i64) -> Breaker {
    let mut breaker = Breaker::default();
    assert_eq!(feed(&mut breaker, &[false; 4], now), [Transition::Opened]);
    breaker
}

fn half_opened_at(now: i64) -> Breaker {
    let mut breaker = opened_at(now - 30_000);
    assert_eq!(
        breaker.begin_probe(&SETTINGS, now, now + 15_000),
        Some(Transition::HalfOpened)
    );
    breaker
}

#[test]
fn the_whole_cycle_from_closed_to_closed() {
    let mut breaker = Breaker::default();
    assert_eq!(breaker.allowance(&SETTINGS, 0, 10), 10);
    assert_eq!(feed(&mut breaker, &[true, false, true], 0), []);
    assert_eq!(feed(&mut breaker, &[false], 1000), [Transition::Opened]);
    assert_eq!(breaker.state(), BreakerState::Open { since: 1000 });

    assert_eq!(breaker.allowance(&SETTINGS, 30_999, 10), 0);
    assert_eq!(breaker.begin_probe(&SETTINGS, 30_999, 40_000), None);
    assert_eq!(breaker.allowance(&SETTINGS, 31_000, 10), 1);
    assert_eq!(
        breaker.begin_probe(&SETTINGS, 31_000, 46_000),
        Some(Transition::HalfOpened)
    );
    assert_eq!(breaker.allowance(&SETTINGS, 31_000, 10), 0);

    assert_eq!(
        feed(&mut breaker, &[true], 32_000),
        [Transition::Recovering]
    );
    let mut allowances = vec![breaker.allowance(&SETTINGS, 32_000, 10)];
    let mut successes = 0;
    while breaker.state() != BreakerState::Closed {
        feed(&mut breaker, &[true], 33_000);
        successes += 1;
        let allowance = breaker.allowance(&SETTINGS, 33_000, 10);
        if allowances.last() != Some(&allowance) {
            allowances.push(allowance);
        }
    }
    assert_eq!(allowances, [1, 2, 4, 8, 10]);
    assert_eq!(successes, 1 + 2 + 4 + 8);
    // What was before is forgotten.
    assert_eq!(feed(&mut breaker, &[false, false, false], 34_000), []);
    assert_eq!(feed(&mut breaker, &[false], 34_000), [Transition::Opened]);
}

#[test]
fn a_probe_that_fails_opens_it_for_the_whole_time_again() {
    let mut breaker = half_opened_at(100_000);
    assert_eq!(
        feed(&mut breaker, &[false], 101_000),
        [Transition::Reopened]
    );
    assert_eq!(breaker.allowance(&SETTINGS, 130_999, 10), 0);
    assert_eq!(breaker.allowance(&SETTINGS, 131_000, 10), 1);
}

#[test]
fn a_failure_while_recovering_opens_it_again() {
    let mut breaker = half_opened_at(100_000);
    feed(&mut breaker, &[true, true, true], 101_000);
    assert_eq!(breaker.allowance(&SETTINGS, 101_000, 10), 2);
    assert_eq!(
        feed(&mut breaker, &[false], 102_000),
        [Transition::Reopened]
    );
    assert_eq!(breaker.allowance(&SETTINGS, 102_000, 10), 0);
}

#[test]
fn a_lost_probe_gives_way_to_another_and_its_late_result_counts_for_nothing() {
    let mut breaker = half_opened_at(100_000);
    let lost = breaker.call();
    assert_eq!(breaker.allowance(&SETTINGS, 114_999, 10), 0);
    assert_eq!(breaker.allowance(&SETTINGS, 115_000, 10), 1);
    assert!(breaker.begin_probe(&SETTINGS, 115_000, 130_000).is_some());
    let now = breaker.clone();
    assert_eq!(breaker.record(&SETTINGS, lost, true, 115_001, 10), None);
    assert_eq!(breaker.record(&SETTINGS, lost, false, 115_001, 10), None);
    assert_eq!(breaker, now);
}

#[test]
fn results_of_calls_from_before_it_opened_count_for_nothing() {
    let mut breaker = Breaker::default();
    let before = breaker.call();
    feed(&mut breaker, &[false; 4], 0);
    assert_eq!(breaker.record(&SETTINGS, before, true, 1, 10), None);
    assert!(breaker.begin_probe(&SETTINGS, 30_000, 45_000).is_some());
    assert_eq!(breaker.record(&SETTINGS, before, true, 30_001, 10), None);
    assert_eq!(breaker.record(&SETTINGS, before, false, 30_001, 10), None);
    assert_eq!(breaker.state(), BreakerState::HalfOpen { since: 30_000 });
}

#[test]
fn a_probe_that_was_told_to_wait_gives_way_to_another() {
    let mut breaker = half_opened_at(100_000);
    let call = breaker.call();
    breaker.give_back(call, 101_000);
    assert_eq!(breaker.allowance(&SETTINGS, 101_000, 10), 1);
    assert!(breaker.begin_probe(&SETTINGS, 101_000, 116_000).is_some());
}

#[test]
fn with_one_in_flight_a_good_probe_closes_it() {
    let mut breaker = half_opened_at(100_000);
    let call = breaker.call();
    assert_eq!(
        breaker.record(&SETTINGS, call, true, 101_000, 1),
        Some(Transition::Closed)
    );
}

#[test]
fn a_window_made_smaller_forgets_the_oldest() {
    let mut breaker = Breaker::default();
    feed(&mut breaker, &[false, true, true], 0);
    let smaller = BreakerSettings {
        window: 2,
        min_calls: 2,
        ..SETTINGS
    };
    let call = breaker.call();
    assert_eq!(breaker.record(&smaller, call, true, 0, 10), None);
    let json = serde_json::to_value(&breaker).expect("serializes");
    assert_eq!(json["window"], "11");
}

#[test]
fn settings_out_of_range_are_named() {
    let named = |settings: BreakerSettings| {
        let mut wrong = Vec::new();
        settings.check("/circuit_breaker", &mut wrong);
        wrong.into_iter().map(|w| w.pointer).collect::<Vec<_>>()
    };
    assert!(named(BreakerSettings::default()).is_empty());
    let nonsense = BreakerSettings {
        failure_rate: f64::NAN,
        window: 0,
        min_calls: 0,
        open: Seconds::ZERO,
    };
    assert_eq!(
        named(nonsense),
        ["failure_rate", "window", "min_calls", "open_seconds"]
            .map(|field| format!("/circuit_breaker/{field}"))
    );
    let more_than_the_window = BreakerSettings {
        window: 5,
        min_calls: 6,
        ..BreakerSettings::default()
    };
    assert_eq!(named(more_than_the_window), ["/circuit_breaker/min_calls"]);
}

#[test]
fn what_is_stored_is_short_and_legible() {
    let mut breaker = Breaker::default();
    feed(&mut breaker, &[true, false], 0);
    let json = |breaker: &Breaker| serde_json::to_string(breaker).expect("serializes");
    assert_eq!(
        json(&breaker),
        r#"{"epoch":0,"state":"closed","window":"10"}"#
    );
    assert_eq!(
        json(&half_opened_at(100_000)),
        r#"{"epoch":2,"state":"half-open","since":100000,"probe_until":115000}"#
    );
}

/// What can happen to a breaker.
#[derive(Debug, Clone)]
enum Event {
    Pass(i64),
    Begin,
    End { which: usize, success: bool },
    GiveBack { which: usize },
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0i64..40_000).prop_map(Event::Pass),
        4 => Just(Event::Begin),
        3 => (0usize..10, any::<bool>()).prop_map(|(which, success)| Event::End { which, success }),
        1 => (0usize..10).prop_map(|which| Event::GiveBack { which }),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #[test]
    fn never_more_calls_than_allowed_and_never_two_probes(
        events in prop::collection::vec(any_event(), 0..200),
        max_in_flight in 1u32..20,
    ) {
        let mut breaker = Breaker::default();
        let mut now = 0;
        let mut calls: Vec<Call> = Vec::new();
        for event in events {
            match event {
                Event::Pass(ms) => now += ms,
                Event::Begin => {
                    let allowance = breaker.allowance(&SETTINGS, now, max_in_flight);
                    prop_assert!(allowance <= max_in_flight);
                    if breaker.wants_probe(&SETTINGS, now) {
                        prop_assert_eq!(allowance, 1);
                        let begun = breaker.begin_probe(&SETTINGS, now, now + 15_000);
                        prop_assert_eq!(begun, Some(Transition::HalfOpened));
                        calls.push(breaker.call());
                        // No second one.
                        prop_assert_eq!(breaker.allowance(&SETTINGS, now, max_in_flight), 0);
                        prop_assert_eq!(breaker.begin_probe(&SETTINGS, now, now + 1), None);
                    } else if calls.len() < allowance as usize {
                        calls.push(breaker.call());
                    }
                }
                Event::End { which, success } if which < calls.len() => {
                    let before = breaker.state();
                    let call = calls.remove(which);
                    let epoch = breaker.epoch();
                    let done =
                        breaker.record(&SETTINGS, call, success, now, max_in_flight);
                    prop_assert_eq!(breaker.epoch(), epoch + u64::from(done.is_some()));
                    match done {
                        Some(Transition::Opened) => {
                            prop_assert_eq!(before, BreakerState::Closed);
                        }
                        Some(Transition::Reopened) => prop_assert!(!success),
                        Some(Transition::Closed | Transition::Recovering) => {
                            prop_assert!(success);
                        }
                        Some(Transition::HalfOpened) => prop_assert!(false),
                        None => {}
                    }
                    if matches!(done, Some(Transition::Opened | Transition::Reopened)) {
                        prop_assert_eq!(breaker.allowance(&SETTINGS, now, max_in_flight), 0);
                    }
                }
                Event::GiveBack { which } if which < calls.len() => {
                    breaker.give_back(calls.remove(which), now);
                }
                Event::End { .. } | Event::GiveBack { .. } => {}
                Event::Restart => {
                    let json = serde_json::to_string(&breaker).expect("serializes");
                    let read: Breaker = serde_json::from_str(&json).expect("parses");
                    prop_assert_eq!(&read, &breaker);
                    breaker = read;
                }
            }
        }
    }

    #[test]
    fn it_opens_exactly_when_the_rate_is_reached(
        results in prop::collection::vec(any::<bool>(), 1..100),
        window in 1u32..20, least in 1u32..20, percent in 1u32..=100,
    ) {
        let settings = BreakerSettings {
            failure_rate: f64::from(percent) / 100.0,
            window,
            min_calls: least.min(window),
            open: Seconds::new(30),
        };
        let mut breaker = Breaker::default();
        let opened = results.iter().position(|success| {
            let call = breaker.call();
            breaker.record(&settings, call, *success, 0, 10).is_some()
        });
        // In whole numbers, over the calls as they came.
        let expected = (0..results.len()).find(|at| {
            let begin = (at + 1).saturating_sub(window as usize);
            let seen = &results[begin..=*at];
            let failures = seen.iter().filter(|success| !**success).count();
            seen.len() >= settings.min_calls as usize
                && failures * 100 >= seen.len() * percent as usize
        });
        prop_assert_eq!(opened, expected);
    }
}
