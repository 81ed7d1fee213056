//! Transactions and snapshots that are held for long harm nobody.

use serde_json::json;

use super::{rows, run};
use crate::support::{App, eventually};

/// Messages that have gone through the door while it is held open.
const MANY: i64 = 20_000;

/// How many entries are read for a message, while a heartbeat looks now and then.
async fn a_message_reads(app: &App) -> i64 {
    let before = app.database.entries_read(&["door"]).await;
    let mut application = app.database.connect().await;
    for body in 0..10 {
        let call = format!("SELECT postrider.publish('q', '{body}')");
        run(&mut application, &call).await;
        eventually("it has gone", async || rows(&app.database).await == (0, 0)).await;
    }
    (app.database.entries_read(&["door"]).await - before) / 10
}

async fn drained(app: &App) {
    eventually("the door is empty", async || {
        rows(&app.database).await == (0, 0)
    })
    .await;
    app.post("/v1/queues/q/purge", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_does_not_walk_over_what_has_gone_under_a_held_snapshot() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut holder = app.database.connect().await;
    run(
        &mut holder,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM postrider.door",
    )
    .await;
    let mut application = app.database.connect().await;
    let calls = format!("SELECT postrider.publish('q', '1') FROM generate_series(1, {MANY})");
    run(&mut application, &calls).await;
    drained(&app).await;
    let read = a_message_reads(&app).await;
    assert!(read < 2000, "{read} entries were read for one message");
    run(&mut holder, "COMMIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_does_not_walk_over_what_is_not_committed_yet() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut holder = app.database.connect().await;
    run(&mut holder, "BEGIN").await;
    let calls = format!("SELECT postrider.publish('q', '1') FROM generate_series(1, {MANY})");
    run(&mut holder, &calls).await;
    // And what others publish meanwhile goes at once, and is gone.
    let mut application = app.database.connect().await;
    run(&mut application, &calls).await;
    drained(&app).await;
    let read = a_message_reads(&app).await;
    assert!(read < 2000, "{read} entries were read for one message");
    run(&mut holder, "COMMIT").await;
    eventually("all has come", async || rows(&app.database).await == (0, 0)).await;
    // With the ten of before.
    assert_eq!(app.counts("q").await["ready"], MANY + 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_does_not_hold_the_watermarks_up() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut holder = app.database.connect().await;
    run(
        &mut holder,
        "BEGIN; SELECT postrider.publish('q', '\"held\"')",
    )
    .await;
    let id = crate::store::message_id(&app.publish("q", json!({"body": 1})).await);
    app.receive_one("q").await;
    let store = app.app.store();
    // At once, at least before this gives up: what holds them up does so for a minute.
    eventually("the floors move on", async || {
        store.raise_watermarks().await.unwrap();
        store.watermarks().settled() >= id
    })
    .await;
    run(&mut holder, "COMMIT").await;
    assert_eq!(app.receive_one("q").await["body"], "held");
    assert_eq!(
        store.watermark_violations().await.unwrap(),
        postrider::store::Violations {
            ready: 0,
            parked: 0
        }
    );
}
