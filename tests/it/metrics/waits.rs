//! Connections, and what waits for them and for each other.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{scrape, value};
use crate::support::{Answer, Database, Gateway, Held, config, eventually};

/// How long everything is kept waiting, at least.
const HELD: Duration = Duration::from_millis(500);

/// What must be seen of that: a request that is in hand may be on its way still.
const SEEN: f64 = 0.3;

fn call(gateway: &Gateway, verb: &str, json: &Value) -> impl Future<Output = Answer> + use<> {
    let request = gateway.request(Method::POST, &format!("/v1/queues/work/{verb}"));
    let request = request.header("content-type", "application/json");
    Answer::of(request.body(json.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_statement_or_a_connection_shows_for_how_long() {
    let database = Database::migrated().await;
    let mut few = config(&database.url());
    // One for publish and claim, two for the rest, and two that are in no pool.
    few.database_connections = 5;
    let gateway = Gateway::start(&few).await;
    gateway.queue("work", json!({})).await;
    let text = scrape(&gateway).await;
    for (pool, most) in [("hot", 1.0), ("rest", 2.0)] {
        let series = |name: &str, more: &str| {
            let series = format!("postrider_database_connections{name}{{pool=\"{pool}\"{more}}}");
            value(&text, &series).unwrap_or_else(|| panic!("no {series}: {text}"))
        };
        assert!((series("_max", "") - most).abs() < 0.1, "{text}");
        let open = series("", ",state=\"idle\"") + series("", ",state=\"busy\"");
        // Nothing hot was asked for yet, and the scrape asked the other.
        let expected = if pool == "hot" { 0.0..=0.0 } else { 1.0..=2.0 };
        assert!(expected.contains(&open), "{pool}: {text}");
    }

    let held = Held::table(&database, "ready", "EXCLUSIVE").await;
    let mut calls = JoinSet::new();
    calls.spawn(call(&gateway, "messages", &json!({"body": 1})));
    database.until_stuck("-- publish:", 1).await;
    // One gathers behind it, and the other has no connection.
    calls.spawn(call(&gateway, "messages", &json!({"body": 2})));
    calls.spawn(call(&gateway, "receive", &json!({"wait_seconds": 30})));
    eventually("all are in hand", async || {
        let text = scrape(&gateway).await;
        let in_hand = |operation: &str| {
            let name = "postrider_http_requests_in_flight";
            value(&text, &format!("{name}{{operation=\"{operation}\"}}")).unwrap_or(0.0)
        };
        in_hand("publish") > 1.5 && in_hand("receive") > 0.5
    })
    .await;
    let began = Instant::now();
    while began.elapsed() < HELD {
        let text = scrape(&gateway).await;
        for (state, count) in [("busy", "1"), ("idle", "0")] {
            let line = format!(
                "\npostrider_database_connections{{pool=\"hot\",state=\"{state}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
    held.let_go().await;
    for answer in calls.join_all().await {
        assert!(answer.status.is_success(), "{answer:?}");
    }

    let text = scrape(&gateway).await;
    for (name, labels, least) in [
        ("postrider_batch_wait_seconds", "verb=\"publish\"", 2.0),
        ("postrider_batch_duration_seconds", "verb=\"publish\"", 2.0),
        ("postrider_batch_duration_seconds", "verb=\"claim\"", 1.0),
        (
            "postrider_database_acquire_duration_seconds",
            "pool=\"hot\"",
            3.0,
        ),
    ] {
        let series = |part: &str| value(&text, &format!("{name}_{part}{{{labels}}}")).unwrap();
        let (count, sum) = (series("count"), series("sum"));
        assert!(count >= least, "{name} {labels}: {count}");
        // Three waited, for no longer than this test has run.
        let most = 3.0 * 30.0;
        assert!((SEEN..most).contains(&sum), "{name} {labels}: {sum}");
    }
    assert_eq!(
        value(
            &text,
            "postrider_database_connections{pool=\"hot\",state=\"busy\"}"
        ),
        Some(0.0)
    );
}
