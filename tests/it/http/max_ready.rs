//! `max_ready` with batches that are too large, and with gateways side by side.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::counts::expect_counts;
use crate::support::{Answer, App};

const MESSAGES: &str = "/v1/queues/orders/messages";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_whole_queue_is_refused_or_leaves_its_end() {
    let app = App::start().await;
    app.queue("orders", json!({"max_ready": 3})).await;
    let batch: Vec<Value> = (0..5).map(|n| json!({"body": n})).collect();
    let batch = json!({"messages": batch});
    app.post(MESSAGES, &batch)
        .await
        .expect_problem(429, "queue-full");
    app.patch("/v1/queues/orders", json!({"overflow": "drop_oldest"}))
        .await
        .expect(StatusCode::OK);
    app.post(MESSAGES, &batch).await.expect(StatusCode::CREATED);
    expect_counts(&app, "orders", &json!({"ready": 3, "dead": 2})).await;
    let received = app.receive("orders", json!({"max_messages": 10})).await;
    let bodies: Vec<&Value> = received.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!(2), &json!(3), &json!(4)]);
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_that_publish_at_once_overrun_a_full_queue_by_no_more_than_they_had_in_flight()
{
    let app = App::start().await;
    let other = app.another().await;
    for (queue, overflow) in [("reject", "reject"), ("drop", "drop_oldest")] {
        app.queue(queue, json!({"max_ready": 20, "overflow": overflow}))
            .await;
        let path = format!("/v1/queues/{queue}/messages");
        let mut publishers = JoinSet::new();
        for n in 0..100 {
            let gateway = if n % 2 == 0 { &app.gateway } else { &other };
            let request = gateway
                .request(Method::POST, &path)
                .header("content-type", "application/json")
                .body(json!({"body": n}).to_string());
            publishers.spawn(Answer::of(request));
        }
        let mut stored = 0;
        while let Some(answer) = publishers.join_next().await {
            let answer = answer.unwrap();
            if answer.status == StatusCode::CREATED {
                stored += 1;
            } else {
                answer.expect_problem(429, "queue-full");
            }
        }
        if overflow == "reject" {
            // What both asked at the same moment.
            assert!((20..=100).contains(&stored), "{stored}");
            expect_counts(&app, queue, &json!({"ready": stored, "dead": 0})).await;
            app.post(&path, json!({"body": "more"}))
                .await
                .expect_problem(429, "queue-full");
        } else {
            assert_eq!(stored, 100);
            // One more brings back what they overran it by.
            app.publish(queue, json!({"body": "last"})).await;
            expect_counts(&app, queue, &json!({"ready": 20, "dead": 81})).await;
        }
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_full_queue_is_refused_at_once_or_takes_the_oldests_place() {
    const REQUESTS: &str = "/v1/queues/orders/requests";
    let app = App::start().await;
    app.queue("orders", json!({"max_ready": 1})).await;
    let ask = async |body: &str| {
        let request = app
            .request(Method::POST, REQUESTS)
            .header("content-type", "application/json")
            .header("prefer", "wait=30")
            .body(json!({"body": body}).to_string());
        Answer::of(request).await
    };
    app.publish("orders", json!({"body": "oldest"})).await;
    let began = std::time::Instant::now();
    ask("refused").await.expect_problem(429, "queue-full");
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    assert_eq!(app.app.broker().replies().waiting(), 0);
    expect_counts(&app, "orders", &json!({"ready": 1, "dead": 0})).await;
    app.patch("/v1/queues/orders", json!({"overflow": "drop_oldest"}))
        .await
        .expect(StatusCode::OK);
    let asked = app.post(REQUESTS, json!({"body": "taken"})).await;
    asked.expect(StatusCode::ACCEPTED);
    expect_counts(&app, "orders", &json!({"ready": 1, "dead": 1})).await;
    assert_eq!(app.receive_one("orders").await["body"], "taken");
}
