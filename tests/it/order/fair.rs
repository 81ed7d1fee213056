//! Fair queues: keys take turns.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ack, bodies, nack, publish_all, receive_now};
use crate::support::{App, Gateway, eventually};

/// Many messages of one key.
async fn flood(gateway: &Gateway, count: i64) {
    for from in (0..count).step_by(1000) {
        let messages: Vec<Value> = (from..(from + 1000).min(count))
            .map(|n| json!({"body": n, "key": "flood"}))
            .collect();
        gateway
            .post("/v1/queues/q/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_floods_the_queue_does_not_make_others_wait() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    flood(&app, 2000).await;
    publish_all(&app, "q", "one", &[-1]).await;
    publish_all(&app, "q", "two", &[-2, -3]).await;
    let mut places = Vec::new();
    for place in 0..12 {
        let message = app.receive_one("q").await;
        if message["body"].as_i64().unwrap() < 0 {
            places.push(place);
        }
    }
    assert_eq!(places.len(), 3, "{places:?}");
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_alone_drains_in_batches() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    flood(&app, 1000).await;
    let mut receives = 0;
    let mut got = Vec::new();
    while got.len() < 1000 {
        let messages = app
            .receive("q", json!({"max_messages": 50, "wait_seconds": 10}))
            .await;
        assert!(!messages.is_empty());
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        app.settle("ack", "q", &receipts, json!({})).await;
        got.extend(bodies(&messages));
        receives += 1;
    }
    assert!(receives < 60, "{receives} receives");
    got.sort_unstable();
    assert_eq!(got, (0..1000).collect::<Vec<i64>>());
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_ask_for_it_itself_and_any_gateway_passes_its_turn_on() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("q", json!({})).await;
    // It has the queue in its cache, as it was.
    assert!(receive_now(&other, "q").await.is_empty());
    for body in [1, 2, 3] {
        app.publish("q", json!({"body": body, "key": "a", "fair": true}))
            .await;
    }
    let request = app
        .request(reqwest::Method::POST, "/v1/queues/q/messages")
        .header("content-type", "text/plain")
        .header("postrider-key", "a")
        .header("postrider-fair", "true")
        .body("4");
    crate::support::Answer::of(request)
        .await
        .expect(StatusCode::CREATED);
    let mut got = 0;
    eventually("all have come", async || {
        got += receive_now(&other, "q").await.len();
        got == 4
    })
    .await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_say_that_it_is_not_fair() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    for body in [1, 2, 3] {
        app.publish("q", json!({"body": body, "key": "a", "fair": false}))
            .await;
    }
    publish_all(&app, "q", "b", &[11, 12]).await;
    app.publish("q", json!({"body": 21})).await;
    assert_eq!(bodies(&receive_now(&app, "q").await), [1, 2, 3, 11, 21, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fair_message_that_is_leased_or_rests_keeps_nobody_waiting() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    let first = app.receive_one("q").await;
    let second = app.receive_one("q").await;
    assert_eq!((&first["body"], &second["body"]), (&json!(1), &json!(2)));
    nack(&app, "q", &first, json!({"delay_seconds": 0})).await;
    let mut rest = [app.receive_one("q").await, app.receive_one("q").await];
    rest.sort_by_key(|message| message["body"].as_i64());
    assert_eq!(bodies(&rest), [1, 3]);
    for message in [&second, &rest[0], &rest[1]] {
        ack(&app, "q", message).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_publishes_fairly_to_fair_queues() {
    let app = App::start().await;
    app.topic("t", json!({})).await;
    app.queue("q", json!({"fair": true})).await;
    app.subscription("t", "one", json!({"queue": "q"})).await;
    for body in 1..=20 {
        app.publish_topic("t", json!({"body": body, "key": "flood"}))
            .await;
    }
    app.publish_topic("t", json!({"body": -1, "key": "a"}))
        .await;
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(app.receive_one("q").await);
    }
    assert!(bodies(&first).contains(&-1), "{:?}", bodies(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn fair_messages_flow_after_the_setting_is_taken_back() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    app.patch("/v1/queues/q", json!({"fair": false}))
        .await
        .expect(StatusCode::OK);
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(bodies(&[app.receive_one("q").await]));
    }
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3]);
    // Nothing waits in a line, so its order may be changed.
    assert_eq!(app.counts("q").await["ready"], 0);
}

/// More than one statement of a round looks at.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_more_behind_many_that_have_none_is_received_in_batches() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    for batch in 0..3 {
        let messages: Vec<Value> = (0..500)
            .map(|n| json!({"key": format!("a{batch}-{n}"), "body": n}))
            .collect();
        let published = app
            .post("/v1/queues/q/messages", json!({"messages": messages}))
            .await;
        published.expect(StatusCode::CREATED);
    }
    let mut received = 0;
    while received < 1500 {
        received += app.receive("q", json!({"max_messages": 1000})).await.len();
    }
    // They have nothing more, and stand in front of it.
    publish_all(&app, "q", "z", &(100..200).collect::<Vec<i64>>()).await;
    let mut most = 0;
    for _ in 0..10 {
        let some = app.receive("q", json!({"max_messages": 10, "wait_seconds": 10}));
        most = most.max(some.await.len());
    }
    // Its own turn brings one.
    assert!(most > 1, "{most} at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_receives_until_there_is_no_more() {
    let app = App::start().await;
    app.queue("q", json!({"fair": true})).await;
    publish_all(&app, "q", "a", &(0..200).collect::<Vec<i64>>()).await;
    // Until the first answer that is empty.
    assert_eq!(receive_now(&app, "q").await.len(), 200);
}
