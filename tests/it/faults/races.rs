//! Many at once, over two gateways.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn claim_against_claim_gives_each_message_exactly_once() {
    const MESSAGES: usize = 20_000;
    const MAX: usize = 10;
    let app = Arc::new(App::start().await);
    let other = Arc::new(app.another().await);
    app.queue("work", json!({})).await;
    for batch in 0..MESSAGES / 1000 {
        let messages: Vec<Value> = (0..1000)
            .map(|n| json!({"body": batch * 1000 + n}))
            .collect();
        app.post("/v1/queues/work/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }

    let acked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(HashMap::<u64, usize>::new()));
    let mut receivers = JoinSet::new();
    for n in 0..64 {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let (acked, seen) = (Arc::clone(&acked), Arc::clone(&seen));
        receivers.spawn(async move {
            let gateway = if n % 2 == 0 { &app.gateway } else { &*other };
            while acked.load(Ordering::SeqCst) < MESSAGES {
                let request = json!({"max_messages": MAX, "wait_seconds": 1, "lease_seconds": 300});
                let messages = gateway.receive("work", request).await;
                assert!(
                    messages.len() <= MAX,
                    "asked for {MAX}, got {}",
                    messages.len()
                );
                if messages.is_empty() {
                    continue;
                }
                {
                    let mut seen = seen.lock().await;
                    for message in &messages {
                        assert_eq!(message["attempt"], 1, "{message}");
                        *seen.entry(message["body"].as_u64().unwrap()).or_default() += 1;
                    }
                }
                let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
                let answer = gateway.settle("ack", "work", &receipts, json!({})).await;
                let results = answer.expect(StatusCode::OK);
                for result in results["results"].as_array().unwrap() {
                    assert_eq!(result["ok"], true, "{results}");
                }
                acked.fetch_add(messages.len(), Ordering::SeqCst);
            }
        });
    }
    while let Some(result) = receivers.join_next().await {
        result.unwrap();
    }
    let seen = seen.lock().await;
    assert_eq!(seen.len(), MESSAGES);
    assert!(seen.values().all(|count| *count == 1));
    app.assert_conserved(&app.database, "work").await;
}

/// Acks that come just when the lease ends: either the ack counts and the
/// message is never seen again, or it is refused and the message comes back.
#[tokio::test(flavor = "multi_thread")]
async fn ack_against_expiry_has_one_winner() {
    const MESSAGES: usize = 200;
    const LEASE: Duration = Duration::from_millis(60);
    let app = Arc::new(App::start().await);
    let other = Arc::new(app.another().await);
    app.queue(
        "work",
        json!({"lease_seconds": LEASE.as_secs_f64(), "max_attempts": 1000}),
    )
    .await;
    let messages: Vec<Value> = (0..MESSAGES).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);

    let acked = Arc::new(Mutex::new(HashMap::<u64, u64>::new()));
    let refused = Arc::new(AtomicUsize::new(0));
    let mut consumers = JoinSet::new();
    for n in 0..16u32 {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        let (acked, refused) = (Arc::clone(&acked), Arc::clone(&refused));
        consumers.spawn(async move {
            let gateway = if n % 2 == 0 { &app.gateway } else { &*other };
            while acked.lock().await.len() < MESSAGES {
                for message in gateway.receive("work", json!({"wait_seconds": 0.2})).await {
                    let body = message["body"].as_u64().unwrap();
                    // From well before the end of the lease to well after.
                    let part = rand::random_range(0..1000u32);
                    tokio::time::sleep(LEASE * part / 700).await;
                    let answer = gateway
                        .settle("ack", "work", &[&message["receipt"]], json!({}))
                        .await;
                    if answer.status == StatusCode::OK {
                        let attempt = message["attempt"].as_u64().unwrap();
                        let before = acked.lock().await.insert(body, attempt);
                        assert_eq!(before, None, "{body} was acked twice: {message}");
                    } else {
                        answer.expect_problem(409, "lease-lost");
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
    }
    while let Some(result) = consumers.join_next().await {
        result.unwrap();
    }
    // Otherwise the race was never run.
    assert!(refused.load(Ordering::SeqCst) > 0);
    let left = app.receive("work", json!({"wait_seconds": 0.3})).await;
    assert_eq!(left, Vec::<Value>::new());
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_snapshot_and_a_held_transaction_block_nobody() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut holder = app.database.connect().await;
    // A snapshot on our own tables, and a lock on somebody else's.
    for statement in [
        "CREATE TABLE elsewhere (x int)",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "INSERT INTO elsewhere VALUES (1)",
        "SELECT count(*) FROM postrider.ready",
    ] {
        sqlx::raw_sql(statement).execute(&mut holder).await.unwrap();
    }
    for n in 0..50 {
        app.publish("work", json!({"body": n})).await;
        let message = app.receive_one("work").await;
        assert_eq!(message["body"], n);
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "work").await;
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .unwrap();
}
