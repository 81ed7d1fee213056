//! Requests for replies that are sent again with their key.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::keyed;
use crate::support::{Answer, App, Gateway};

const REQUESTS: &str = "/v1/queues/work/requests";

async fn keyed_and_waiting(gateway: &Gateway, key: &str, body: &Value) -> Answer {
    let request = gateway
        .request(Method::POST, REQUESTS)
        .header("idempotency-key", key)
        .header("prefer", "wait=30")
        .header("content-type", "application/json")
        .body(body.to_string());
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_published_is_answered_again_whatever_became_of_its_queue() {
    let app = App::start().await;
    let other = app.another().await;
    let limited = json!({"rate_limit": {"publish_per_second": 0.01, "burst": 1}});
    app.queue("work", limited).await;
    let body = json!({"body": "how much?"});
    let first = keyed(&app, REQUESTS, "a", &body).await;
    let asked = first.expect(StatusCode::ACCEPTED);
    // There is no more room.
    keyed(&app, REQUESTS, "b", &body)
        .await
        .expect_problem(429, "rate-limited");
    let again = keyed(&app, REQUESTS, "a", &body).await;
    assert_eq!(again.expect(StatusCode::ACCEPTED), asked);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["location"], first.headers["location"]);
    app.delete("/v1/queues/work?force=true").await;
    for gateway in [&*app, &other] {
        let again = keyed(gateway, REQUESTS, "a", &body).await;
        assert_eq!(again.expect(StatusCode::ACCEPTED), asked);
    }
    keyed(&app, REQUESTS, "b", &body)
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_request_finds_a_queue_that_was_made_anew() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    keyed(&app, REQUESTS, "a", json!({"body": 1}))
        .await
        .expect(StatusCode::ACCEPTED);
    other.delete("/v1/queues/work?force=true").await;
    other.queue("work", json!({})).await;
    keyed(&app, REQUESTS, "b", json!({"body": 2}))
        .await
        .expect(StatusCode::ACCEPTED);
    assert_eq!(app.receive_one("work").await["body"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_has_a_reply_that_was_given_long_ago_at_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": "how much?"});
    keyed(&app, REQUESTS, "a", &body)
        .await
        .expect(StatusCode::ACCEPTED);
    let message = app.receive_one("work").await;
    let reply = json!({"receipt": message["receipt"], "body": 99});
    app.post("/v1/queues/work/reply", reply)
        .await
        .expect(StatusCode::OK);
    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let answer = keyed_and_waiting(&app, "a", &body).await;
        assert_eq!(answer.expect(StatusCode::OK)["body"], 99);
        assert_eq!(answer.headers["idempotency-replayed"], "true");
        times.push(began.elapsed());
    }
    // All who wait are looked after every two seconds: of five one would have been
    // that lucky at most.
    times.sort_unstable();
    assert!(times[2] < Duration::from_secs(1), "{times:?}");
}
