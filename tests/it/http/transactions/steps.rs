//! What a transaction does, and that it does all of it or nothing.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use super::{assert_refused, lease, part, transact};
use crate::http::counts::expect_counts;
use crate::store::execute;
use crate::support::{App, eventually};

/// Who is woken has its message within this.
const WOKEN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_is_done_with_and_what_came_of_it_is_published() {
    let app = App::start().await;
    let other = app.another().await;
    app.until_acquainted(&other).await;
    for queue in ["orders", "invoices", "fed"] {
        app.queue(queue, json!({})).await;
    }
    app.topic("shop", json!({})).await;
    app.subscription("shop", "s", json!({"queue": "fed"})).await;
    let (one, two) = (lease(&app, "orders").await, lease(&app, "orders").await);
    let steps = json!({
        "acks": [part("orders", &one)],
        "nacks": [{"queue": "orders", "receipt": two, "delay_seconds": 60, "reason": "closed"}],
        "publishes": [
            {"topic": "shop", "message": {"body": 1, "routing_key": "paid"}},
            {"queue": "invoices", "message": {"body": {"invoice": 1}, "key": "k"}},
            {"queue": "invoices", "message": {"body": 2, "delay_seconds": 60}},
        ],
    });
    // Whoever waits is woken, at this gateway and at others.
    let transacting = async {
        tokio::join!(app.until_waiting(1), other.until_waiting(1));
        (transact(&app, steps).await, Instant::now())
    };
    let ((answer, done), invoice, fed) = tokio::join!(
        transacting,
        other.receive_one("invoices"),
        app.receive_one("fed")
    );
    // The poll is every two seconds.
    assert!(done.elapsed() < WOKEN, "{:?}", done.elapsed());
    let answer = answer.expect(StatusCode::OK);
    assert_eq!((&answer["acks"], &answer["nacks"]), (&json!(1), &json!(1)));
    let published = answer["publishes"].as_array().unwrap();
    assert_eq!(published.len(), 3);
    assert_eq!(published[0]["subscriptions"], 1);
    assert_eq!(published[0]["id"], fed["id"]);
    assert_eq!(published[1]["id"], invoice["id"]);
    assert!(published[1].get("subscriptions").is_none());
    assert_eq!(invoice["body"], json!({"invoice": 1}));
    expect_counts(
        &app,
        "orders",
        &json!({"ready": 0, "leased": 0, "delayed": 1}),
    )
    .await;
    expect_counts(&app, "invoices", &json!({"leased": 1, "delayed": 1})).await;
    for queue in ["orders", "invoices", "fed"] {
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_done_is_named_and_nothing_is_changed() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("invoices", json!({"max_ready": 1})).await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "s", json!({"queue": "invoices"}))
        .await;
    let good = lease(&app, "orders").await;
    let acked = lease(&app, "orders").await;
    app.settle("ack", "orders", &[&acked], json!({}))
        .await
        .expect(StatusCode::OK);
    let nacked = lease(&app, "orders").await;
    app.settle("nack", "orders", &[&nacked], json!({"delay_seconds": 3600}))
        .await
        .expect(StatusCode::OK);
    let publish = json!({"queue": "invoices", "message": {"body": 1}});
    let ack = part("orders", &good);
    for (steps, status, code, pointer) in [
        (
            json!({"acks": [ack, part("orders", &acked)], "publishes": [publish]}),
            409,
            "lease-lost",
            "/acks/1",
        ),
        (
            json!({"acks": [ack, part("orders", &nacked)], "publishes": [publish]}),
            409,
            "lease-lost",
            "/acks/1",
        ),
        (
            json!({"acks": [ack], "nacks": [part("orders", &nacked)], "publishes": [publish]}),
            409,
            "lease-lost",
            "/nacks/0",
        ),
        (
            json!({"acks": [ack], "publishes": [publish, publish]}),
            429,
            "queue-full",
            "/publishes/1",
        ),
        (
            json!({"acks": [ack], "publishes": [publish,
                {"topic": "shop", "message": {"body": 1}}]}),
            429,
            "queue-full",
            "/publishes/1",
        ),
        (
            json!({"acks": [ack], "publishes": [publish,
                {"queue": "nowhere", "message": {"body": 1}}]}),
            404,
            "queue-not-found",
            "/publishes/1/queue",
        ),
        (
            json!({"nacks": [ack], "publishes": [
                {"topic": "nowhere", "message": {"body": 1}}]}),
            404,
            "topic-not-found",
            "/publishes/0/topic",
        ),
        (
            json!({"acks": [part("invoices", &good)]}),
            404,
            "receipt-not-found",
            "/acks/0/receipt",
        ),
    ] {
        let answer = transact(&app, steps.clone()).await;
        if status == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
        }
        assert_refused(&answer, status, code, pointer);
        expect_counts(&app, "orders", &json!({"leased": 1, "delayed": 1})).await;
        expect_counts(&app, "invoices", &json!({"ready": 0})).await;
    }
    let steps = json!({"acks": [ack], "publishes": [publish]});
    transact(&app, steps).await.expect(StatusCode::OK);
    for queue in ["orders", "invoices"] {
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_parts_that_cannot_be_done_the_first_is_named() {
    let app = App::start().await;
    for queue in ["orders", "invoices"] {
        app.queue(queue, json!({})).await;
    }
    app.queue("full", json!({"max_ready": 1})).await;
    app.publish("full", json!({"body": 1})).await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "s", json!({"queue": "full"}))
        .await;
    let (good, one, two) = (
        part("orders", &lease(&app, "orders").await),
        lease(&app, "orders").await,
        lease(&app, "orders").await,
    );
    app.settle("ack", "orders", &[&one, &two], json!({}))
        .await
        .expect(StatusCode::OK);
    let acks = [good.clone(), part("orders", &one), part("orders", &two)];
    let lost = transact(&app, json!({"acks": acks})).await;
    assert_refused(&lost, 409, "lease-lost", "/acks/1");
    let publish = json!({"queue": "invoices", "message": {"body": 1}});
    let to_queue = json!({"queue": "full", "message": {"body": 1}});
    let to_topic = json!({"topic": "shop", "message": {"body": 1}});
    for publishes in [
        [&publish, &to_topic, &to_queue],
        [&publish, &to_queue, &to_topic],
    ] {
        let steps = json!({"acks": [good], "publishes": publishes});
        let full = transact(&app, steps).await;
        assert_refused(&full, 429, "queue-full", "/publishes/1");
    }
    expect_counts(&app, "orders", &json!({"leased": 1})).await;
    expect_counts(&app, "invoices", &json!({"ready": 0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_counts_in_one_transaction_only() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("invoices", json!({})).await;
    let receipt = lease(&app, "orders").await;
    let steps = json!({
        "acks": [part("orders", &receipt)],
        "publishes": [{"queue": "invoices", "message": {"body": 1}}],
    });
    transact(&app, steps.clone()).await.expect(StatusCode::OK);
    // To ack it alone again is fine; what came along would be there twice.
    assert_refused(&transact(&app, steps).await, 409, "lease-lost", "/acks/0");
    app.settle("ack", "orders", &[&receipt], json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(app.counts("invoices").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_it_may_be_sent_again() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("invoices", json!({})).await;
    let receipt = lease(&app, "orders").await;
    let steps = json!({
        "acks": [part("orders", &receipt)],
        "publishes": [{"queue": "invoices", "message": {"body": 1}}],
    });
    let send = async |steps: &serde_json::Value| {
        crate::http::idempotency::keyed(&app, super::PATH, "k", steps).await
    };
    let missing = json!({"acks": [part("nowhere", &receipt)]});
    send(&missing).await.expect_problem(404, "queue-not-found");
    let first = send(&steps).await;
    first.expect(StatusCode::OK);
    crate::http::idempotency::assert_replays(&send(&steps).await, &first);
    send(&missing)
        .await
        .expect_problem(422, "idempotency-key-reused");
    assert_eq!(app.counts("invoices").await["ready"], 1);
    app.assert_conserved(&app.database, "invoices").await;
}

/// Leases a message for so short that it runs out, and waits until it has.
async fn expired(app: &App, queue: &str) -> serde_json::Value {
    app.publish(queue, json!({"body": 1})).await;
    let message = app.receive(queue, json!({"lease_seconds": 0.05})).await;
    eventually("its lease has run out", async || {
        app.counts(queue).await["leased"] == 0
    })
    .await;
    message[0]["receipt"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_may_still_be_acked_if_all_else_can_be_done() {
    let app = App::start().await;
    let now = json!({"backoff": {"initial_seconds": 0, "max_seconds": 0}});
    app.queue("orders", now).await;
    app.queue("invoices", json!({"max_ready": 1})).await;
    let receipt = expired(&app, "orders").await;
    let publish = json!({"queue": "invoices", "message": {"body": 1}});
    let steps = json!({"acks": [part("orders", &receipt)], "publishes": [publish, publish]});
    assert_refused(
        &transact(&app, steps).await,
        429,
        "queue-full",
        "/publishes/1",
    );
    assert_eq!(app.counts("orders").await["ready"], 1);
    let nack = json!({"nacks": [part("orders", &receipt)]});
    assert_refused(
        &transact(&app, nack).await,
        409,
        "lease-expired",
        "/nacks/0",
    );
    let steps = json!({"acks": [part("orders", &receipt)], "publishes": [publish]});
    transact(&app, steps.clone()).await.expect(StatusCode::OK);
    expect_counts(
        &app,
        "orders",
        &json!({"ready": 0, "leased": 0, "delayed": 0}),
    )
    .await;
    assert_refused(&transact(&app, steps).await, 409, "lease-lost", "/acks/0");
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_somebody_else_has_since_is_not_acked() {
    let app = App::start().await;
    let now = json!({"backoff": {"initial_seconds": 0, "max_seconds": 0}});
    app.queue("orders", now).await;
    let old = expired(&app, "orders").await;
    let new = app.receive_one("orders").await["receipt"].clone();
    let steps = json!({"acks": [part("orders", &old)]});
    assert_refused(&transact(&app, steps).await, 409, "lease-lost", "/acks/0");
    let steps = json!({"acks": [part("orders", &new)]});
    transact(&app, steps).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn nacks_do_what_nacks_do() {
    let app = App::start().await;
    app.queue("orders", json!({"max_in_flight": 3})).await;
    app.queue("told", json!({})).await;
    app.subscription("system.events", "told", json!({"queue": "told"}))
        .await;
    let (back, dead, later) = (
        lease(&app, "orders").await,
        lease(&app, "orders").await,
        lease(&app, "orders").await,
    );
    app.publish("orders", json!({"body": "waits"})).await;
    let steps = json!({"nacks": [
        {"queue": "orders", "receipt": back, "delay_seconds": 0},
        {"queue": "orders", "receipt": dead, "dead_letter": true, "reason": "not for us"},
        {"queue": "orders", "receipt": later},
    ]});
    // There was no room for another lease.
    let transacting = async {
        app.until_waiting(1).await;
        (transact(&app, steps).await, Instant::now())
    };
    let ((answer, done), waited) = tokio::join!(transacting, app.receive_one("orders"));
    assert!(done.elapsed() < WOKEN, "{:?}", done.elapsed());
    assert_eq!(answer.expect(StatusCode::OK)["nacks"], 3);
    assert_eq!(waited["body"], "waits");
    assert_eq!(app.receive_one("orders").await["attempt"], 2);
    expect_counts(&app, "orders", &json!({"delayed": 1, "dead": 1})).await;
    let letters = app.get("/v1/queues/orders/dead-letters").await;
    let letter = letters.expect(StatusCode::OK)["dead_letters"][0].clone();
    assert_eq!(
        (&letter["reason"], &letter["last_error"]),
        (&json!("rejected"), &json!("not for us"))
    );
    assert_eq!(app.receive_one("told").await["headers"]["queue"], "orders");
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_drops_its_oldest_and_one_that_was_made_anew() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({"max_ready": 1, "overflow": "drop_oldest"}))
        .await;
    let publish = json!({"queue": "orders", "message": {"body": 1}});
    let steps = json!({"publishes": [publish, publish, publish]});
    transact(&app, steps.clone()).await.expect(StatusCode::OK);
    expect_counts(&app, "orders", &json!({"ready": 1, "dead": 2})).await;
    other.delete("/v1/queues/orders?force=true").await;
    other.queue("orders", json!({})).await;
    transact(&app, steps).await.expect(StatusCode::OK);
    expect_counts(&app, "orders", &json!({"ready": 3, "dead": 0})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_missing_is_made() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let ahead = "SELECT setval('postrider.message_ids',
        (SELECT max(hi) + 10 FROM postrider.message_partitions))";
    execute(&app.database, ahead).await;
    let steps = json!({"publishes": [{"queue": "orders", "message": {"body": 1}}]});
    transact(&app, steps).await.expect(StatusCode::OK);
    assert_eq!(app.receive_one("orders").await["body"], 1);
}
