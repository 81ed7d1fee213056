//! `rate_limit` of queues, and the fields that tell of it.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, App};

const MESSAGES: &str = "/v1/queues/orders/messages";
const RECEIVE: &str = "/v1/queues/orders/receive";

/// So slow that nothing comes while a test runs.
fn slow(which: &str, burst: u32) -> Value {
    json!({"rate_limit": {which: 0.01, "burst": burst}})
}

fn batch(count: usize) -> Value {
    json!({"messages": vec![json!({"body": 1}); count]})
}

/// The policy and the state in an answer.
fn fields(answer: &Answer) -> (Option<&str>, Option<&str>) {
    let field = |name| {
        answer
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    (field("ratelimit-policy"), field("ratelimit"))
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_cost_their_messages_until_the_limit_answers_429_with_what_is_left() {
    let app = App::start().await;
    app.queue("orders", slow("publish_per_second", 10)).await;
    let policy = Some("\"publish\";q=10;w=1000");
    let one = app.post(MESSAGES, json!({"body": 1})).await;
    one.expect(StatusCode::CREATED);
    assert_eq!(fields(&one), (policy, Some("\"publish\";r=9;t=100")));
    let six = app.post(MESSAGES, batch(6)).await;
    six.expect(StatusCode::CREATED);
    assert_eq!(fields(&six), (policy, Some("\"publish\";r=3;t=700")));
    // What is refused for another reason costs nothing.
    app.post(
        MESSAGES,
        json!({"messages": [{"body": 1}, {"body": 1, "priority": 10}]}),
    )
    .await
    .expect_problem(422, "invalid");
    let four = app.post(MESSAGES, batch(4)).await;
    let problem = four.expect_problem(429, "rate-limited");
    assert_eq!(fields(&four), (policy, Some("\"publish\";r=3;t=100")));
    assert_eq!(four.headers["retry-after"], "100");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("0.01 a second"),
        "{problem}"
    );
    app.post(MESSAGES, batch(3))
        .await
        .expect(StatusCode::CREATED);
    app.post(MESSAGES, json!({"body": 1}))
        .await
        .expect_problem(429, "rate-limited");
    assert_eq!(app.counts("orders").await["ready"], 10);
    // Bytes are a message, too.
    let bytes = app
        .request(reqwest::Method::POST, MESSAGES)
        .header("content-type", "text/plain")
        .body("x");
    Answer::of(bytes).await.expect_problem(429, "rate-limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_fits_is_not_told_to_wait() {
    let app = App::start().await;
    app.queue("orders", json!({"rate_limit": {"publish_per_second": 5}}))
        .await;
    let answer = app.post(MESSAGES, batch(6)).await;
    let problem = answer.expect_problem(422, "batch-over-burst");
    assert_eq!(problem["errors"][0]["pointer"], "/messages");
    assert!(!answer.headers.contains_key("retry-after"));
    app.post(MESSAGES, batch(5))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn receives_cost_one_each_whatever_they_bring() {
    let app = App::start().await;
    app.queue("orders", slow("receive_per_second", 3)).await;
    app.post(MESSAGES, batch(5))
        .await
        .expect(StatusCode::CREATED);
    let policy = Some("\"receive\";q=3;w=300");
    let five = app.post(RECEIVE, json!({"max_messages": 10})).await;
    assert_eq!(
        five.expect(StatusCode::OK)["messages"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    assert_eq!(fields(&five), (policy, Some("\"receive\";r=2;t=100")));
    let none = app.post(RECEIVE, json!({"wait_seconds": 0.1})).await;
    none.expect(StatusCode::OK);
    assert_eq!(fields(&none), (policy, Some("\"receive\";r=1;t=200")));
    app.post(RECEIVE, json!({})).await.expect(StatusCode::OK);
    for wait in [0, 10] {
        let began = std::time::Instant::now();
        let refused = app.post(RECEIVE, json!({"wait_seconds": wait})).await;
        refused.expect_problem(429, "rate-limited");
        assert_eq!(fields(&refused), (policy, Some("\"receive\";r=0;t=100")));
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // Publishing is not limited, nor is settling.
    app.post(MESSAGES, batch(1000))
        .await
        .expect(StatusCode::CREATED);
    let receipt = &five.json()["messages"][0]["receipt"];
    app.settle("ack", "orders", &[receipt], json!({}))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_lets_through_its_rate_and_no_more() {
    let app = App::start().await;
    app.queue(
        "orders",
        json!({"rate_limit": {"publish_per_second": 50, "burst": 10}}),
    )
    .await;
    let began = std::time::Instant::now();
    let mut stored = 0;
    while began.elapsed() < Duration::from_secs(2) {
        let answer = app.post(MESSAGES, json!({"body": 1})).await;
        if answer.status == StatusCode::CREATED {
            stored += 1;
        } else {
            answer.expect_problem(429, "rate-limited");
            assert_eq!(answer.headers["retry-after"], "1");
        }
    }
    let most = 10.0 + 50.0 * began.elapsed().as_secs_f64() + 1.0;
    assert!(f64::from(stored) <= most, "{stored} of {most}");
    assert!(stored >= 60, "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_webhooks_are_not_counted_and_unlimited_queues_say_nothing() {
    let app = App::start().await;
    app.queue("orders", slow("publish_per_second", 1)).await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "orders", json!({"queue": "orders"}))
        .await;
    for n in 0..3 {
        app.publish_topic("shop", json!({"body": n})).await;
    }
    assert_eq!(app.counts("orders").await["ready"], 3);
    app.publish("orders", json!({"body": 1})).await;
    app.queue("free", json!({})).await;
    let answer = app
        .post("/v1/queues/free/messages", json!({"body": 1}))
        .await;
    assert_eq!(fields(&answer), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gateway_counts_for_itself_and_a_change_of_the_limit_begins_anew() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", slow("publish_per_second", 2)).await;
    for gateway in [&app.gateway, &other] {
        gateway
            .post(MESSAGES, batch(2))
            .await
            .expect(StatusCode::CREATED);
        gateway
            .post(MESSAGES, json!({"body": 1}))
            .await
            .expect_problem(429, "rate-limited");
    }
    app.patch("/v1/queues/orders", json!({"rate_limit": {"burst": 3}}))
        .await
        .expect(StatusCode::OK);
    app.post(MESSAGES, batch(3))
        .await
        .expect(StatusCode::CREATED);
    app.post(MESSAGES, batch(1))
        .await
        .expect_problem(429, "rate-limited");
    let settings = app
        .patch("/v1/queues/orders", json!({"rate_limit": null}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(settings["rate_limit"], Value::Null);
    let free = app.post(MESSAGES, batch(1000)).await;
    free.expect(StatusCode::CREATED);
    assert_eq!(fields(&free), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_cost_what_a_publish_does_and_are_refused_before_anybody_waits() {
    const REQUESTS: &str = "/v1/queues/orders/requests";
    let app = App::start().await;
    app.queue("orders", slow("publish_per_second", 3)).await;
    let policy = Some("\"publish\";q=3;w=300");
    let first = app.post(REQUESTS, json!({"body": 1})).await;
    first.expect(StatusCode::ACCEPTED);
    assert_eq!(fields(&first), (policy, Some("\"publish\";r=2;t=100")));
    // What is refused for another reason costs nothing.
    app.post(REQUESTS, json!({"body": 1, "timeout_seconds": 0}))
        .await
        .expect_problem(422, "invalid");
    app.publish("orders", json!({"body": 1})).await;
    let last = app.post(REQUESTS, json!({"body": 1})).await;
    last.expect(StatusCode::ACCEPTED);
    let began = std::time::Instant::now();
    for prefer in ["respond-async", "wait=30"] {
        let request = app
            .request(reqwest::Method::POST, REQUESTS)
            .header("content-type", "application/json")
            .header("prefer", prefer)
            .body(r#"{"body":1}"#);
        let refused = Answer::of(request).await;
        refused.expect_problem(429, "rate-limited");
        assert_eq!(fields(&refused), (policy, Some("\"publish\";r=0;t=100")));
        assert_eq!(refused.headers["retry-after"], "100");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(app.app.broker().replies().waiting(), 0);
    assert_eq!(app.counts("orders").await["ready"], 3);
}
