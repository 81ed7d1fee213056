//! Partitions of messages: made ahead, dropped when nothing points into them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider::domain::{QueueName, QueueSettings, Seconds};
use postrider::store::{Error, Publish, Receiver, Settled, Store};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{A_MINUTE_LATER, execute, number};
use crate::support::{App, Database, message};

/// A gateway over partitions of a thousand messages, and a store that can drop
/// them, which the gateway's own does not within a minute.
async fn start() -> (App, Store) {
    let database = Database::empty().await;
    let store = database.store(1000);
    store.migrate().await.unwrap();
    let app = App::start_on(database).await;
    app.queue("work", json!({"max_attempts": 1})).await;
    (app, store)
}

pub(super) async fn publish(app: &App, bodies: std::ops::Range<usize>) {
    let messages: Vec<Value> = bodies.map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
}

/// Receives so many messages and acks them; their bodies, in order.
pub(super) async fn work_off(app: &App, count: usize) -> Vec<usize> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let max = (count - bodies.len()).min(1000);
        let messages = app.receive("work", json!({"max_messages": max})).await;
        assert!(!messages.is_empty(), "only {} came", bodies.len());
        bodies.extend(messages.iter().map(|m| {
            let body = m["body"].as_u64().unwrap();
            usize::try_from(body).unwrap()
        }));
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        app.settle("ack", "work", &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
    }
    bodies
}

