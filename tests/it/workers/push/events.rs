//! What operators are told through `system.events`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, Hook, hook, publish_many};
use crate::store::number;
use crate::support::{App, Reply, eventually};

/// A queue `alerts` that all events go to.
async fn alerts(app: &App, settings: Value) {
    app.queue("alerts", settings).await;
    app.subscription("system.events", "alerts", json!({"queue": "alerts"}))
        .await;
}

/// The next event, acked.
async fn event(app: &App) -> Value {
    let message = app.receive_one("alerts").await;
    app.settle("ack", "alerts", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(message["topic"], "system.events");
    assert_eq!(message["routing_key"], message["body"]["event"]);
    message["body"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_told_once_a_second_with_their_number() {
    let hook = Hook::start(json!({"max_in_flight": 100}), json!({"max_attempts": 1})).await;
    alerts(&hook, json!({})).await;
    hook.receiver.usually(Reply::status(500));
    let ids = hook.publish_many(300).await;
    let (mut told, mut events) = (0, 0);
    while told < 300 {
        let event = event(&hook).await;
        assert_eq!(event["event"], "message.dead_lettered");
        assert_eq!(event["queue"], "orders");
        assert_eq!(event["reason"], "max-attempts");
        let named = event["message_ids"].as_array().unwrap();
        assert!((1..=10).contains(&named.len()));
        for id in named {
            assert!(ids.iter().any(|known| id == known));
        }
        told += event["count"].as_u64().unwrap();
        events += 1;
    }
    assert_eq!(told, 300);
    let first = hook.receiver.requests()[0].at;
    let seconds = first.elapsed().as_secs();
    assert!(events <= seconds + 2, "{events} events in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_that_opens_and_closes_and_a_webhook_that_ends_are_told() {
    let breaker = json!({"failure_rate": 0.5, "window": 4, "min_calls": 2, "open_seconds": 0.5});
    let settings = json!({"circuit_breaker": breaker, "max_in_flight": 1});
    let hook = Hook::start(settings, json!({"max_attempts": 50})).await;
    alerts(&hook, json!({})).await;
    // Fails again when probed, which is not told again.
    for _ in 0..4 {
        hook.receiver.next(Reply::status(500));
    }
    hook.publish("orders", json!({"body": 1})).await;
    let opened = event(&hook).await;
    assert_eq!(
        opened,
        json!({
            "event": "webhook.breaker_opened", "queue": "orders",
            "error": "the endpoint answered 500",
        })
    );
    let closed = event(&hook).await;
    assert_eq!(
        closed,
        json!({"event": "webhook.breaker_closed", "queue": "orders"})
    );
    hook.receiver.next(Reply::status(410));
    hook.publish("orders", json!({"body": 2})).await;
    let disabled = event(&hook).await;
    assert_eq!(
        disabled,
        json!({"event": "webhook.disabled", "queue": "orders", "reason": "gone"})
    );
    assert_eq!(hook.webhook().await["status"], "disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_high_backlog_is_told_and_that_it_is_cleared() {
    let hook = Hook::start(json!({}), json!({"max_ready": 10})).await;
    alerts(&hook, json!({})).await;
    hook.post(&format!("{HOOK}/pause"), "{}")
        .await
        .expect(StatusCode::OK);
    hook.publish_many(10).await;
    let high = event(&hook).await;
    assert_eq!(high["event"], "queue.backlog_high");
    assert_eq!(high["queue"], "orders");
    assert_eq!(high["ready"], 10);
    hook.post(&format!("{HOOK}/resume"), "{}")
        .await
        .expect(StatusCode::OK);
    hook.drained().await;
    let cleared = event(&hook).await;
    assert_eq!(cleared["event"], "queue.backlog_cleared");
    assert_eq!(cleared["queue"], "orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_befalls_the_queues_of_events_causes_none() {
    let app = App::start().await;
    // The alerts are pushed themselves, to an endpoint that fails.
    let receiver = crate::support::Receiver::start().await;
    receiver.usually_on("/alerts", Reply::status(500));
    let breaker = json!({"failure_rate": 0.5, "window": 4, "min_calls": 2, "open_seconds": 0.2});
    let settings = json!({"circuit_breaker": breaker});
    let queue = json!({"max_attempts": 2});
    hook(&app, "alerts", &receiver.url("/alerts"), settings, queue).await;
    app.subscription("system.events", "alerts", json!({"queue": "alerts"}))
        .await;
    receiver.usually_on("/orders", Reply::status(500));
    let once = json!({"max_attempts": 1});
    hook(&app, "orders", &receiver.url("/orders"), json!({}), once).await;
    publish_many(&app, "orders", 1).await;

    eventually("the alert is dead", async || {
        app.counts("alerts").await["dead"] == 1
    })
    .await;
    // Events are published once a second; three of them pass.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let counts = app.counts("alerts").await;
    assert_eq!(counts["dead"], 1, "{counts}");
    let events = "SELECT count(*) FROM postrider.messages WHERE topic = 'system.events'";
    assert_eq!(number(&app.database, events).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_given_up_for_want_of_room_are_told() {
    let app = App::start().await;
    app.queue("full", json!({"max_ready": 2, "overflow": "drop_oldest"}))
        .await;
    alerts(&app, json!({})).await;
    let oldest = app.publish("full", json!({"body": 1})).await;
    for body in 2..=3 {
        app.publish("full", json!({"body": body})).await;
    }
    loop {
        let event = event(&app).await;
        // Two of two are a backlog, too.
        if event["event"] == "message.dead_lettered" {
            assert_eq!(event["reason"], "overflow");
            assert_eq!(event["message_ids"], json!([oldest]));
            return;
        }
    }
}
