//! Several messages of one key in one receive: leased together, settled in order.

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ack, ack_next, bodies, end_delays, nack, ordered, publish_all, receive_now};
use crate::support::{App, eventually};

/// An ordered queue with messages of one key, and a run of them.
async fn run(published: i64, received: u32, lease: f64) -> (App, Vec<Value>) {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let bodies: Vec<i64> = (1..=published).collect();
    publish_all(&app, "q", "a", &bodies).await;
    let request = json!({"max_messages": received, "lease_seconds": lease});
    let messages = app.receive("q", request).await;
    (app, messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_wants_more_gets_those_behind_too() {
    let (app, messages) = run(5, 3, 30.0).await;
    assert_eq!(bodies(&messages), [1, 2, 3]);
    assert!(receive_now(&app, "q").await.is_empty());
    for message in &messages {
        assert_eq!(message["attempt"], 1);
        ack(&app, "q", message).await;
    }
    ack_next(&app, "q", 4).await;
    ack_next(&app, "q", 5).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_come_first_and_then_each_has_its_share() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3, 4]).await;
    publish_all(&app, "q", "b", &[11, 12, 13]).await;
    let messages = app.receive("q", json!({"max_messages": 5})).await;
    assert_eq!(bodies(&messages), [1, 2, 3, 11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_are_of_a_thousand_keys_if_there_are_so_many() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    // The two of a key are neighbours: 2n and 2n + 1.
    for half in [0..1000, 1000..2000] {
        let messages: Vec<Value> = half
            .map(|n| json!({"body": n, "key": format!("k{}", n / 2)}))
            .collect();
        app.post("/v1/queues/q/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
    for round in [0, 1] {
        let messages = app.receive("q", json!({"max_messages": 1000})).await;
        let keys: HashSet<&str> = messages
            .iter()
            .map(|m| m["key"].as_str().unwrap())
            .collect();
        assert_eq!((messages.len(), keys.len()), (1000, 1000), "round {round}");
        let mut got = bodies(&messages);
        got.sort_unstable();
        let expected: Vec<i64> = (0..1000).map(|n| 2 * n + round).collect();
        assert_eq!(got, expected, "round {round}");
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        let acked = app.settle("ack", "q", &receipts, json!({})).await;
        let acked = acked.expect(StatusCode::OK);
        let results = acked["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["ok"] == true), "{acked}");
    }
    assert!(receive_now(&app, "q").await.is_empty());
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_out_of_order_is_refused_and_one_batch_may_list_them_anyhow() {
    let (app, messages) = run(4, 4, 30.0).await;
    let receipts: Vec<&Value> = messages.iter().map(|message| &message["receipt"]).collect();
    app.settle("ack", "q", &receipts[1..2], json!({}))
        .await
        .expect_problem(409, "out-of-order");
    let answer = app
        .settle("ack", "q", &[receipts[1], receipts[3]], json!({}))
        .await
        .expect(StatusCode::OK);
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(
            (&result["ok"], &result["code"]),
            (&json!(false), &json!("out-of-order"))
        );
    }
    let answer = app
        .settle(
            "ack",
            "q",
            &[receipts[2], receipts[0], receipts[1]],
            json!({}),
        )
        .await
        .expect(StatusCode::OK);
    for result in answer["results"].as_array().unwrap() {
        assert_eq!(result["ok"], true, "{answer}");
    }
    ack(&app, "q", &messages[3]).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_earlier_one_fails_those_behind_come_back_without_an_attempt() {
    let (app, messages) = run(4, 3, 30.0).await;
    ack(&app, "q", &messages[0]).await;
    nack(&app, "q", &messages[1], json!({})).await;
    // Its receipt is lost, and says so.
    app.settle("ack", "q", &[&messages[2]["receipt"]], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    app.assert_conserved(&app.database, "q").await;
    let again = app.receive("q", json!({"max_messages": 10})).await;
    let attempts: Vec<_> = again
        .iter()
        .map(|message| message["attempt"].as_i64().unwrap())
        .collect();
    assert_eq!(bodies(&again), [2, 3, 4]);
    assert_eq!(attempts, [2, 1, 1]);
    for message in &again {
        ack(&app, "q", message).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_leases_end_comes_back_in_order() {
    let (app, messages) = run(3, 3, 0.2).await;
    assert_eq!(bodies(&messages), [1, 2, 3]);
    eventually("the leases have ended", async || {
        app.counts("q").await["leased"] == 0
    })
    .await;
    let again = app.receive("q", json!({"max_messages": 10})).await;
    assert_eq!(bodies(&again), [1, 2, 3]);
    assert_eq!(
        (&again[0]["attempt"], &again[1]["attempt"]),
        (&json!(2), &json!(1))
    );
    app.settle("ack", "q", &[&messages[1]["receipt"]], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    for message in &again {
        ack(&app, "q", message).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_the_middle_may_be_given_back_and_takes_along_what_is_behind() {
    let (app, messages) = run(3, 3, 30.0).await;
    nack(&app, "q", &messages[1], json!({})).await;
    assert!(receive_now(&app, "q").await.is_empty(), "1 is not settled");
    app.settle("nack", "q", &[&messages[2]["receipt"]], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    ack(&app, "q", &messages[0]).await;
    ack_next(&app, "q", 2).await;
    ack_next(&app, "q", 3).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_in_the_middle_is_no_dead_letter_before_those_in_front_are_settled() {
    let (app, messages) = run(3, 3, 30.0).await;
    let dead = json!({"dead_letter": true});
    app.settle("nack", "q", &[&messages[1]["receipt"]], dead)
        .await
        .expect_problem(409, "out-of-order");
    assert_eq!(app.counts("q").await["dead"], 0);
    ack(&app, "q", &messages[0]).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_takes_its_run_along_if_it_holds_its_key() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["on_blocked"] = json!("dead_letter_key");
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1, 2, 3, 4]).await;
    let messages = app.receive("q", json!({"max_messages": 3})).await;
    assert_eq!(bodies(&messages), [1, 2, 3]);
    nack(&app, "q", &messages[0], json!({"dead_letter": true})).await;
    assert_eq!(app.counts("q").await["dead"], 4);
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_stops_at_a_delayed_message() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    app.publish("q", json!({"body": 3, "key": "a", "delay_seconds": 600}))
        .await;
    publish_all(&app, "q", "a", &[4]).await;
    let messages = app.receive("q", json!({"max_messages": 10})).await;
    assert_eq!(bodies(&messages), [1, 2]);
    for message in &messages {
        ack(&app, "q", message).await;
    }
    assert!(receive_now(&app, "q").await.is_empty());
    end_delays(&app.database).await;
    ack_next(&app, "q", 3).await;
    ack_next(&app, "q", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_drains_in_tens() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let messages: Vec<Value> = (0..200).map(|n| json!({"body": n, "key": "hot"})).collect();
    app.post("/v1/queues/q/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let mut got = Vec::new();
    for _ in 0..20 {
        let messages = app.receive("q", json!({"max_messages": 10})).await;
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        app.settle("ack", "q", &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
        got.extend(bodies(&messages));
    }
    assert_eq!(got, (0..200).collect::<Vec<i64>>());
    app.assert_conserved(&app.database, "q").await;
}
