//! Keys that are not in memory: the first look, and what looks cost.

use std::collections::HashSet;

use postrider::config::Config;
use reqwest::StatusCode;

use super::{Guarded, ask, guarded};
use crate::support::{Answer, Database, Gateway, Held, Link, Wire, eventually};

/// A gateway after a restart, behind what listens to its statements.
async fn restarted(database: &Database, failures: u32) -> (Wire, Gateway) {
    let wire = Wire::tap(database).await;
    let config = Config {
        database_url: Some(wire.url().parse().unwrap()),
        ..limited(database, failures)
    };
    (wire, Gateway::start(&config).await)
}

/// Lets an address fail so often in a minute.
fn limited(database: &Database, failures: u32) -> Config {
    Config {
        failed_logins_per_minute: failures.try_into().unwrap(),
        ..guarded(database)
    }
}

/// How often the database was asked for a key.
fn looks(wire: &Wire) -> usize {
    let statements = wire.statements();
    let of_keys = statements
        .iter()
        .filter(|sent| sent.contains("FROM postrider.api_keys, postrider.cluster"));
    of_keys.count()
}

async fn all_at_once(gateway: &Gateway, keys: impl IntoIterator<Item = &String>) -> Vec<Answer> {
    futures_util::future::join_all(keys.into_iter().map(|key| ask(gateway, key))).await
}

/// The statuses among the answers, each once.
fn statuses(answers: &[Answer]) -> HashSet<u16> {
    answers.iter().map(|a| a.status.as_u16()).collect()
}

/// A key that nobody made.
fn unknown(number: usize) -> String {
    format!("pr_{number:012x}_{}", "0".repeat(48))
}

/// The same key with another secret.
fn mistyped(key: &str) -> String {
    let last = if key.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &key[..key.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_requests_at_once_after_a_restart_cost_one_look_and_no_failure() {
    let app = Guarded::start().await;
    let (wire, gateway) = restarted(&app.database, 5).await;
    // The look does not end before all of them are here.
    let held = Held::table(&app.database, "api_keys", "ACCESS EXCLUSIVE").await;
    let asking = all_at_once(&gateway, vec![&app.admin; 300]);
    let all_here = async {
        eventually("all are here", async || {
            let metrics = gateway.app.store().metrics().render();
            metrics.contains("requests_in_flight{operation=\"list_queues\"} 300\n")
        })
        .await;
        held.let_go().await;
    };
    let (answers, ()) = tokio::join!(asking, all_here);
    assert_eq!(statuses(&answers), HashSet::from([200]));
    assert_eq!(looks(&wire), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_at_once_after_a_restart_are_all_let_in() {
    let app = Guarded::start().await;
    let mut keys = Vec::new();
    for _ in 0..60 {
        keys.push(app.key(&["monitor"]).await);
    }
    let (_wire, gateway) = restarted(&app.database, 5).await;
    let answers = all_at_once(&gateway, &keys).await;
    assert_eq!(statuses(&answers), HashSet::from([200]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_looked_at_is_not_a_failed_login() {
    let app = Guarded::start().await;
    let mut link = Link::to(&app.database).await;
    let config = Config {
        database_url: Some(link.url().parse().unwrap()),
        ..limited(&app.database, 5)
    };
    let gateway = Gateway::start(&config).await;
    link.cut().await;
    eventually("it is noticed", async || {
        gateway.get("/readyz").await.status == 503
    })
    .await;
    for answer in all_at_once(&gateway, vec![&app.admin; 50]).await {
        answer.expect_problem(503, "database-unavailable");
    }
    link.mend().await;
    eventually("it is let in", async || {
        ask(&gateway, &app.admin).await.status == StatusCode::OK
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_counts_once_whether_its_key_is_in_memory_or_not() {
    const FAILURES: u32 = 6;
    let app = Guarded::start().await;
    let mut keys = Vec::new();
    for _ in 0..FAILURES / 2 {
        keys.push(mistyped(&app.key(&["monitor"]).await));
    }
    let (_wire, gateway) = restarted(&app.database, FAILURES).await;
    // Each twice: not in memory, and in it.
    for key in [&keys[..], &keys].concat() {
        ask(&gateway, &key).await.expect_problem(401, "key-refused");
    }
    let mut refused = ask(&gateway, &keys[0]).await;
    // Another comes every ten seconds, which a slow machine may have taken.
    for _ in 0..FAILURES {
        if refused.status == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        refused = ask(&gateway, &keys[0]).await;
    }
    refused.expect_problem(429, "rate-limited");
    let field = |name: &str| refused.headers[name].to_str().unwrap();
    assert_eq!(field("ratelimit-policy"), "\"failed-logins\";q=6;w=60");
    let standing = field("ratelimit");
    assert!(
        standing.starts_with("\"failed-logins\";r=0;t="),
        "{standing}"
    );
    let seconds = field("retry-after");
    assert!(
        standing.ends_with(&format!(";t={seconds}")),
        "{standing} {seconds}"
    );
    assert!(
        (1..=10).contains(&seconds.parse::<u32>().unwrap()),
        "{seconds}"
    );
    // Who is in memory goes on, from wherever.
    assert_eq!(ask(&app.gateway, &app.admin).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_guessed_too_often_is_refused_without_a_look() {
    let app = Guarded::start().await;
    let (wire, gateway) = restarted(&app.database, 5).await;
    assert_eq!(ask(&gateway, &app.admin).await.status, StatusCode::OK);
    let guesses: Vec<String> = (0..200).map(unknown).collect();
    let answers = all_at_once(&gateway, &guesses).await;
    assert_eq!(statuses(&answers), HashSet::from([401, 429]));
    let refused = answers.iter().find(|a| a.status == 429).unwrap();
    refused.expect_problem(429, "rate-limited");
    for name in ["ratelimit", "ratelimit-policy"] {
        let field = refused.headers[name].to_str().unwrap();
        assert!(field.starts_with("\"failed-logins\";"), "{field}");
    }
    // Five, those that were under way by then, and what a slow machine adds.
    let before = looks(&wire);
    assert!(before < 20, "{before}");
    for key in &guesses[..20] {
        assert!(ask(&gateway, key).await.status.is_client_error());
    }
    assert!(looks(&wire) < before + 5, "{}", looks(&wire));
    // The neighbour is in memory.
    assert_eq!(ask(&gateway, &app.admin).await.status, StatusCode::OK);
}
