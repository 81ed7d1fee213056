//! The whole life of a queue over HTTP, held against a model in memory: random
//! steps at two gateways that are killed, stopped and started anew, over a Postgres
//! that crashes.
//!
//! [`steps`] has what may be done, [`queue`] what has to come of it, [`world`] what
//! it is done to, and [`run`] does it. CI runs a fixed set of seeds for less than a
//! minute; `make model ARGS="--minutes 30 --seed 7"` as long as one likes. A failure
//! prints the seed and the fewest steps that reproduce it.

mod queue;
mod run;
mod steps;
mod world;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use steps::{Settings, Step};
use world::World;

/// How much is run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Each lane has a world of its own, and waits most of the time.
    lanes: u64,
    cases: u64,
    /// No case is begun after so long.
    limit: Duration,
    seed: u64,
}

impl Plan {
    /// What CI runs, or what `make model` was told.
    fn wanted() -> Self {
        let mut plan = Self {
            lanes: 3,
            cases: 6,
            limit: Duration::from_secs(40),
            seed: 1,
        };
        let arguments = std::env::var("POSTRIDER_MODEL").unwrap_or_default();
        let mut arguments = arguments.split_whitespace();
        while let Some(name) = arguments.next() {
            let value: u64 = arguments
                .next()
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| {
                    panic!("{name} takes a number: --minutes N, --seed N, --cases N, --lanes N")
                });
            match name {
                "--minutes" => {
                    plan.limit = Duration::from_secs(60 * value);
                    plan.cases = u64::MAX;
                }
                "--seed" => plan.seed = value,
                "--cases" => plan.cases = value,
                "--lanes" => plan.lanes = value,
                _ => panic!("{name} is none of --minutes, --seed, --cases, --lanes"),
            }
        }
        plan
    }
}

/// Settings and the steps that follow.
type Case = (Settings, Vec<Step>);

fn case() -> impl Strategy<Value = Case> {
    (
        steps::settings(),
        prop::collection::vec(steps::step(), 1..60),
    )
}

fn runner(seed: u64, case: u64, shrinks: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&case.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: shrinks,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Runs the cases of a lane; the first that fails, shrunk, and how many ran.
fn lane(seed: u64, cases: u64, limit: Duration, sabotage: &str) -> Result<u64, String> {
    // Of what is known to be wrong, that it is seen is enough.
    let shrinks = if sabotage.is_empty() { 400 } else { 0 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    let world = RefCell::new(runtime.block_on(World::start(sabotage)));
    for number in 0..cases {
        if began.elapsed() > limit {
            return Ok(number);
        }
        let mut runner = runner(seed, number, shrinks);
        let tree = case().new_tree(&mut runner).unwrap();
        let shrinking = Instant::now();
        let ran = runner.run_one(tree, |(settings, steps)| {
            // Whoever waits for this has waited long enough.
            if shrinking.elapsed() > Duration::from_mins(5) {
                return Ok(());
            }
            let mut world = world.borrow_mut();
            let run = run::run(&mut world, settings, &steps);
            runtime.block_on(run).map_err(TestCaseError::fail)
        });
        if let Err(error) = ran {
            return Err(match error {
                TestError::Fail(what, (settings, steps)) => {
                    let steps: Vec<String> =
                        steps.iter().map(|step| format!("    {step:?}")).collect();
                    format!(
                        "{what}\nwith {settings:?} and\n{}\nmake model ARGS=\"--seed {seed} \
                         --cases {} --lanes 1\"",
                        steps.join("\n"),
                        number + 1
                    )
                }
                TestError::Abort(what) => format!("seed {seed}, case {number}: {what}"),
            });
        }
    }
    Ok(cases)
}

#[test]
fn the_whole_life_of_a_queue_is_what_the_model_says() {
    let plan = Plan::wanted();
    let lanes: Vec<_> = (0..plan.lanes)
        .map(|lane_number| {
            std::thread::spawn(move || lane(plan.seed + lane_number, plan.cases, plan.limit, ""))
        })
        .collect();
    let mut ran = 0;
    for lane in lanes {
        match lane.join().unwrap() {
            Ok(cases) => ran += cases,
            Err(what) => panic!("{what}"),
        }
    }
    println!("{ran} cases in {} lanes agree", plan.lanes);
    assert!(ran >= plan.lanes, "not one case each");
}

/// What goes wrong, as triggers that do it behind the gateways' backs. The answers
/// are those of a gateway that knows nothing of it.
const SABOTAGES: [(&str, &str); 4] = [
    (
        "a message that comes back is lost",
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RETURN CASE WHEN NEW.attempts > 0 THEN NULL ELSE NEW END; END $$;
         CREATE TRIGGER sabotage BEFORE INSERT ON postrider.ready
             FOR EACH ROW EXECUTE FUNCTION sabotage()",
    ),
    (
        "what is last is received first",
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.position := 1000000000000 - NEW.position; RETURN NEW; END $$;
         CREATE TRIGGER sabotage BEFORE INSERT ON postrider.ready
             FOR EACH ROW EXECUTE FUNCTION sabotage()",
    ),
    (
        "priorities are not heeded",
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.priority := 0; RETURN NEW; END $$;
         CREATE TRIGGER sabotage BEFORE INSERT ON postrider.ready
             FOR EACH ROW EXECUTE FUNCTION sabotage()",
    ),
    (
        "an acked message comes again",
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_query() LIKE '-- ack:%' AND OLD.token & 2 = 0 THEN
                 INSERT INTO postrider.ready (queue_id, position, message_id, expires_at,
                     attempts, priority, own_ttl, straggler)
                 VALUES (OLD.queue_id, nextval('postrider.message_ids'), OLD.message_id,
                     OLD.expires_at, OLD.attempts, OLD.priority, true, OLD.straggler);
             END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER sabotage AFTER DELETE ON postrider.parked
             FOR EACH ROW EXECUTE FUNCTION sabotage()",
    ),
];

/// The model's own test: it has to notice.
#[test]
fn the_model_finds_what_is_done_behind_the_gateways_backs() {
    let lanes = SABOTAGES.map(|(what, sabotage)| {
        let found = std::thread::spawn(move || lane(1, 20, Duration::from_mins(1), sabotage));
        (what, found)
    });
    for (what, found) in lanes {
        let found = found.join().unwrap().expect_err(what);
        println!("{what}: {found}\n");
        // Not that something got stuck, or was answered with a 500: that panics.
        assert!(run::is_of_the_model(&found), "{what}: {found}");
    }
}
