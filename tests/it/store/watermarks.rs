//! The watermarks: claims scan from there, so nothing may ever lie below.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider::store::{Store, Violations};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::store::{number, queue_id};
use crate::support::{App, eventually};

async fn publish(app: &App, bodies: std::ops::Range<usize>) {
    let messages: Vec<Value> = bodies
        .map(|n| json!({"body": n, "priority": n % 10}))
        .collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
}

/// Receives and acks until nothing comes any more; the bodies.
async fn drain(app: &App) -> BTreeSet<usize> {
    let mut bodies = BTreeSet::new();
    loop {
        let messages = app.receive("work", json!({"max_messages": 300})).await;
        if messages.is_empty() {
            return bodies;
        }
        for message in &messages {
            let body = usize::try_from(message["body"].as_u64().unwrap()).unwrap();
            assert!(bodies.insert(body), "{message} came twice");
        }
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        app.settle("ack", "work", &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
    }
}

/// Raises the watermarks as if everything that runs had ended; the floors of
/// the queue.
async fn raise(store: &Store, queue: i64) -> [i64; 10] {
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    assert_eq!(store.watermark_violations().await.unwrap(), found(0, 0));
    store.watermarks().lanes(queue).1
}

fn found(ready: i64, parked: i64) -> Violations {
    Violations { ready, parked }
}

async fn run(connection: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

const PUBLISH_BY_HAND: &str = "
    BEGIN;
    INSERT INTO postrider.messages (id, body) VALUES (nextval('postrider.message_ids'), '4711');
    INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
    SELECT q.id, 5, currval('postrider.message_ids'), currval('postrider.message_ids'),
        now() + interval '1 day'
    FROM postrider.queues AS q";

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_rises_behind_what_is_gone_and_hides_nothing() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let mut before = raise(store, queue).await;
    for round in 0..4 {
        let bodies = round * 500..(round + 1) * 500;
        publish(&app, bodies.clone()).await;
        // With everything alive it stops at the first.
        let first = number(&app.database, "SELECT min(position) FROM postrider.ready").await;
        let during = raise(store, queue).await;
        assert!(during.iter().all(|floor| *floor <= first + 9), "{during:?}");
        assert_eq!(drain(&app).await, bodies.collect());
        let after = raise(store, queue).await;
        for (lane, floor) in after.iter().enumerate() {
            assert!(*floor > before[lane], "{before:?} to {after:?}");
            assert!(*floor >= first + 490, "{after:?}");
        }
        before = after;
    }
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_comes_above_the_floor() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({"max_attempts": 1000})).await;
    let queue = queue_id(&app.database, "work").await;
    publish(&app, 0..40).await;
    publish(&app, 40..50).await;
    let messages = app
        .receive("work", json!({"max_messages": 50, "lease_seconds": 0.5}))
        .await;
    // While they are leased the floor passes their old positions.
    let floors = raise(store, queue).await;
    assert!(floors.iter().all(|floor| *floor > 1), "{floors:?}");
    let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
    for (part, delay) in receipts[..30].chunks(15).zip([0.0, 0.2]) {
        app.settle("nack", "work", part, json!({"delay_seconds": delay}))
            .await
            .expect(StatusCode::OK);
    }
    raise(store, queue).await;
    let mut bodies = BTreeSet::new();
    while bodies.len() < 50 {
        for message in app
            .receive("work", json!({"max_messages": 50, "wait_seconds": 20}))
            .await
        {
            assert_eq!(message["attempt"], 2);
            bodies.insert(message["body"].as_u64().unwrap());
        }
        raise(store, queue).await;
    }
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_does_not_pass_a_position_that_is_not_committed_yet() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    drain(&app).await;

    let mut slow = app.database.connect().await;
    run(&mut slow, PUBLISH_BY_HAND).await;
    publish(&app, 0..200).await;
    assert_eq!(drain(&app).await.len(), 200);
    for _ in 0..3 {
        store.raise_watermarks().await.unwrap();
    }
    let slow_position: i64 = sqlx::query_scalar("SELECT currval('postrider.message_ids')")
        .fetch_one(&mut slow)
        .await
        .unwrap();
    // All that can be seen is gone, and yet.
    let floors = store.watermarks().lanes(queue).1;
    assert!(
        floors.iter().all(|floor| *floor <= slow_position),
        "{floors:?}"
    );
    run(&mut slow, "COMMIT").await;
    assert_eq!(drain(&app).await, BTreeSet::from([4711]));
    // Then it takes no minute: all who drew a position have ended.
    eventually("the floor rises", async || {
        store.raise_watermarks().await.unwrap();
        store
            .watermarks()
            .lanes(queue)
            .1
            .iter()
            .all(|floor| *floor > slow_position)
    })
    .await;
    assert_eq!(store.watermark_violations().await.unwrap(), found(0, 0));
}

/// Without the wait, such a message is not seen by this gateway, until the sweep
/// counts it: then all are looked for from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_below_the_floor_is_counted_as_a_violation_and_comes_then() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    drain(&app).await;

    let mut slow = app.database.connect().await;
    run(&mut slow, PUBLISH_BY_HAND).await;
    publish(&app, 0..20).await;
    drain(&app).await;
    raise(store, queue).await;
    run(&mut slow, "COMMIT").await;
    assert_eq!(drain(&app).await, BTreeSet::new());
    assert_eq!(store.watermark_violations().await.unwrap(), found(1, 0));
    assert_eq!(drain(&app).await, BTreeSet::from([4711]));
    assert_eq!(store.watermark_violations().await.unwrap(), found(0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_of_wake_times_hides_no_parked_message() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let delayed: Vec<Value> = (0..50)
        .map(|n| json!({"body": n, "delay_seconds": 0.1 * f64::from(n % 10)}))
        .collect();
    app.post("/v1/queues/work/messages", json!({"messages": delayed}))
        .await
        .expect(StatusCode::CREATED);
    app.receive("work", json!({})).await;
    assert!(store.watermarks().wakes_within_seconds(queue) >= 60.0);
    let mut bodies = BTreeSet::new();
    while bodies.len() < 49 {
        raise(store, queue).await;
        assert!(store.watermarks().wakes_within_seconds(queue) < 10.0);
        let request = json!({"max_messages": 50, "wait_seconds": 20});
        for message in app.receive("work", request).await {
            bodies.insert(message["body"].as_u64().unwrap());
        }
    }
}

/// No statement parks a message in the past; if one did, this gateway would not
/// look there.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_before_the_floor_is_counted_as_a_violation() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    app.post(
        "/v1/queues/work/messages",
        json!({"body": 1, "delay_seconds": 3600}),
    )
    .await
    .expect(StatusCode::CREATED);
    drain(&app).await;
    raise(store, queue).await;
    let backdate = "UPDATE postrider.parked SET wake_at = now() - interval '1 day'";
    run(&mut app.database.connect().await, backdate).await;
    assert_eq!(store.watermark_violations().await.unwrap(), found(0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_of_tallies_hides_no_count() {
    let app = App::start().await;
    let store = app.app.store();
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    for round in 0..5 {
        publish(&app, round * 10..(round + 1) * 10).await;
        assert_eq!(app.counts("work").await["ready"], 10);
        raise(store, queue).await;
        drain(&app).await;
        assert_eq!(app.counts("work").await["ready"], 0);
        raise(store, queue).await;
    }
    assert!(store.watermarks().tallies() > 0);
    app.assert_conserved(&app.database, "work").await;
    let left = "SELECT count(*) FROM postrider.tallies";
    assert_eq!(number(&app.database, left).await, 0);
}
