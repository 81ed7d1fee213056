//! Leases that run out and waits that are over.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, seconds_between};
use crate::support::{App, eventually};

/// Checks how late things came, in seconds: never before their time, mostly in
/// time and once at least nearly so. A machine with other things to do adds to
/// the promised 50 ms; a fallback poll would take a second on average.
#[track_caller]
fn assert_in_time(mut lates: Vec<f64>) {
    lates.sort_by(f64::total_cmp);
    assert!(lates[0] >= 0.0, "before its time: {lates:?}");
    assert!(lates[0] < 0.1, "always late: {lates:?}");
    assert!(lates[lates.len() / 2] < 0.5, "mostly late: {lates:?}");
}

async fn history(app: &App, message: &Value) -> Value {
    let id = message["id"].as_str().unwrap();
    app.get(&format!("/v1/queues/work/messages/{id}"))
        .await
        .expect(StatusCode::OK)["history"]
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_is_a_failed_attempt() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let first = app.receive("work", json!({"lease_seconds": 0.1})).await;
    let second = app.receive_one("work").await;
    assert_eq!(second["id"], first[0]["id"]);
    assert_eq!(second["attempt"], 2);
    assert_ne!(second["receipt"], first[0]["receipt"]);
    let history = history(&app, &second).await;
    assert_eq!(history[0]["outcome"], "lease-expired");
    assert_eq!(history[0]["error"], Value::Null);
    assert_eq!(history[1]["outcome"], "running");
    // Never before the end that the first consumer was told.
    let end = &first[0]["lease_expires_at"];
    assert!(seconds_between(end, &history[0]["ended_at"]) >= 0.0);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_attempts_lease_makes_a_dead_letter() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 2, "lease_seconds": 0.05}))
        .await;
    let id = app.publish("work", json!({"body": 1})).await;
    for attempt in 1..=2 {
        assert_eq!(app.receive_one("work").await["attempt"], attempt);
    }
    let path = format!("/v1/queues/work/dead-letters/{id}");
    eventually("it is dead", async || {
        app.get(&path).await.status == StatusCode::OK
    })
    .await;
    let letter = app.get(&path).await.expect(StatusCode::OK);
    assert_eq!(letter["reason"], "max-attempts");
    assert_eq!(letter["attempts"], 2);
    assert_eq!(letter["last_error"], Value::Null);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receiver_has_the_message_when_its_lease_ends() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 100})).await;
    app.publish("work", json!({"body": 1})).await;
    let request = json!({"lease_seconds": 0.25, "wait_seconds": 20});
    let mut last = app.receive("work", request.clone()).await.remove(0);
    let mut lates = Vec::new();
    for _ in 0..5 {
        let next = app.receive("work", request.clone()).await.remove(0);
        // Both by the database's clock.
        let apart = seconds_between(&last["lease_expires_at"], &next["lease_expires_at"]);
        lates.push(apart - 0.25);
        last = next;
    }
    assert_in_time(lates);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_is_received_at_its_time() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut lates = Vec::new();
    for delay in [0.3, 0.2, 0.1, 0.05, 0.02] {
        app.publish("work", json!({"body": 1, "delay_seconds": delay}))
            .await;
        let message = app.receive_one("work").await;
        assert_eq!(message["attempt"], 1);
        let leased_at = &history(&app, &message).await[0]["leased_at"];
        lates.push(seconds_between(&message["enqueued_at"], leased_at) - delay);
    }
    assert_in_time(lates);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delayed_messages_come_in_the_order_of_their_times() {
    let app = App::start().await;
    app.queue("work", json!({"delay_seconds": 0.4})).await;
    // The queue's delay, an own one, and none.
    let messages = json!([
        {"body": "c"}, {"body": "b", "delay_seconds": 0.2}, {"body": "a", "delay_seconds": 0},
    ]);
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let mut order = String::new();
    for _ in 0..3 {
        order.push_str(app.receive_one("work").await["body"].as_str().unwrap());
    }
    assert_eq!(order, "abc");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_parked_another_makes_ready_when_the_first_is_gone() {
    let app = App::start().await;
    app.queue("work", json!({"lease_seconds": 30})).await;
    app.queue("more", json!({"lease_seconds": 30})).await;
    let delays = [3.2, 3.5, 3.8];
    for delay in delays {
        app.publish("work", json!({"body": delay, "delay_seconds": delay}))
            .await;
    }
    app.publish("more", json!({"body": 1})).await;
    let leased = app.receive("more", json!({"lease_seconds": 3.5})).await;

    let other = app.another().await;
    let App { database, gateway } = app;
    gateway.app.shut_down().await.unwrap();
    let delayed = async {
        let mut lates = Vec::new();
        for delay in delays {
            let message = other.receive_one("work").await;
            assert_eq!(message["body"], delay);
            let to_end = seconds_between(&message["enqueued_at"], &message["lease_expires_at"]);
            lates.push(to_end - 30.0 - delay);
        }
        lates
    };
    let (mut lates, again) = tokio::join!(delayed, other.receive_one("more"));
    assert_eq!(
        (&again["id"], &again["attempt"]),
        (&leased[0]["id"], &json!(2))
    );
    let end = &leased[0]["lease_expires_at"];
    lates.push(seconds_between(end, &again["lease_expires_at"]) - 30.0);
    assert_in_time(lates);
    for queue in ["work", "more"] {
        other.assert_conserved(&database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_leases_that_end_together_all_come_back() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    for batch in 0..3 {
        let messages: Vec<Value> = (0..800).map(|n| json!({"body": batch * 800 + n})).collect();
        app.post("/v1/queues/work/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
    for _ in 0..3 {
        let messages = app.receive("work", json!({"max_messages": 800})).await;
        assert_eq!(messages.len(), 800);
    }
    execute(&app.database, "UPDATE postrider.parked SET wake_at = now()").await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 2400 {
        let request = json!({"max_messages": 1000, "wait_seconds": 20, "lease_seconds": 600});
        let messages = other.receive("work", request).await;
        assert!(!messages.is_empty(), "only {} came back", seen.len());
        for message in messages {
            assert_eq!(message["attempt"], 2);
            assert!(seen.insert(message["body"].as_u64().unwrap()), "{message}");
        }
    }
    app.assert_conserved(&app.database, "work").await;
}
