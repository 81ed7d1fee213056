//! Transactions and snapshots that are held for long harm nobody: only the streams
//! of topics wait for them.

use reqwest::StatusCode;
use serde_json::{Value, json};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_for_an_open_transaction_and_skips_nothing() {
    let app = App::start().await;
    app.topic("shop", json!({"retention_seconds": 3600})).await;
    app.subscription("shop", "s", json!({})).await;
    let read = async |after: &str| {
        let path = format!("/v1/topics/shop/messages?{after}");
        let page = app.get(&path).await.expect(StatusCode::OK);
        let messages = page["messages"].as_array().unwrap().iter();
        let bodies: Vec<Value> = messages.map(|m| m["body"].clone()).collect();
        let after = format!("after={}", page["next_cursor"].as_str().unwrap());
        (bodies, after)
    };
    app.publish_topic("shop", json!({"body": "before"})).await;
    // Of other tests' transactions, too, which are on this server.
    eventually("it can be read", async || read("").await.0 == ["before"]).await;

    let mut holder = app.database.connect().await;
    run(
        &mut holder,
        r#"BEGIN; SELECT postrider.publish_topic('shop', '"held"')"#,
    )
    .await;
    for body in ["first", "second"] {
        app.publish_topic("shop", json!({"body": body})).await;
    }
    let mut others = app.database.connect().await;
    run(
        &mut others,
        r#"SELECT postrider.publish_topic('shop', '"third"')"#,
    )
    .await;
    // Subscriptions get all of it.
    for body in ["before", "first", "second", "third"] {
        assert_eq!(app.receive_one("shop.s").await["body"], body);
    }
    // The stream's readers do not, and stay where they are.
    let (bodies, after) = read("").await;
    assert_eq!(bodies, ["before"]);
    let (bodies, after) = read(&after).await;
    assert_eq!(bodies, [""; 0]);

    run(&mut holder, "COMMIT").await;
    let (mut bodies, mut after) = (Vec::new(), after);
    eventually("all can be read", async || {
        let (more, next) = read(&after).await;
        bodies.extend(more);
        after = next;
        bodies.len() >= 4
    })
    .await;
    assert_eq!(bodies, ["first", "second", "third", "held"]);
}
