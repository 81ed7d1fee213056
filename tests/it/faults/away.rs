//! Postgres out of reach, and back.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{App, Database, Gateway, Link, config, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_calls_are_503_and_work_again_when_it_is_back() {
    let database = Database::migrated().await;
    let mut link = Link::to(&database).await;
    let gateway = Gateway::start(&config(link.url())).await;
    gateway.queue("work", json!({})).await;
    gateway.publish("work", json!({"body": 1})).await;

    link.cut();
    eventually("it is noticed", async || {
        gateway.get("/readyz").await.status == 503
    })
    .await;
    gateway
        .get("/readyz")
        .await
        .expect_problem(503, "database-unavailable");
    gateway.get("/livez").await.expect(StatusCode::OK);
    for (path, body) in [
        ("/v1/queues/work/messages", json!({"body": 2})),
        ("/v1/queues/work/receive", json!({})),
        ("/v1/queues/work/purge", json!({})),
    ] {
        gateway
            .post(path, body)
            .await
            .expect_problem(503, "database-unavailable");
    }

    link.mend().await;
    eventually("it is ready", async || {
        gateway.get("/readyz").await.status == 200
    })
    .await;
    // Nothing of what was refused is there, and what was stored before is.
    let messages = gateway
        .receive("work", json!({"max_messages": 10, "wait_seconds": 5}))
        .await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["body"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_hold_no_connection() {
    let app = Arc::new(App::start().await);
    app.queue("work", json!({})).await;
    let mut waiting = JoinSet::new();
    for _ in 0..200 {
        let app = Arc::clone(&app);
        waiting.spawn(async move { app.receive("work", json!({"wait_seconds": 10})).await });
    }
    eventually("all wait", async || {
        app.app.broker().waiting().values().sum::<usize>() == 200
    })
    .await;
    // A pool of twelve, and none of it in use by them: a publish goes through.
    let published = tokio::time::timeout(
        Duration::from_secs(5),
        app.publish("work", json!({"body": 1})),
    );
    published.await.unwrap();
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first.len(), 1);
    let (connections,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    assert!(connections <= 12, "{connections}");
}

/// The name is set together with the time-outs of statements, locks and idle
/// transactions: a session without it has none of them.
#[tokio::test(flavor = "multi_thread")]
async fn every_session_has_its_time_outs() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    app.get("/readyz").await.expect(StatusCode::OK);
    let mut database = app.database.connect().await;
    // The one that listens to other gateways may still be on its way.
    eventually("one listens", async || {
        let (listening,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .fetch_one(&mut database)
        .await
        .unwrap();
        listening == 1
    })
    .await;
    let (all, without): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE application_name <> 'postrider')
         FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert!(all >= 4, "{all}");
    assert_eq!(without, 0);
}
