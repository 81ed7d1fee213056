//! What is read from the database.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::{scrape, shows, value};
use crate::support::{App, Database, Gateway, Wire, config, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn each_queue_shows_what_is_in_it_and_what_has_become_of_the_rest() {
    let app = App::start().await;
    let settings =
        json!({"backoff": {"initial_seconds": 600}, "dead_letter": {"keep_expired": false}});
    app.queue("work", settings).await;
    let batch: Vec<_> = (0..10).map(|body| json!({"body": body})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": batch}))
        .await
        .expect(StatusCode::CREATED);
    for message in [
        json!({"body": 10, "delay_seconds": 600}),
        json!({"body": 11, "ttl_seconds": 0.001, "priority": 9}),
    ] {
        app.publish("work", message).await;
    }
    eventually("one is expired", async || {
        let counts = app.counts("work").await;
        counts["ready"] == 10 && counts["delayed"] == 1
    })
    .await;
    let received = app
        .receive("work", json!({"max_messages": 6, "lease_seconds": 600}))
        .await;
    let receipts: Vec<_> = received.iter().map(|m| &m["receipt"]).collect();
    for (verb, receipts, more) in [
        ("ack", &receipts[..2], json!({})),
        ("nack", &receipts[2..3], json!({})),
        ("nack", &receipts[3..4], json!({"dead_letter": true})),
        ("extend", &receipts[4..5], json!({"lease_seconds": 0.001})),
    ] {
        app.settle(verb, "work", receipts, more)
            .await
            .expect(StatusCode::OK);
    }
    let waiting = Gateway::start(&config(&app.database.url())).await;
    waiting.queue("idle", json!({})).await;
    let mut receivers = JoinSet::new();
    for _ in 0..3 {
        let request = waiting
            .request(reqwest::Method::POST, "/v1/queues/idle/receive")
            .header("content-type", "application/json")
            .body(json!({"wait_seconds": 60}).to_string());
        receivers.spawn(async move { request.send().await });
    }
    shows(
        &app,
        &[
            "postrider_gateways 2",
            "postrider_database_up 1",
            // Four nobody has had, and one whose lease ran out.
            "postrider_queue_messages{queue=\"work\",state=\"ready\"} 5",
            "postrider_queue_messages{queue=\"work\",state=\"leased\"} 1",
            "postrider_queue_messages{queue=\"work\",state=\"delayed\"} 2",
            "postrider_queue_messages{queue=\"work\",state=\"dead\"} 1",
            "postrider_queue_published_total{queue=\"work\"} 12",
            "postrider_queue_delivered_total{queue=\"work\"} 6",
            "postrider_queue_acked_total{queue=\"work\"} 2",
            "postrider_queue_nacked_total{queue=\"work\"} 2",
            "postrider_queue_failed_attempts_total{queue=\"work\"} 3",
            "postrider_queue_dead_lettered_total{queue=\"work\"} 1",
            "postrider_queue_expired_total{queue=\"work\"} 1",
            "postrider_queue_removed_total{queue=\"work\"} 0",
            "postrider_queue_consumers{queue=\"work\"} 1",
            "postrider_queue_consumers{queue=\"idle\"} 3",
            "postrider_queue_oldest_ready_age_seconds{queue=\"idle\"} 0",
        ],
    )
    .await;
    let text = scrape(&app).await;
    let age = value(
        &text,
        "postrider_queue_oldest_ready_age_seconds{queue=\"work\"}",
    );
    assert!(age.is_some_and(|age| age > 0.0 && age < 60.0), "{age:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_beyond_the_bound_are_summed_up_and_deleted_ones_are_gone() {
    let database = Database::migrated().await;
    let bounded = postrider::config::Config {
        metrics_queues: 3,
        ..config(&database.url())
    };
    let gateway = Gateway::start(&bounded).await;
    // The gateway's own queues, if it has any, are older and have their names.
    for (count, name) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        gateway.queue(name, json!({})).await;
        for body in 0..=count {
            gateway.publish(name, json!({"body": body})).await;
        }
    }
    shows(
        &gateway,
        &[
            "postrider_queue_published_total{queue=\"a\"} 1",
            "postrider_queue_published_total{queue=\"b\"} 2",
            "postrider_queue_published_total{queue=\"c\"} 3",
            "postrider_queue_published_total{queue=\"(other)\"} 9",
            "postrider_queue_messages{queue=\"(other)\",state=\"ready\"} 9",
        ],
    )
    .await;
    let queues = |text: &str| {
        let series = text
            .lines()
            .filter(|l| l.starts_with("postrider_queue_acked_total{"));
        series.count()
    };
    assert_eq!(queues(&scrape(&gateway).await), 4);

    for name in ["a", "e"] {
        gateway
            .delete(&format!("/v1/queues/{name}"))
            .await
            .expect(StatusCode::NO_CONTENT);
    }
    shows(
        &gateway,
        &["postrider_queue_published_total{queue=\"d\"} 4"],
    )
    .await;
    let text = scrape(&gateway).await;
    assert!(!text.contains("queue=\"a\""), "{text}");
    assert!(!text.contains("queue=\"(other)\""), "{text}");
    assert_eq!(queues(&text), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_without_end_ask_the_database_every_five_seconds() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    gateway.queue("work", json!({})).await;
    let began = Instant::now();
    for _ in 0..20 {
        let scrapes = (0..10).map(|_| scrape(&gateway));
        for text in futures_util::future::join_all(scrapes).await {
            assert!(text.contains("\npostrider_database_up 1\n"), "{text}");
        }
    }
    let most = 1 + began.elapsed().as_secs() / 5;
    let asked = wire.count("queue_numbers") as u64;
    assert!((1..=most).contains(&asked), "{asked} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_a_scrape_has_what_the_process_knows() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    gateway.queue("work", json!({})).await;
    gateway.publish("work", json!({"body": 1})).await;
    shows(
        &gateway,
        &["postrider_queue_published_total{queue=\"work\"} 1"],
    )
    .await;
    drop(wire);
    eventually("it is noticed", async || {
        let text = scrape(&gateway).await;
        value(&text, "postrider_database_up") == Some(0.0)
    })
    .await;
    let began = Instant::now();
    let text = scrape(&gateway).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(text.contains("\npostrider_database_up 0\n"), "{text}");
    let published = value(&text, "postrider_batch_rows_sum{verb=\"publish\"}");
    assert_eq!(published, Some(1.0), "{text}");
    assert!(value(&text, "process_resident_memory_bytes").is_some());
    assert!(!text.contains("queue=\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_timed_from_publish_to_lease_and_from_lease_to_ack() {
    let app = App::start().await;
    app.queue("work", json!({"backoff": {"initial_seconds": 0}}))
        .await;
    app.publish("work", json!({"body": 1, "delay_seconds": 0.3}))
        .await;
    let first = app.receive_one("work").await;
    app.settle("nack", "work", &[&first["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    let second = app.receive_one("work").await;
    // By the database's clock, which is this machine's.
    tokio::time::sleep(Duration::from_millis(50)).await;
    app.settle("ack", "work", &[&second["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    let text = scrape(&app).await;
    let series = |name: &str| value(&text, name).unwrap();
    // Only the first delivery of each message counts.
    assert!((series("postrider_publish_to_first_delivery_seconds_count") - 1.0).abs() < 0.1);
    let waited = series("postrider_publish_to_first_delivery_seconds_sum");
    assert!((0.3..20.0).contains(&waited), "{waited}");
    assert!((series("postrider_lease_to_ack_seconds_count") - 1.0).abs() < 0.1);
    let held = series("postrider_lease_to_ack_seconds_sum");
    assert!((0.05..20.0).contains(&held), "{held}");
}
