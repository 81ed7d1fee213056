//! `on_blocked: dead_letter_key`: which dead letters hold their key, and which
//! publishes follow them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::blocked::{blocked, dead, strict};
use super::{ack_next, bodies, nack, ordered, publish_all, receive_now};
use crate::store::execute;
use crate::support::{App, Receiver, Reply, eventually};

/// The same with more settings.
async fn strict_with(more: Value) -> App {
    let app = App::start().await;
    let mut settings = ordered();
    settings["on_blocked"] = json!("dead_letter_key");
    let more = more.as_object().unwrap().clone();
    settings.as_object_mut().unwrap().extend(more);
    app.queue("q", settings).await;
    app
}

/// 1 is dead for this reason and holds its key: 2 has followed it, so does 3, and
/// nobody gets any of them.
async fn assert_held(app: &App, reason: &str) {
    let followed = |body| (body, "key-blocked".to_owned());
    let mut expected = vec![(1, reason.to_owned()), followed(2)];
    eventually("2 has followed", async || dead(app).await.len() >= 2).await;
    assert_eq!(dead(app).await, expected);
    publish_all(app, "q", "a", &[3]).await;
    expected.push(followed(3));
    eventually("3 has followed", async || dead(app).await.len() >= 3).await;
    assert_eq!(dead(app).await, expected);
    assert_eq!(bodies(&receive_now(app, "q").await), Vec::<i64>::new());
    let keys = blocked(app).await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(
        (&keys[0]["key"], &keys[0]["reason"]),
        (&json!("a"), &json!("dead-letter"))
    );
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_runs_out_on_the_last_attempt_holds_its_key() {
    let app = strict_with(json!({"max_attempts": 1})).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let leased = app.receive("q", json!({"lease_seconds": 0.1})).await;
    assert_eq!(bodies(&leased), [1]);
    assert_held(&app, "max-attempts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactions_nack_holds_the_key() {
    let app = strict().await;
    app.queue("other", json!({})).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let leased = app.receive_one("q").await;
    let steps = json!({
        "nacks": [{"queue": "q", "receipt": leased["receipt"], "dead_letter": true}],
        "publishes": [{"queue": "other", "message": {"body": 1}}],
    });
    app.post("/v1/transactions", steps)
        .await
        .expect(StatusCode::OK);
    assert_held(&app, "rejected").await;
    ack_next(&app, "other", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_fails_for_good_holds_its_key() {
    let app = strict_with(json!({"max_attempts": 2})).await;
    let receiver = Receiver::start().await;
    receiver.usually(Reply::status(500));
    publish_all(&app, "q", "a", &[1, 2]).await;
    let hook = json!({
        "url": receiver.url("/hook"),
        "circuit_breaker": {"min_calls": 1000, "window": 1000},
    });
    app.put("/v1/queues/q/webhook", hook)
        .await
        .expect(StatusCode::CREATED);
    eventually("1 is dead", async || !dead(&app).await.is_empty()).await;
    app.delete("/v1/queues/q/webhook")
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_held(&app, "max-attempts").await;
    let pushed: Vec<_> = receiver.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(pushed, [b"1", b"1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_holds_nothing() {
    let app = strict_with(json!({"dead_letter": {"keep_expired": true}})).await;
    for body in [1, 2] {
        let message = json!({"body": body, "key": "a", "ttl_seconds": 0.1});
        app.publish("q", message).await;
    }
    publish_all(&app, "q", "a", &[3]).await;
    eventually("the head and the one behind it have expired", async || {
        dead(&app).await.len() >= 2
    })
    .await;
    let expired = |body| (body, "expired".to_owned());
    assert_eq!(dead(&app).await, [expired(1), expired(2)]);
    ack_next(&app, "q", 3).await;
    publish_all(&app, "q", "a", &[4]).await;
    ack_next(&app, "q", 4).await;
    assert!(blocked(&app).await.is_empty());
    assert_eq!(dead(&app).await.len(), 2);
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_overflowed_holds_nothing() {
    let app = strict_with(json!({"max_ready": 2, "overflow": "drop_oldest"})).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    assert_eq!(dead(&app).await, [(1, "overflow".to_owned())]);
    ack_next(&app, "q", 2).await;
    publish_all(&app, "q", "a", &[4]).await;
    ack_next(&app, "q", 3).await;
    ack_next(&app, "q", 4).await;
    assert!(blocked(&app).await.is_empty());
    assert_eq!(dead(&app).await.len(), 1);
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_way_it_is_published_it_follows_the_letter_that_holds_its_key() {
    let app = strict().await;
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({"queue": "q"})).await;
    publish_all(&app, "q", "a", &[1]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;

    let of = |key: &str, body: i64| json!({"body": body, "key": key});
    app.publish_topic("t", of("a", 2)).await;
    app.publish_topic("t", of("b", 12)).await;
    let door = |of: &str, key: &str, body: i64| {
        let call = format!("SELECT postrider.{of}, '{body}', key => '{key}')");
        execute(&app.database, call)
    };
    door("publish('q'", "a", 3).await;
    door("publish('q'", "b", 13).await;
    door("publish_topic('t'", "a", 4).await;
    door("publish_topic('t'", "b", 14).await;
    // They go through the door when it is looked at, and in order.
    eventually("they have come", async || {
        let counts = app.counts("q").await;
        (&counts["ready"], &counts["dead"]) == (&json!(3), &json!(4))
    })
    .await;
    let steps = json!({"publishes": [
        {"queue": "q", "message": of("a", 5)}, {"queue": "q", "message": of("b", 15)},
        {"topic": "t", "message": of("a", 6)}, {"topic": "t", "message": of("b", 16)},
    ]});
    app.post("/v1/transactions", steps)
        .await
        .expect(StatusCode::OK);
    for body in 12..=16 {
        ack_next(&app, "q", body).await;
    }
    eventually("all of the key are dead", async || {
        dead(&app).await.len() >= 6
    })
    .await;
    let mut expected = vec![(1, "rejected".to_owned())];
    expected.extend((2..=6).map(|body| (body, "key-blocked".to_owned())));
    assert_eq!(dead(&app).await, expected);
    app.assert_conserved(&app.database, "q").await;
}
