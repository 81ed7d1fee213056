//! `POST /v1/queues/{queue}/receive`, without waiting; for that see
//! `workers/waking.rs`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::seconds_between;
use crate::support::{Answer, App};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn bodies(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|m| m["body"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_received_message_carries_all_that_was_published() {
    let app = App::start().await;
    app.queue("orders", json!({"lease_seconds": 120})).await;
    let publish = app
        .request(reqwest::Method::POST, "/v1/queues/orders/messages")
        .header("content-type", "application/json")
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "vendor=value")
        .body(
            json!({
                "body": {"order": 42}, "headers": {"tenant": "acme"}, "key": "customer-7",
                "priority": 3, "correlation_id": "c-1", "reply_to": "answers",
            })
            .to_string(),
        );
    let published = Answer::of(publish).await.expect(StatusCode::CREATED);

    let mut messages = app.receive("orders", json!({})).await;
    assert_eq!(messages.len(), 1);
    let message = messages[0].as_object_mut().unwrap();
    let receipt = message.remove("receipt").unwrap();
    assert!(receipt.as_str().unwrap().len() > 40, "{receipt}");
    let enqueued_at = message.remove("enqueued_at").unwrap();
    let lease_expires_at = message.remove("lease_expires_at").unwrap();
    let lease = seconds_between(&enqueued_at, &lease_expires_at);
    assert!((120.0..150.0).contains(&lease), "{lease}");
    assert_eq!(
        messages[0],
        json!({
            "id": published["messages"][0]["id"], "body": {"order": 42},
            "content_type": "application/json", "headers": {"tenant": "acme"},
            "key": "customer-7", "priority": 3, "attempt": 1, "correlation_id": "c-1",
            "reply_to": "answers", "traceparent": TRACEPARENT, "tracestate": "vendor=value",
            "topic": null, "routing_key": null,
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_published_is_null_and_bytes_come_in_base64() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let message = json!({"body_base64": "AP8=", "content_type": "image/png"});
    app.publish("orders", message).await;
    let received = app.receive_one("orders").await;
    assert_eq!(received["body_base64"], "AP8=");
    assert_eq!(received.get("body"), None);
    assert_eq!(received["content_type"], "image/png");
    assert_eq!(received["headers"], json!({}));
    assert_eq!(received["priority"], 0);
    for field in [
        "key",
        "correlation_id",
        "reply_to",
        "traceparent",
        "tracestate",
    ] {
        assert_eq!(received[field], Value::Null, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_body_one_message_is_received() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.publish("orders", json!({"body": 1})).await;
    app.publish("orders", json!({"body": 2})).await;
    let bare = app.request(reqwest::Method::POST, "/v1/queues/orders/receive");
    let answer = Answer::of(bare).await.expect(StatusCode::OK);
    assert_eq!(answer["messages"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_come_than_were_asked_for() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let messages: Vec<Value> = (0..12).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/orders/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    for (max, expected) in [
        (5, vec![0, 1, 2, 3, 4]),
        (6, vec![5, 6, 7, 8, 9, 10]),
        (1000, vec![11]),
        (1000, vec![]),
    ] {
        let got = app.receive("orders", json!({"max_messages": max})).await;
        assert_eq!(json!(bodies(&got)), json!(expected));
    }
    assert_eq!(app.counts("orders").await["leased"], 12);
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_message_is_nobody_elses() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    app.receive_one("orders").await;
    for gateway in [&app.gateway, &other] {
        for request in [json!({}), json!({"wait_seconds": 0.2})] {
            assert_eq!(
                gateway.receive("orders", request).await,
                Vec::<Value>::new()
            );
        }
    }
    let seen = app
        .get(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&seen["state"], &seen["attempts"]),
        (&json!("leased"), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_may_ask_for_another_lease_than_the_queues() {
    let app = App::start().await;
    app.queue("orders", json!({"lease_seconds": 7})).await;
    for body in 1..=3 {
        app.publish("orders", json!({"body": body})).await;
    }
    for (request, expected) in [
        (json!({}), 7.0),
        (json!({"lease_seconds": 0.75}), 0.75),
        (json!({"lease_seconds": 43_200}), 43_200.0),
    ] {
        let message = app.receive("orders", request).await.remove(0);
        let id = message["id"].as_str().unwrap();
        let seen = app
            .get(&format!("/v1/queues/orders/messages/{id}"))
            .await
            .expect(StatusCode::OK);
        // Both by the database's clock, in the same statement.
        let leased_at = &seen["history"][0]["leased_at"];
        let lease = seconds_between(leased_at, &message["lease_expires_at"]);
        assert!((lease - expected).abs() < 1e-4, "{lease}");
    }
    for seconds in [0.0, -1.0, 43_200.5] {
        app.post(
            "/v1/queues/orders/receive",
            json!({"lease_seconds": seconds}),
        )
        .await
        .expect_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_comes_first_and_in_it_the_oldest() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let priorities = [0, 9, 5, 9, 0, 1, 5, 8];
    for (body, priority) in priorities.into_iter().enumerate() {
        app.publish("orders", json!({"body": body, "priority": priority}))
            .await;
    }
    let expected = json!([1, 3, 7, 2, 6, 5, 0, 4]);
    let mut got = bodies(&app.receive("orders", json!({"max_messages": 3})).await);
    got.extend(bodies(
        &app.receive("orders", json!({"max_messages": 100})).await,
    ));
    assert_eq!(json!(got), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_answers_at_once_if_nobody_wants_to_wait() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.publish("orders", json!({"body": 1, "delay_seconds": 3600}))
        .await;
    let started = std::time::Instant::now();
    for request in [json!({}), json!({"wait_seconds": 0})] {
        for _ in 0..10 {
            let none = app.receive("orders", request.clone()).await;
            assert_eq!(none, Vec::<Value>::new());
        }
    }
    // A second for each, on a machine that has other things to do.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    app.post("/v1/queues/nowhere/receive", json!({}))
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_do_not_mix() {
    let app = App::start().await;
    for queue in ["a", "b", "c"] {
        app.queue(queue, json!({})).await;
    }
    for body in 0..9 {
        let queue = ["a", "b", "c"][body % 3];
        app.publish(queue, json!({"body": body})).await;
    }
    for (at, queue) in ["a", "b", "c"].into_iter().enumerate() {
        let got = app.receive(queue, json!({"max_messages": 100})).await;
        assert_eq!(json!(bodies(&got)), json!([at, at + 3, at + 6]));
        app.assert_conserved(&app.database, queue).await;
    }
}
