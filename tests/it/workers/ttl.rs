//! Time to live.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, number, seconds_between};
use crate::support::{App, eventually};

/// Waits until nothing is left of a message, and sees that it expired.
async fn expires(app: &App, id: &str) {
    let path = format!("/v1/queues/work/messages/{id}");
    eventually("it expires", async || {
        app.get(&path).await.status == StatusCode::NOT_FOUND
    })
    .await;
    app.assert_conserved(&app.database, "work").await;
    let expired = "SELECT expired FROM postrider.queue_counts";
    assert_eq!(number(&app.database, expired).await, 1);
    assert_eq!(app.receive("work", json!({})).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_lives_as_long_as_its_queue_says() {
    let app = App::start().await;
    app.queue("work", json!({"message_ttl_seconds": 0.3})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    expires(&app, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_lives_as_long_as_its_publisher_says() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let stays = app.publish("work", json!({"body": 1})).await;
    let id = app
        .publish("work", json!({"body": 2, "ttl_seconds": 0.3}))
        .await;
    let path = format!("/v1/queues/work/messages/{id}");
    eventually("it expires", async || {
        app.get(&path).await.status == StatusCode::NOT_FOUND
    })
    .await;
    let got = app.receive("work", json!({"max_messages": 10})).await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["id"], stays.as_str());
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_never_delivered_after_its_time_even_if_no_worker_came() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    // Enough to fill a claim, so that the live one stands behind the dead.
    for body in 0..20 {
        app.publish("work", json!({"body": body, "ttl_seconds": 600}))
            .await;
    }
    app.publish("work", json!({"body": "alive"})).await;
    execute(
        &app.database,
        "UPDATE postrider.ready SET expires_at = now() - interval '1 ms' WHERE own_ttl",
    )
    .await;
    let got = app
        .receive("work", json!({"max_messages": 5, "wait_seconds": 20}))
        .await;
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(got[0]["body"], "alive");
    eventually("the others are settled", async || {
        app.counts("work").await["delayed"] == 0
    })
    .await;
    app.assert_conserved(&app.database, "work").await;
    let expired = "SELECT expired FROM postrider.queue_counts";
    assert_eq!(number(&app.database, expired).await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_live_begins_when_a_delay_is_over() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let message = json!({"body": 1, "ttl_seconds": 60, "delay_seconds": 600});
    let id = app.publish("work", message).await;
    let seen = app
        .get(&format!("/v1/queues/work/messages/{id}"))
        .await
        .expect(StatusCode::OK);
    let ttl = seconds_between(&seen["ready_at"], &seen["expires_at"]);
    assert!((ttl - 60.0).abs() < 1e-4, "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_expire_while_it_is_delayed() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app
        .publish("work", json!({"body": 1, "delay_seconds": 600}))
        .await;
    execute(
        &app.database,
        "UPDATE postrider.parked SET wake_at = now(), expires_at = now()",
    )
    .await;
    expires(&app, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_can_expire_after_a_nack() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app
        .publish("work", json!({"body": 1, "ttl_seconds": 600}))
        .await;
    let message = app.receive_one("work").await;
    execute(
        &app.database,
        "UPDATE postrider.parked SET expires_at = now() + interval '0.2 s'",
    )
    .await;
    app.settle(
        "nack",
        "work",
        &[&message["receipt"]],
        json!({"delay_seconds": 0.4}),
    )
    .await
    .expect(StatusCode::OK);
    expires(&app, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_lease_may_ack_after_the_message_expired() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1, "ttl_seconds": 600}))
        .await;
    let message = app.receive_one("work").await;
    execute(
        &app.database,
        "UPDATE postrider.parked SET expires_at = now()",
    )
    .await;
    app.settle("ack", "work", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    app.assert_conserved(&app.database, "work").await;
    let expired = "SELECT expired FROM postrider.queue_counts";
    assert_eq!(number(&app.database, expired).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_outlives_its_message_ends_in_expiry() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    app.receive_one("work").await;
    execute(
        &app.database,
        "UPDATE postrider.parked SET expires_at = now(), wake_at = now() + interval '0.1 s'",
    )
    .await;
    expires(&app, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_queue_keeps_them_expired_messages_are_dead_letters() {
    let app = App::start().await;
    app.queue("work", json!({"dead_letter": {"keep_expired": true}}))
        .await;
    let id = app
        .publish("work", json!({"body": {"n": 1}, "ttl_seconds": 0.2}))
        .await;
    let path = format!("/v1/queues/work/dead-letters/{id}");
    eventually("it is dead", async || {
        app.get(&path).await.status == StatusCode::OK
    })
    .await;
    let letter = app.get(&path).await.expect(StatusCode::OK);
    assert_eq!(letter["reason"], "expired");
    assert_eq!(letter["attempts"], 0);
    assert_eq!(letter["body"], json!({"n": 1}));
    app.assert_conserved(&app.database, "work").await;
    let expired = "SELECT expired FROM postrider.queue_counts";
    assert_eq!(number(&app.database, expired).await, 0);
    // Put back, it has its whole time to live again.
    app.post("/v1/queues/work/dead-letters/redrive", json!({"ids": [id]}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(app.receive_one("work").await["attempt"], 1);
}
