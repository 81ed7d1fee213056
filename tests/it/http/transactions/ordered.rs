//! Transactions and keyed requests on ordered queues: turns are passed on after the
//! commit.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{assert_refused, part, transact};
use crate::http::idempotency::{assert_replays, keyed};
use crate::support::App;

async fn receive(app: &App, most: u32) -> Vec<Value> {
    app.receive("jobs", json!({"max_messages": most, "wait_seconds": 20}))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_of_a_key_comes_when_the_transaction_has_committed() {
    let app = App::start().await;
    app.queue("jobs", json!({"ordered": true})).await;
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({"queue": "jobs"})).await;
    for body in 1..=2 {
        app.publish("jobs", json!({"body": body, "key": "a"})).await;
    }
    let one = receive(&app, 1).await.remove(0);
    assert_eq!(one["body"], 1);
    let message = |body: u32| json!({"body": body, "key": "a"});
    let steps = json!({
        "acks": [part("jobs", &one["receipt"])],
        "publishes": [{"queue": "jobs", "message": message(3)}, {"topic": "t", "message": message(4)}],
    });
    transact(&app, steps).await.expect(StatusCode::OK);
    let two = receive(&app, 1).await.remove(0);
    assert_eq!(two["body"], 2);
    // Given up by a nack, it is in nobody's way.
    let nack = json!({"queue": "jobs", "receipt": two["receipt"], "dead_letter": true});
    transact(&app, json!({"nacks": [nack]}))
        .await
        .expect(StatusCode::OK);
    let three = receive(&app, 1).await.remove(0);
    assert_eq!(three["body"], 3);
    let ack = json!({"acks": [part("jobs", &three["receipt"])]});
    transact(&app, ack).await.expect(StatusCode::OK);
    assert_eq!(receive(&app, 1).await[0]["body"], 4);
    app.assert_conserved(&app.database, "jobs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_of_a_key_the_first_is_settled_first_or_with_the_others() {
    let app = App::start().await;
    app.queue("jobs", json!({"ordered": true})).await;
    for body in 1..=3 {
        app.publish("jobs", json!({"body": body, "key": "a"})).await;
    }
    let run = receive(&app, 3).await;
    assert_eq!(run.len(), 3);
    let ack = |at: usize| part("jobs", &run[at]["receipt"]);
    let early = transact(&app, json!({"acks": [ack(1)]})).await;
    assert_refused(&early, 409, "out-of-order", "/acks/0");
    transact(&app, json!({"acks": [ack(0), ack(1)]}))
        .await
        .expect(StatusCode::OK);
    let back = json!({"queue": "jobs", "receipt": run[2]["receipt"], "delay_seconds": 0});
    transact(&app, json!({"nacks": [back]}))
        .await
        .expect(StatusCode::OK);
    let again = receive(&app, 1).await.remove(0);
    assert_eq!((&again["body"], &again["attempt"]), (&json!(3), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_publish_to_an_ordered_queue_takes_its_place_once() {
    let app = App::start().await;
    app.queue("jobs", json!({"ordered": true})).await;
    let path = "/v1/queues/jobs/messages";
    let batch = json!({"messages": [{"body": 1, "key": "a"}, {"body": 2, "key": "a"}]});
    let first = keyed(&app, path, "k", &batch).await;
    first.expect(StatusCode::CREATED);
    assert_replays(&keyed(&app, path, "k", &batch).await, &first);
    for body in 1..=2 {
        let message = receive(&app, 1).await.remove(0);
        assert_eq!(message["body"], body);
        app.settle("ack", "jobs", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    let counts = app.counts("jobs").await;
    assert_eq!(
        (&counts["ready"], &counts["leased"]),
        (&json!(0), &json!(0))
    );
}
