//! What is told of the tables: dead rows, snapshots, watermarks.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use sqlx::{Executor as _, PgConnection};

use super::{scrape, value};
use crate::store::{execute, queue_id};
use crate::support::{App, Database, eventually};

const AGE: &str = "postrider_oldest_snapshot_age_seconds";

/// A session that has done this in a transaction, and does nothing now.
async fn idle(database: &Database, sql: &'static str) -> PgConnection {
    let mut session = database.connect().await;
    session.execute("BEGIN").await.unwrap();
    session.execute(sql).await.unwrap();
    session
}

/// The metric once it is over a second, after it was less.
async fn age(app: &App) -> f64 {
    let mut age = 0.0;
    eventually("the snapshot shows", async || {
        age = value(&scrape(app).await, AGE).unwrap();
        age > 1.0
    })
    .await;
    age
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_holds_a_snapshot_shows_with_its_age() {
    let app = App::start().await;
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
        SELECT count(*) FROM postrider.queues";
    let mut held = idle(&app.database, snapshot).await;
    age(&app).await;
    held.execute("ROLLBACK").await.unwrap();
    eventually("it is gone", async || {
        value(&scrape(&app).await, AGE).unwrap() < 1.0
    })
    .await;
}

/// It has no snapshot, but what it may have written is kept all the same; and what
/// is done in another database is nothing to this one.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_snapshot_is_the_one_that_the_storages_health_names() {
    let app = App::start().await;
    let elsewhere = Database::migrated().await;
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
        SELECT count(*) FROM postrider.queues";
    let _other = idle(&elsewhere, snapshot).await;
    let began = Instant::now();
    let mut writer = idle(&app.database, "DELETE FROM postrider.deleted_queues").await;
    writer.execute("SELECT pg_current_xact_id()").await.unwrap();
    let (pid,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()")
        .fetch_one(&mut writer)
        .await
        .unwrap();
    let shown = age(&app).await;
    // The one elsewhere is older.
    assert!(shown <= began.elapsed().as_secs_f64(), "{shown}");
    let health = app.get("/v1/health/storage").await.expect(StatusCode::OK);
    let oldest = &health["oldest_snapshot"];
    assert_eq!(oldest["pid"], pid, "{health}");
    let told = oldest["age_seconds"].as_f64().unwrap();
    // It was asked later, and the scrape is as of five seconds ago at most.
    assert!((shown..shown + 10.0).contains(&told), "{shown}, {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_that_a_snapshot_keeps_show_by_table() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
        SELECT count(*) FROM postrider.queues";
    let _held = idle(&app.database, snapshot).await;
    for body in 0..5 {
        app.publish("work", json!({"body": body})).await;
        let message = app.receive_one("work").await;
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    eventually("they show", async || {
        let text = scrape(&app).await;
        let dead = |table: &str| value(&text, &format!("postrider_dead_rows{{table=\"{table}\"}}"));
        ["ready", "parked", "tallies"]
            .map(dead)
            .iter()
            .all(|dead| *dead > Some(0.0))
    })
    .await;
}

/// The sweep, which looks once a minute, finds what must not be and counts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_where_nobody_looks_is_counted_by_the_sweep() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    for message in [
        json!({"body": 1}),
        json!({"body": 2, "delay_seconds": 3600}),
    ] {
        app.publish("work", message).await;
    }
    let message = app.receive_one("work").await;
    app.settle("ack", "work", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    let floors = store.watermarks().lanes(queue).1;
    assert!(floors.iter().all(|floor| *floor > 1), "{floors:?}");
    for sql in [
        "INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
         SELECT id, 5, 1, 1, now() + interval '1 day' FROM postrider.queues",
        "UPDATE postrider.parked SET wake_at = now() - interval '1 day'",
    ] {
        assert_eq!(execute(&app.database, sql).await, 1, "{sql}");
    }
    let counted = async {
        loop {
            let text = scrape(&app).await;
            let count = |table: &str| {
                let series = format!("postrider_watermark_violations_total{{table=\"{table}\"}}");
                value(&text, &series).unwrap()
            };
            if count("ready") > 0.5 && count("parked") > 0.5 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(100), counted).await;
    assert!(in_time.is_ok(), "never counted");
}
