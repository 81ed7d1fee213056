//! Keys that do not move, and what becomes of what follows a dead letter.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ack, ack_next, bodies, nack, ordered, publish_all, receive_now};
use crate::support::{App, eventually};

/// An ordered queue in which what follows a dead letter follows it.
pub(super) async fn strict() -> App {
    let app = App::start().await;
    let mut settings = ordered();
    settings["on_blocked"] = json!("dead_letter_key");
    app.queue("q", settings).await;
    app
}

pub(super) async fn dead(app: &App) -> Vec<(i64, String)> {
    let letters = app.get("/v1/queues/q/dead-letters").await.json();
    let mut letters: Vec<(i64, String)> = letters["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| {
            let reason = letter["reason"].as_str().unwrap().to_owned();
            (letter["body"].as_i64().unwrap(), reason)
        })
        .collect();
    letters.sort();
    letters
}

pub(super) async fn blocked(app: &App) -> Vec<Value> {
    let answer = app.get("/v1/queues/q/blocked-keys").await;
    answer.expect(StatusCode::OK)["keys"]
        .as_array()
        .unwrap()
        .clone()
}

async fn unblock(app: &App, key: &str) -> Value {
    let answer = app
        .post("/v1/queues/q/unblock", json!({"keys": [key]}))
        .await;
    answer.expect(StatusCode::OK)["results"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_wait_the_next_goes_on_after_a_dead_letter() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    ack_next(&app, "q", 2).await;
    assert_eq!(dead(&app).await, [(1, "rejected".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_dead_letter_follows_it_until_the_key_is_unblocked() {
    let app = strict().await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    publish_all(&app, "q", "b", &[11, 12]).await;
    let first = app.receive("q", json!({})).await;
    nack(&app, "q", &first[0], json!({"dead_letter": true})).await;
    let blocked_from = |body| (body, "key-blocked".to_owned());
    let followed = [(1, "rejected".to_owned()), blocked_from(2), blocked_from(3)];
    assert_eq!(dead(&app).await, followed);
    publish_all(&app, "q", "a", &[4]).await;
    assert_eq!(dead(&app).await[3], blocked_from(4));
    ack_next(&app, "q", 11).await;
    ack_next(&app, "q", 12).await;
    app.assert_conserved(&app.database, "q").await;

    let keys = blocked(&app).await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(keys[0]["key"], "a");
    assert_eq!(keys[0]["reason"], "dead-letter");
    assert_eq!(keys[0]["message_id"], first[0]["id"]);
    let done = unblock(&app, "a").await;
    assert_eq!(done["dead_letters"], 4);
    assert!(blocked(&app).await.is_empty());
    publish_all(&app, "q", "a", &[5]).await;
    ack_next(&app, "q", 5).await;
    assert_eq!(dead(&app).await.len(), 4, "they stay what they are");
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_follow_at_once() {
    let app = strict().await;
    publish_all(&app, "q", "a", &[0]).await;
    let first = app.receive_one("q").await;
    for batch in 0..3 {
        let messages: Vec<Value> = (1..=700)
            .map(|n| json!({"body": batch * 700 + n, "key": "a"}))
            .collect();
        app.post("/v1/queues/q/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    assert_eq!(app.counts("q").await["dead"], 2101);
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_lets_a_keys_dead_letters_in_in_their_order() {
    let app = strict().await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    assert_eq!(dead(&app).await.len(), 3);
    // One of them, while the others still hold the key.
    let redrive = json!({"ids": [first["id"]]});
    app.post("/v1/queues/q/dead-letters/redrive", redrive)
        .await
        .expect(StatusCode::OK);
    ack_next(&app, "q", 1).await;
    publish_all(&app, "q", "a", &[4]).await;
    assert_eq!(dead(&app).await.len(), 3, "4 follows 2 and 3");
    app.post("/v1/queues/q/dead-letters/redrive", json!({"filter": {}}))
        .await
        .expect(StatusCode::OK);
    publish_all(&app, "q", "a", &[5]).await;
    for body in [2, 3, 4, 5] {
        ack_next(&app, "q", body).await;
    }
    assert!(dead(&app).await.is_empty());
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_letter_that_dies_again_takes_along_what_follows() {
    let app = strict().await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    app.post("/v1/queues/q/dead-letters/redrive", json!({"filter": {}}))
        .await
        .expect(StatusCode::OK);
    let again = app.receive_one("q").await;
    assert_eq!(again["body"], 1);
    nack(&app, "q", &again, json!({"dead_letter": true})).await;
    let both = [(1, "rejected".to_owned()), (2, "key-blocked".to_owned())];
    assert_eq!(dead(&app).await, both);
    assert!(receive_now(&app, "q").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_uses_up_its_attempts_holds_its_key() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["on_blocked"] = json!("dead_letter_key");
    settings["max_attempts"] = json!(2);
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    app.receive("q", json!({"lease_seconds": 0.05})).await;
    let again = app.receive_one("q").await;
    nack(&app, "q", &again, json!({})).await;
    let both = [
        (1, "max-attempts".to_owned()),
        (2, "key-blocked".to_owned()),
    ];
    assert_eq!(dead(&app).await, both);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_the_dead_letters_lets_the_key_go() {
    let app = strict().await;
    publish_all(&app, "q", "a", &[1]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    app.post("/v1/queues/q/dead-letters/purge", "{}")
        .await
        .expect(StatusCode::OK);
    publish_all(&app, "q", "a", &[2]).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_keys_say_what_they_wait_for() {
    let app = App::start().await;
    app.queue("q", json!({"ordered": true})).await;
    publish_all(&app, "q", "leased", &[1, 2, 3]).await;
    let leased = app.receive_one("q").await;
    publish_all(&app, "q", "resting", &[11, 12]).await;
    let resting = app.receive_one("q").await;
    nack(&app, "q", &resting, json!({"delay_seconds": 600})).await;
    let delayed = json!({"body": 21, "key": "delayed", "delay_seconds": 600});
    app.publish("q", delayed).await;
    publish_all(&app, "q", "flowing", &[31, 32]).await;
    let keys = blocked(&app).await;
    let told: Vec<_> = keys
        .iter()
        .map(|key| {
            (
                key["key"].as_str().unwrap(),
                key["reason"].as_str().unwrap(),
                key["waiting"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("delayed", "delayed", 0),
            ("leased", "leased", 2),
            ("resting", "backing-off", 1)
        ]
    );
    assert_eq!(keys[1]["message_id"], leased["id"]);
    let page = app.get("/v1/queues/q/blocked-keys?limit=2").await;
    assert!(page.headers.contains_key("link"));
    let cursor = page.json()["next_cursor"].as_str().unwrap().to_owned();
    let rest = app
        .get(&format!(
            "/v1/queues/q/blocked-keys?limit=2&cursor={cursor}"
        ))
        .await
        .expect(StatusCode::OK);
    assert_eq!(rest["keys"][0]["key"], "resting");
    assert_eq!(rest["keys"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn unblock_wakes_what_rests_and_leaves_leases_alone() {
    let app = App::start().await;
    app.queue("q", json!({"ordered": true})).await;
    publish_all(&app, "q", "leased", &[1, 2]).await;
    let leased = app.receive_one("q").await;
    publish_all(&app, "q", "resting", &[11]).await;
    let resting = app.receive_one("q").await;
    nack(&app, "q", &resting, json!({"delay_seconds": 600})).await;
    let answer = app
        .post(
            "/v1/queues/q/unblock",
            json!({"keys": ["leased", "resting", "none"]}),
        )
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        answer["results"],
        json!([
            {"key": "leased", "dead_letters": 0, "woken": false, "leased": true},
            {"key": "resting", "dead_letters": 0, "woken": true, "leased": false},
            {"key": "none", "dead_letters": 0, "woken": false, "leased": false},
        ])
    );
    ack_next(&app, "q", 11).await;
    assert!(bodies(&receive_now(&app, "q").await).is_empty());
    ack(&app, "q", &leased).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_follow_are_told_of_as_dead_letters() {
    let app = strict().await;
    app.queue("events", json!({})).await;
    app.subscription("system.events", "mine", json!({"queue": "events"}))
        .await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"dead_letter": true})).await;
    let mut reasons = Vec::new();
    eventually("both are told", async || {
        for event in receive_now(&app, "events").await {
            reasons.push(
                event["body"]["reason"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        reasons.len() >= 2
    })
    .await;
    reasons.sort();
    assert_eq!(reasons, ["key-blocked", "rejected"]);
}
