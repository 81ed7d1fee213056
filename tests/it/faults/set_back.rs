//! Sequences that come back from a crash or a failover with less than was seen of
//! them: nothing that is published then may lie where nobody looks.

use std::time::Duration;

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::store::execute;
use crate::support::{App, Database, Gateway, Link, config, eventually};

/// Somebody draws from both sequences, and is killed before any of it is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_takes_back_of_the_sequences_is_no_watermark() {
    let app = App::start_on(Database::alone("set-back").await).await;
    let (database, store) = (&app.database, app.app.store());
    app.queue("work", json!({})).await;
    // A lane that has a watermark.
    app.receive("work", json!({})).await;
    // Nobody flushes the log but those who commit.
    execute(database, "ALTER SYSTEM SET wal_writer_delay = '10s'").await;
    execute(database, "SELECT pg_reload_conf()").await;

    let mut witness = database.connect().await;
    let mut backend = database.connect().await;
    sqlx::raw_sql(
        "BEGIN;
         SELECT nextval('postrider.message_ids') FROM generate_series(1, 5000);
         SELECT nextval(pg_get_serial_sequence('postrider.tallies', 'id'))
         FROM generate_series(1, 5000);",
    )
    .execute(&mut backend)
    .await
    .unwrap();
    let (pid,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()")
        .fetch_one(&mut backend)
        .await
        .unwrap();
    store.raise_watermarks().await.unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();

    eventually("Postgres ends all that run", async || {
        sqlx::raw_sql("SELECT 1")
            .execute(&mut witness)
            .await
            .is_err()
    })
    .await;

    // All who drew have ended: the next two looks settle what was noted.
    for _ in 0..2 {
        eventually("Postgres is back", async || {
            store.raise_watermarks().await.is_ok()
        })
        .await;
    }
    eventually("publishes work again", async || {
        let message = json!({"body": "anew"});
        let answer = app.post("/v1/queues/work/messages", message).await;
        answer.status == StatusCode::CREATED
    })
    .await;
    // A connection that has died while it rested is noticed when it is used.
    eventually("it comes", async || {
        let answer = app.post("/v1/queues/work/receive", "{}").await;
        answer.status == StatusCode::OK && answer.json()["messages"][0]["body"] == "anew"
    })
    .await;
    eventually("all is counted", async || {
        matches!(store.fold().await, Ok(false))
    })
    .await;
    app.assert_conserved(database, "work").await;
}

/// A standby that did not have the end of the log: a server that has come less far.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_failed_over_to_is_looked_through_from_the_beginning() {
    let on_a_server = async |name: &str| {
        let app = App::start_on(Database::alone(name).await).await;
        app.queue("work", json!({})).await;
        app
    };
    let (primary, standby) = (on_a_server("primary").await, on_a_server("standby").await);
    let mut link = Link::to(&primary.database).await;
    let gateway = Gateway::start(&config(link.url())).await;
    for _ in 0..3 {
        let messages: Vec<Value> = (0..100).map(|n| json!({ "body": n })).collect();
        gateway
            .post("/v1/queues/work/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
        let messages = gateway.receive("work", json!({"max_messages": 100})).await;
        assert_eq!(messages.len(), 100);
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        gateway
            .settle("ack", "work", &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
        let store = gateway.app.store();
        store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    }
    link.cut().await;
    link.mend_to(&standby.database).await;
    eventually("publishes work again", async || {
        let message = json!({"body": "anew"});
        let answer = gateway.post("/v1/queues/work/messages", message).await;
        answer.status == StatusCode::CREATED
    })
    .await;
    let received = gateway.receive("work", json!({"wait_seconds": 20})).await;
    assert_eq!(received[0]["body"], "anew");
    let counts = async || gateway.counts("work").await["leased"].clone();
    eventually("it is counted", async || counts().await == 1).await;
}
