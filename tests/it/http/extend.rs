//! `POST /v1/queues/{queue}/extend`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, seconds_between, time};
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_ends_so_long_after_now() {
    let app = App::start().await;
    app.queue("work", json!({"lease_seconds": 1000})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    let receipt = &received["receipt"];
    let extend = async |more: Value| {
        let (before,): (chrono::DateTime<chrono::Utc>,) = sqlx::query_as("SELECT now()")
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
        let answer = app.settle("extend", "work", &[receipt], more).await;
        let result = answer.expect(StatusCode::OK)["results"][0].clone();
        assert_eq!(result["ok"], true);
        let seen = app
            .get(&format!("/v1/queues/work/messages/{id}"))
            .await
            .expect(StatusCode::OK);
        assert_eq!(seen["lease_expires_at"], result["lease_expires_at"]);
        (time(&result["lease_expires_at"]) - before).as_seconds_f64()
    };
    // Longer, by default the queue's, and shorter.
    for (more, seconds) in [
        (json!({"lease_seconds": 5000}), 5000.0),
        (json!({}), 1000.0),
        (json!({"lease_seconds": 100.5}), 100.5),
    ] {
        let end = extend(more).await;
        assert!((seconds..seconds + 10.0).contains(&end), "{end}");
    }
    app.settle("ack", "work", &[receipt], json!({}))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_outlives_its_first_end() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let received = app.receive("work", json!({"lease_seconds": 1})).await;
    let receipt = &received[0]["receipt"];
    app.settle("extend", "work", &[receipt], json!({"lease_seconds": 600}))
        .await
        .expect(StatusCode::OK);
    let none = app.receive("work", json!({"wait_seconds": 1.5})).await;
    assert_eq!(none, Vec::<Value>::new());
    app.settle("ack", "work", &[receipt], json!({}))
        .await
        .expect(StatusCode::OK);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_lease_ends_sooner() {
    let app = App::start().await;
    app.queue("work", json!({"lease_seconds": 3600, "max_attempts": 100}))
        .await;
    app.publish("work", json!({"body": 1})).await;
    let mut received = app.receive_one("work").await;
    let mut lates = Vec::new();
    for attempt in 2..=6 {
        let more = json!({"lease_seconds": 0.1});
        let answer = app
            .settle("extend", "work", &[&received["receipt"]], more)
            .await;
        let end = answer.expect(StatusCode::OK)["results"][0]["lease_expires_at"].clone();
        received = app.receive_one("work").await;
        assert_eq!(received["attempt"], attempt);
        lates.push(seconds_between(&end, &received["lease_expires_at"]) - 3600.0);
    }
    lates.sort_by(f64::total_cmp);
    assert!(lates[0] >= 0.0, "before its end: {lates:?}");
    assert!(lates[2] < 0.5, "mostly late: {lates:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_has_run_out_cannot_be_extended() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    let refused = async || {
        app.settle("extend", "work", &[&received["receipt"]], json!({}))
            .await
            .expect_problem(409, "lease-expired")
    };
    // Most likely before the gateway notices, and then after it has.
    execute(
        &app.database,
        "UPDATE postrider.parked SET wake_at = now() - interval '1 ms'",
    )
    .await;
    refused().await;
    let path = format!("/v1/queues/work/messages/{id}");
    eventually("it is back", async || {
        app.get(&path).await.json()["state"] == "ready"
    })
    .await;
    refused().await;
    // And after somebody else has it.
    let second = app.receive_one("work").await;
    app.settle("extend", "work", &[&received["receipt"]], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    let now = app.get(&path).await.expect(StatusCode::OK);
    assert_eq!(now["lease_expires_at"], second["lease_expires_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_lease_cannot_be_extended() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    for verb in ["ack", "nack"] {
        app.publish("work", json!({"body": 1})).await;
        let received = app.receive_one("work").await;
        app.settle(verb, "work", &[&received["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        app.settle("extend", "work", &[&received["receipt"]], json!({}))
            .await
            .expect_problem(409, "lease-lost");
    }
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_each_lease_has_its_own_end() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.queue("others", json!({})).await;
    for body in 1..=3 {
        app.publish("work", json!({"body": body})).await;
    }
    app.publish("others", json!({"body": 1})).await;
    let foreign = app.receive_one("others").await;
    let old = app.receive("work", json!({"lease_seconds": 0.05})).await;
    let mut messages = app.receive("work", json!({"max_messages": 2})).await;
    messages.push(app.receive_one("work").await);
    assert_eq!(messages[2]["id"], old[0]["id"]);
    app.settle("ack", "work", &[&messages[1]["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);

    let receipts = [
        &messages[0]["receipt"],
        &messages[1]["receipt"],
        // An old one beside the new one of the same message.
        &old[0]["receipt"],
        &messages[2]["receipt"],
        &foreign["receipt"],
        &messages[0]["receipt"],
    ];
    let answer = app
        .settle("extend", "work", &receipts, json!({"lease_seconds": 500}))
        .await
        .expect(StatusCode::OK);
    let results = answer["results"].as_array().unwrap();
    let codes: Vec<Option<&str>> = results.iter().map(|r| r["code"].as_str()).collect();
    assert_eq!(
        codes,
        [
            None,
            Some("lease-lost"),
            Some("lease-lost"),
            None,
            Some("receipt-not-found"),
            None
        ],
        "{answer}"
    );
    for (result, code) in results.iter().zip(codes) {
        assert_eq!(result["ok"], code.is_none());
        assert_eq!(result.get("lease_expires_at").is_some(), code.is_none());
    }
    assert_eq!(
        results[0]["lease_expires_at"],
        results[5]["lease_expires_at"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_from_a_millisecond_to_twelve_hours() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    for seconds in [json!(0), json!(-1), json!(43_200.001), json!(0.0001)] {
        app.settle(
            "extend",
            "work",
            &[&received["receipt"]],
            json!({"lease_seconds": seconds}),
        )
        .await
        .expect_problem(422, "invalid");
    }
    app.settle(
        "extend",
        "work",
        &[&received["receipt"]],
        json!({"lease_seconds": 43_200}),
    )
    .await
    .expect(StatusCode::OK);
}
