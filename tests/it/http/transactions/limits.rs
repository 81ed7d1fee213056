//! What a transaction may hold, and whose names it may name.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{PATH, assert_refused, lease, part, transact};
use crate::http::keys::lives::alike;
use crate::http::keys::{Guarded, with_key};
use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn one_to_a_thousand_parts_in_all() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let publishes = |n| vec![json!({"queue": "orders", "message": {"body": 1}}); n];
    assert_refused(&transact(&app, json!({})).await, 422, "invalid", "");
    let receipt = lease(&app, "orders").await;
    let acks = [part("orders", &receipt)];
    let steps = json!({"acks": acks, "publishes": publishes(1000)});
    assert_refused(&transact(&app, steps).await, 422, "invalid", "");
    let steps = json!({"acks": acks, "publishes": publishes(999)});
    let answer = transact(&app, steps).await.expect(StatusCode::OK);
    assert_eq!(answer["publishes"].as_array().unwrap().len(), 999);
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_are_not_valid_are_named() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let receipt = lease(&app, "orders").await;
    for (steps, status, code, pointer) in [
        (
            json!({"acks": [part("orders", &json!("garbage"))]}),
            422,
            "receipt-malformed",
            "/acks/0/receipt",
        ),
        (
            json!({"acks": [part("or/ders", &receipt)]}),
            422,
            "invalid",
            "/acks/0/queue",
        ),
        (
            json!({"acks": [part("orders", &receipt), part("orders", &receipt)]}),
            422,
            "invalid",
            "/acks/1/receipt",
        ),
        (
            json!({"acks": [part("orders", &receipt)], "nacks": [part("orders", &receipt)]}),
            422,
            "invalid",
            "/nacks/0/receipt",
        ),
        (
            json!({"acks": [["orders", receipt]]}),
            422,
            "invalid",
            "/acks/0",
        ),
        (
            json!({"acks": [{"queue": "orders"}]}),
            422,
            "invalid",
            "/acks/0",
        ),
        (
            json!({"acks": [{"queue": "orders", "receipt": receipt, "more": 1}]}),
            422,
            "invalid",
            "/acks/0/more",
        ),
        (
            json!({"nacks": [{"queue": "orders", "receipt": receipt, "delay_seconds": -1}]}),
            422,
            "invalid",
            "/nacks/0/delay_seconds",
        ),
        (
            json!({"nacks": [{"queue": "orders", "receipt": receipt, "delay_seconds": 1, "dead_letter": true}]}),
            422,
            "invalid",
            "/nacks/0/delay_seconds",
        ),
        (
            json!({"nacks": [{"queue": "orders", "receipt": receipt, "reason": "\0"}]}),
            422,
            "invalid",
            "/nacks/0/reason",
        ),
    ] {
        assert_refused(&transact(&app, steps).await, status, code, pointer);
    }
    assert_eq!(app.counts("orders").await["leased"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_are_not_valid_are_named() {
    let app = App::start().await;
    app.queue("orders", json!({"max_message_bytes": 10})).await;
    app.topic("shop", json!({})).await;
    let to = |publish: Value| json!({"publishes": [{"queue": "orders", "message": {"body": 1}}, publish]});
    let message = json!({"body": 1});
    for (steps, status, code, pointer) in [
        (
            to(json!({"message": message})),
            422,
            "invalid",
            "/publishes/1",
        ),
        (
            to(json!({"queue": "orders", "topic": "shop", "message": message})),
            422,
            "invalid",
            "/publishes/1/topic",
        ),
        (
            to(json!({"topic": "system.events", "message": message})),
            422,
            "invalid",
            "/publishes/1/topic",
        ),
        (
            to(json!({"queue": "orders", "message": {"body": 1, "priority": 10}})),
            422,
            "invalid",
            "/publishes/1/message/priority",
        ),
        (
            to(json!({"queue": "orders", "message": {}})),
            422,
            "invalid",
            "/publishes/1/message/body",
        ),
        (
            to(json!({"queue": "orders", "message": {"body": 1, "routing_key": "a"}})),
            422,
            "invalid",
            "/publishes/1/message/routing_key",
        ),
        (
            to(json!({"queue": "orders", "message": {"messages": [message]}})),
            422,
            "invalid",
            "/publishes/1/message/messages",
        ),
        (
            to(json!({"topic": "shop", "message": {"body": 1, "mandatory": true}})),
            422,
            "unroutable",
            "/publishes/1/message/mandatory",
        ),
        (
            to(json!({"queue": "orders", "message": {"body": "longer than ten"}})),
            413,
            "message-too-large",
            "/publishes/1/message/body",
        ),
    ] {
        assert_refused(&transact(&app, steps).await, status, code, pointer);
    }
    app.post(PATH, "{\"acks\": [], \"acks\": []}")
        .await
        .expect_problem(422, "invalid");
    app.post(PATH, "[]").await.expect_problem(422, "invalid");
    assert_eq!(app.counts("orders").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_count_its_messages() {
    let app = App::start().await;
    let slow = json!({"rate_limit": {"publish_per_second": 0.01, "burst": 3}});
    app.queue("orders", slow).await;
    let publish = json!({"queue": "orders", "message": {"body": 1}});
    let steps = |n| json!({"publishes": vec![publish.clone(); n]});
    transact(&app, steps(4))
        .await
        .expect_problem(422, "batch-over-burst");
    transact(&app, steps(2)).await.expect(StatusCode::OK);
    transact(&app, steps(2))
        .await
        .expect_problem(429, "rate-limited");
    assert_eq!(app.counts("orders").await["ready"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_in_it_is_checked_and_what_a_key_does_not_see_is_not_there() {
    let app = Guarded::start().await;
    for path in [
        "/v1/queues/seen.a",
        "/v1/queues/hidden.a",
        "/v1/topics/hidden.t",
    ] {
        app.as_admin(Method::PUT, path, json!({}))
            .await
            .expect(StatusCode::CREATED);
    }
    let leased = async |queue: &str| {
        let path = format!("/v1/queues/{queue}");
        app.as_admin(
            Method::POST,
            &format!("{path}/messages"),
            json!({"body": 1}),
        )
        .await
        .expect(StatusCode::CREATED);
        let received = app
            .as_admin(
                Method::POST,
                &format!("{path}/receive"),
                json!({"wait_seconds": 20}),
            )
            .await;
        received.expect(StatusCode::OK)["messages"][0]["receipt"].clone()
    };
    let (seen, hidden) = (leased("seen.a").await, leased("hidden.a").await);
    let consumer = app.key(&["consume:seen.*"]).await;
    let both = app.key(&["consume:seen.*", "publish:seen.*"]).await;
    let send = async |key: &str, steps: Value| {
        with_key(&app.gateway, key, Method::POST, PATH, Some(steps)).await
    };
    let steps = |ack: Value, publish: Value| json!({"acks": [ack], "publishes": [publish]});
    let message = json!({"body": 1});
    let to = |kind: &str, name: &str| json!({kind: name, "message": message});
    let ack = part("seen.a", &seen);
    let refused = send(&consumer, steps(ack.clone(), to("queue", "seen.a"))).await;
    refused.expect_problem(403, "scope-missing");
    // Byte for byte as what is missing, but for the name.
    for (kind, name, missing) in [
        ("queue", "hidden.a", "hidden.b"),
        ("topic", "hidden.t", "hidden.u"),
    ] {
        let there = send(&both, steps(ack.clone(), to(kind, name))).await;
        let not = send(&both, steps(ack.clone(), to(kind, missing))).await;
        there.expect_problem(404, &format!("{kind}-not-found"));
        assert_eq!(alike(&there), alike(&not).replace(missing, name));
    }
    let there = send(&both, json!({"acks": [part("hidden.a", &hidden)]})).await;
    let not = send(&both, json!({"acks": [part("hidden.b", &hidden)]})).await;
    assert_eq!(alike(&there), alike(&not).replace("hidden.b", "hidden.a"));
    let nacks = send(&both, json!({"nacks": [part("hidden.a", &hidden)]})).await;
    assert_refused(&nacks, 404, "queue-not-found", "/nacks/0/queue");
    let publisher = app.key(&["publish:*"]).await;
    let refused = send(&publisher, json!({"acks": [ack]})).await;
    refused.expect_problem(403, "scope-missing");
    send(&both, steps(ack, to("queue", "seen.a")))
        .await
        .expect(StatusCode::OK);
}