/// Drops what can be dropped; the first id that still has a partition.
pub(super) async fn drop_partitions(database: &Database, store: &Store) -> i64 {
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    loop {
        match store.drop_partitions().await {
            Ok(0) => break,
            Ok(_) => {}
            // A lock was not to be had in time: the worker tries again later.
            Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    let tables = "SELECT count(*) FROM pg_inherits
        WHERE inhparent = 'postrider.messages'::regclass";
    let listed = "SELECT count(*) FROM postrider.message_partitions";
    assert_eq!(
        number(database, tables).await,
        number(database, listed).await
    );
    number(database, "SELECT min(lo) FROM postrider.message_partitions").await
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_whose_messages_are_settled_are_dropped() {
    let (app, store) = start().await;
    publish(&app, 0..1000).await;
    publish(&app, 1000..2000).await;
    publish(&app, 2000..2600).await;
    // Not before they are settled.
    assert_eq!(drop_partitions(&app.database, &store).await, 0);
    assert_eq!(work_off(&app, 2600).await, (0..2600).collect::<Vec<_>>());
    // Not the one that publishes go into now.
    assert_eq!(drop_partitions(&app.database, &store).await, 2000);
    publish(&app, 2600..3600).await;
    assert_eq!(work_off(&app, 1000).await, (2600..3600).collect::<Vec<_>>());
    assert_eq!(drop_partitions(&app.database, &store).await, 3000);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_keeps_its_partitions() {
    let (app, store) = start().await;
    for batch in 0..3 {
        publish(&app, batch * 1000..(batch + 1) * 1000).await;
    }
    work_off(&app, 1200).await;
    // Ready, leased, waiting after a nack: all need their bodies.
    let leased = app
        .receive("work", json!({"max_messages": 200, "lease_seconds": 600}))
        .await;
    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
    let receipts: Vec<&Value> = leased.iter().map(|m| &m["receipt"]).collect();
    app.patch("/v1/queues/work", json!({"max_attempts": 9}))
        .await
        .expect(StatusCode::OK);
    app.settle(
        "nack",
        "work",
        &receipts[..100],
        json!({"delay_seconds": 0}),
    )
    .await
    .expect(StatusCode::OK);
    app.settle(
        "nack",
        "work",
        &receipts[100..],
        json!({"delay_seconds": 600}),
    )
    .await
    .expect(StatusCode::OK);
    let rest = work_off(&app, 1600).await;
    assert_eq!(rest, (1400..3000).collect::<Vec<_>>());
    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
    assert_eq!(work_off(&app, 100).await, (1200..1300).collect::<Vec<_>>());
    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
    execute(&app.database, "UPDATE postrider.parked SET wake_at = now()").await;
    while app.counts("work").await["ready"] != 100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    work_off(&app, 100).await;
    assert_eq!(drop_partitions(&app.database, &store).await, 3000);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stragglers_are_moved_out_and_live_on() {
    let (app, store) = start().await;
    // One of each kind: delayed, leased, back in ready, first in ready.
    let more = json!({"headers": {"a": "b"}, "key": "k", "priority": 1});
    let mut delayed = json!({"body": "delayed", "delay_seconds": 3600});
    delayed
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let delayed = app.publish("work", delayed).await;
    app.publish("work", json!({"body": "leased"})).await;
    let leased = app.receive("work", json!({"lease_seconds": 600})).await;
    app.publish("work", json!({"body": "back"})).await;
    app.receive("work", json!({"lease_seconds": 0.02})).await;
    app.patch("/v1/queues/work", json!({"max_attempts": 9}))
        .await
        .expect(StatusCode::OK);
    publish(&app, 0..1000).await;
    publish(&app, 1000..1500).await;
    app.publish("work", json!({"body": "rest"})).await;
    let mut receipts = Vec::new();
    while receipts.len() < 1500 {
        let messages = app.receive("work", json!({"max_messages": 1000})).await;
        receipts.extend(
            messages
                .into_iter()
                .filter(|m| m["body"].is_number())
                .map(|m| m["receipt"].clone()),
        );
    }
    for part in receipts.chunks(1000) {
        let part: Vec<&Value> = part.iter().collect();
        app.settle("ack", "work", &part, json!({}))
            .await
            .expect(StatusCode::OK);
    }

    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
    execute(&app.database, A_MINUTE_LATER).await;
    while app.app.store().prune().await.unwrap() {}
    let seen = app
        .get(&format!("/v1/queues/work/messages/{delayed}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&seen["state"], &seen["body"], &seen["headers"]),
        (&json!("delayed"), &json!("delayed"), &json!({"a": "b"}))
    );
    let receipt = &leased[0]["receipt"];
    app.settle("nack", "work", &[receipt], json!({"delay_seconds": 0}))
        .await
        .expect(StatusCode::OK);
    execute(
        &app.database,
        "UPDATE postrider.parked SET wake_at = now() WHERE token = 0",
    )
    .await;

    // Delivered with its body, dead-lettered, redriven, delivered.
    let mut delivered = Vec::new();
    while !delivered.contains(&json!("delayed")) || !delivered.contains(&json!("leased")) {
        let message = app.receive_one("work").await;
        if message["body"] == "delayed" {
            assert_eq!(
                (&message["key"], &message["priority"]),
                (&json!("k"), &json!(1))
            );
            let more = json!({"dead_letter": true});
            app.settle("nack", "work", &[&message["receipt"]], more)
                .await
                .expect(StatusCode::OK);
        }
        delivered.push(message["body"].clone());
    }
    app.post(
        "/v1/queues/work/dead-letters/redrive",
        json!({"ids": [delayed]}),
    )
    .await
    .expect(StatusCode::OK);
    let again = app.receive_one("work").await;
    assert_eq!(
        (&again["body"], &again["attempt"], &again["headers"]),
        (&json!("delayed"), &json!(1), &json!({"a": "b"}))
    );
    app.settle("ack", "work", &[&again["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    app.assert_conserved(&app.database, "work").await;
    // Its body goes with it, a minute later.
    execute(&app.database, A_MINUTE_LATER).await;
    while app.app.store().prune().await.unwrap() {}
    let alive = "SELECT count(*) FROM postrider.stragglers s WHERE NOT EXISTS (
        SELECT FROM postrider.parked p WHERE p.message_id = s.message_id)";
    assert_eq!(number(&app.database, alive).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_few_stragglers_keep_their_partition() {
    let (app, store) = start().await;
    let delayed: Vec<Value> = (0..11)
        .map(|n| json!({"body": n, "delay_seconds": 3600}))
        .collect();
    app.post("/v1/queues/work/messages", json!({"messages": delayed}))
        .await
        .expect(StatusCode::CREATED);
    publish(&app, 0..1000).await;
    work_off(&app, 1000).await;
    assert_eq!(drop_partitions(&app.database, &store).await, 0);
    let moved = "SELECT count(*) FROM postrider.stragglers";
    assert_eq!(number(&app.database, moved).await, 0);
    // One less, and ten are worth moving.
    execute(
        &app.database,
        "DELETE FROM postrider.parked WHERE message_id = 1",
    )
    .await;
    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
    assert_eq!(number(&app.database, moved).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_deleted_queue_pin_no_partition() {
    let (app, store) = start().await;
    app.queue("gone", json!({})).await;
    for queue in ["work", "gone"] {
        let messages: Vec<Value> = (0..700).map(|n| json!({"body": n})).collect();
        app.post(
            &format!("/v1/queues/{queue}/messages"),
            json!({"messages": messages}),
        )
        .await
        .expect(StatusCode::CREATED);
    }
    work_off(&app, 700).await;
    app.receive("gone", json!({"max_messages": 100})).await;
    app.delete("/v1/queues/gone")
        .await
        .expect(StatusCode::NO_CONTENT);
    while store.prune().await.unwrap() {}
    assert_eq!(drop_partitions(&app.database, &store).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_past_the_last_partition_makes_the_next() {
    // The smallest that can be configured, and batches ten times as large.
    let database = Database::empty().await;
    let store = database.store(100);
    store.migrate().await.unwrap();
    let name = QueueName::parse("work", "").unwrap();
    let queue = store
        .put_queue(&name, &QueueSettings::default())
        .await
        .unwrap()
        .queue;
    let batch = Publish {
        queue: Arc::clone(&queue),
        messages: Arc::new(vec![message(1); 1000]),
    };
    for _ in 0..15 {
        let (results, _) = store
            .publish(std::slice::from_ref(&batch), &HashMap::new())
            .await
            .unwrap();
        assert_eq!(results[0].as_ref().unwrap().len(), 1000);
    }
    let wish = Receiver {
        max_messages: 1000,
        lease: Seconds::new(60),
    };
    for _ in 0..15 {
        let claimed = store.claim(queue.id, &[wish]).await.unwrap();
        let leases: Vec<_> = claimed.deliveries[0].iter().map(|d| d.lease).collect();
        assert_eq!(leases.len(), 1000);
        let acked = store.ack(&leases).await.unwrap();
        assert!(acked.iter().all(|settled| *settled == Settled::Done));
    }
    assert!(drop_partitions(&database, &store).await >= 15_000);
    store.make_partitions().await.unwrap();
    assert!(!store.partitions_run_short().await.unwrap());
}
