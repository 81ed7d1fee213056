//! Waiting costs no query and no connection.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::store::number;
use crate::support::{Database, Gateway, Wire, config};

const QUEUES: usize = 5;
const RECEIVERS: usize = 200;

/// How often each statement is sent in ten seconds.
async fn ten_seconds(wire: &Wire) -> BTreeMap<String, usize> {
    let before = wire.statements().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut counts = BTreeMap::new();
    for statement in &wire.statements()[before..] {
        *counts
            .entry(statement.chars().take(60).collect())
            .or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_receivers_who_wait_cost_no_query_and_no_connection() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    for n in 0..QUEUES {
        gateway.queue(&format!("work-{n}"), json!({})).await;
    }
    let mut receivers = JoinSet::new();
    for n in 0..RECEIVERS {
        let path = format!("/v1/queues/work-{}/receive", n % QUEUES);
        let request = gateway
            .request(Method::POST, &path)
            .header("content-type", "application/json")
            .body(json!({"wait_seconds": 60}).to_string());
        receivers.spawn(async move { request.send().await.unwrap() });
    }
    gateway.until_waiting(RECEIVERS).await;

    let (claims, polls) = (wire.count("claim"), wire.count("with_ready"));
    let sent = ten_seconds(&wire).await;
    // Who came last may still have been asking.
    assert!(wire.count("claim") - claims <= QUEUES, "{sent:#?}");
    // One poll for all queues and receivers, every two seconds.
    assert!(wire.count("with_ready") - polls <= 6, "{sent:#?}");
    // All workers together: five a second, and one more round of the six that
    // run every two seconds, which may fall on both ends.
    let sum: usize = sent.values().sum();
    assert!(sum <= 5 * 10 + 6, "{sum} statements: {sent:#?}");

    let connections = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let connections = number(&database, connections).await;
    assert!(connections <= 12, "{connections} connections");
    assert!(receivers.try_join_next().is_none(), "one was sent away");
}

#[tokio::test(flavor = "multi_thread")]
async fn watermarks_of_a_database_at_rest_are_not_asked_for_again() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    let store = gateway.app.store();
    gateway.queue("work", json!({})).await;
    gateway.publish("work", json!({"body": 1})).await;
    gateway.receive_one("work").await;
    let floors = "floors";
    let mut rises = Vec::new();
    for _ in 0..3 {
        let before = wire.count(floors);
        store.raise_watermarks_after(Duration::ZERO).await.unwrap();
        rises.push(wire.count(floors) - before);
    }
    assert_eq!(rises, [1, 0, 0]);
    gateway.publish("work", json!({"body": 2})).await;
    let before = wire.count(floors);
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    assert_eq!(wire.count(floors) - before, 1);
}
