//! The breaker's whole cycle, over two gateways; and endpoints that are given
//! up.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, Hook, publish_many};
use crate::store::execute;
use crate::support::{App, Gateway, Reply, config, eventually};

async fn state(gateway: &Gateway) -> String {
    let webhook = gateway.get(HOOK).await.expect(StatusCode::OK);
    webhook["breaker"]["state"].as_str().unwrap().to_owned()
}

async fn becomes(gateway: &Gateway, wanted: &str) {
    eventually(wanted, async || state(gateway).await == wanted).await;
}

fn settings(open_seconds: f64, max_in_flight: u32) -> Value {
    json!({
        "circuit_breaker": {
            "failure_rate": 0.5, "window": 10, "min_calls": 4, "open_seconds": open_seconds,
        },
        "max_in_flight": max_in_flight,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_opens_probes_recovers_and_closes_and_two_gateways_agree() {
    const MOST: u32 = 8;
    let hook = Hook::start(settings(2.0, MOST), json!({"max_attempts": 20})).await;
    let other = hook.another().await;

    // Opens at the rate: of 4, 2 have failed.
    for status in [204, 204, 500] {
        hook.receiver.next(Reply::status(status));
    }
    hook.receiver.usually(Reply::status(500));
    for n in 1..=2 {
        hook.publish("orders", json!({"body": n})).await;
        hook.wait_for_attempts("", n).await;
        assert_eq!(state(&hook).await, "closed");
    }
    hook.publish("orders", json!({"body": 3})).await;
    becomes(&hook, "open").await;
    assert_eq!(state(&other).await, "open");
    let (mine, theirs) = (hook.webhook().await, other.get(HOOK).await.json());
    assert_eq!(mine["breaker"], theirs["breaker"]);
    assert!(mine["breaker"]["next_probe_at"].is_string());
    let sent = hook.receiver.requests().len();
    assert_eq!(sent, 4, "two failures of four");

    // While it is open nothing is sent; then one probe, which is slow and fails.
    hook.receiver
        .usually(Reply::status(500).after(Duration::from_millis(600)));
    publish_many(&other, "orders", 30).await;
    let opened = hook.receiver.requests()[sent - 1].at;
    let requests = hook.receiver.wait_for(sent + 1).await;
    let rested = requests[sent].at - opened;
    assert!(rested >= Duration::from_millis(1950), "{rested:?}");
    becomes(&other, "half-open").await;
    becomes(&hook, "open").await;
    assert_eq!(hook.receiver.requests().len(), sent + 1, "one probe");

    // The next one succeeds: 1, 2, 4, then all at once.
    hook.receiver
        .usually(Reply::status(204).after(Duration::from_millis(400)));
    becomes(&other, "recovering").await;
    hook.drained().await;
    assert_eq!(state(&hook).await, "closed");
    assert_eq!(state(&other).await, "closed");
    let requests = hook.receiver.requests();
    let second = &requests[sent + 1];
    assert!(second.at - requests[sent].at >= Duration::from_millis(1950));
    let beside = |from: usize, millis: u64| {
        let begun = requests[from].at;
        let until = Duration::from_millis(millis);
        requests[from..]
            .iter()
            .take_while(|r| r.at - begun < until)
            .count()
    };
    let probe = sent + 1;
    assert_eq!(beside(probe, 390), 1, "a probe is alone");
    assert_eq!(beside(probe + 1, 390), 1);
    assert_eq!(beside(probe + 2, 390), 2);
    assert_eq!(beside(probe + 4, 390), 4);
    assert_eq!(hook.receiver.most_at_once(), MOST as usize);

    // No attempts were used but for what was sent.
    assert_eq!(requests.len(), 33 + 3);
    let mut by_attempt = [0; 4];
    for request in &requests {
        let attempt: usize = request
            .header("postrider-attempt")
            .unwrap()
            .parse()
            .unwrap();
        by_attempt[attempt - 1] += 1;
    }
    assert_eq!(by_attempt.iter().sum::<usize>(), 36);
    assert_eq!(by_attempt[0], 33, "{by_attempt:?}");
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_goes_on_from_the_same_state() {
    let hook = Hook::start(settings(5.0, 4), json!({"max_attempts": 20})).await;
    let other = hook.another().await;
    hook.receiver.usually(Reply::status(500));
    hook.publish("orders", json!({"body": 1})).await;
    becomes(&hook, "open").await;
    let before = hook.webhook().await["breaker"].clone();
    let sent = hook.receiver.requests();
    assert_eq!(sent.len(), 4);

    // Whichever had the lane, one of the two goes on.
    let Hook { app, receiver, .. } = hook;
    let App { database, gateway } = app;
    gateway.app.shut_down().await.unwrap();
    assert_eq!(other.get(HOOK).await.json()["breaker"], before);
    receiver.usually(Reply::status(204));
    publish_many(&other, "orders", 10).await;
    let requests = receiver.wait_for(5).await;
    let rested = requests[4].at - requests[3].at;
    assert!(rested >= Duration::from_millis(4900), "{rested:?}");
    becomes(&other, "closed").await;

    // And a restart of the last.
    super::drained(&other, "orders").await;
    receiver.usually(Reply::status(500));
    publish_many(&other, "orders", 10).await;
    becomes(&other, "open").await;
    let before = other.get(HOOK).await.json()["breaker"].clone();
    other.app.shut_down().await.unwrap();
    let sent = receiver.requests().len();
    receiver.usually(Reply::status(204));
    let again = Gateway::start(&config(&database.url())).await;
    assert_eq!(again.get(HOOK).await.json()["breaker"], before);
    let requests = receiver.wait_for(sent + 1).await;
    let rested = requests[sent].at - requests[sent - 1].at;
    assert!(rested >= Duration::from_millis(4800), "{rested:?}");
    becomes(&again, "closed").await;
    super::drained(&again, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_is_asked_to_wait_says_nothing_and_another_follows() {
    let hook = Hook::start(settings(0.2, 4), json!({"max_attempts": 6})).await;
    for _ in 0..4 {
        hook.receiver.next(Reply::status(500));
    }
    for _ in 0..2 {
        hook.receiver
            .next(Reply::with(503, &[("retry-after", "1")], b""));
    }
    hook.publish("orders", json!({"body": 1})).await;
    let requests = hook.receiver.wait_for(7).await;
    hook.drained().await;
    for pair in requests[4..].windows(2) {
        let between = pair[1].at - pair[0].at;
        assert!(between >= Duration::from_millis(950), "{between:?}");
    }
    assert_eq!(requests[6].header("postrider-attempt"), Some("5"));
    becomes(&hook, "recovering").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_closes_it_at_once() {
    let hook = Hook::start(settings(3600.0, 4), json!({"max_attempts": 20})).await;
    let other = hook.another().await;
    hook.receiver.usually(Reply::status(500));
    hook.publish("orders", json!({"body": 1})).await;
    becomes(&hook, "open").await;
    hook.receiver.usually(Reply::status(204));
    other
        .post(&format!("{HOOK}/resume"), "{}")
        .await
        .expect(StatusCode::OK);
    hook.drained().await;
    assert_eq!(state(&hook).await, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_has_failed_for_days_is_given_up() {
    let queue = json!({"max_attempts": 20, "backoff": {"initial_seconds": 1, "jitter": 0}});
    let hook = Hook::start(json!({"disable_after_seconds": 432_000}), queue).await;
    hook.receiver.usually(Reply::status(500));
    hook.publish("orders", json!({"body": 1})).await;
    eventually("it fails", async || {
        hook.webhook().await["failing_since"].is_string()
    })
    .await;
    let Hook { app, receiver, .. } = hook;
    let App { database, gateway } = app;
    gateway.app.shut_down().await.unwrap();
    let days_ago = |days: &str| {
        format!("UPDATE postrider.webhooks SET failing_since = now() - interval '{days}'")
    };
    execute(&database, days_ago("4 days")).await;
    let sent = receiver.requests().len();
    let second = Gateway::start(&config(&database.url())).await;
    receiver.wait_for(sent + 1).await;
    let webhook = second.get(HOOK).await.json();
    assert_eq!(webhook["status"], "active");
    second.app.shut_down().await.unwrap();

    execute(&database, days_ago("5 days")).await;
    let third = Gateway::start(&config(&database.url())).await;
    eventually("it is given up", async || {
        third.get(HOOK).await.json()["status"] == "disabled"
    })
    .await;
    assert_eq!(third.get(HOOK).await.json()["status_reason"], "failing");
    eventually("its message is given back, not dead", async || {
        let counts = third.counts("orders").await;
        let number = |what: &str| counts[what].as_i64().unwrap();
        number("delayed") + number("ready") == 1
    })
    .await;
}
