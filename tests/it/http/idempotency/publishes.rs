//! What is published with a key.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{assert_replays, keyed};
use crate::support::{Answer, App};

const MESSAGES: &str = "/v1/queues/work/messages";

/// Who is woken has its message within this.
const WOKEN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_sent_again_stores_nothing_and_gets_the_first_answer() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": {"order": 42}});
    let first = keyed(&app, MESSAGES, "a", &body).await;
    first.expect(StatusCode::CREATED);
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    assert_replays(&keyed(&other, MESSAGES, "a", &body).await, &first);
    let another = keyed(&other, MESSAGES, "b", &body).await;
    another.expect(StatusCode::CREATED);
    assert_ne!(another.text, first.text);
    assert_eq!(app.counts("work").await["ready"], 2);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_stored_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let batch = json!({"messages": [{"body": 1}, {"body": 2, "delay_seconds": 60}]});
    let first = keyed(&app, MESSAGES, "a", &batch).await;
    assert_eq!(
        first.expect(StatusCode::CREATED)["messages"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_replays(&keyed(&app, MESSAGES, "a", &batch).await, &first);
    let counts = app.counts("work").await;
    assert_eq!(
        (&counts["ready"], &counts["delayed"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_the_same_request_only_with_the_same_properties() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let send = async |content_type: &str, property: &str, body: &'static str| {
        let request = app
            .request(Method::POST, MESSAGES)
            .header("idempotency-key", "a")
            .header("content-type", content_type)
            .header("postrider-key", property)
            .header("x-request-id", "another-each-time")
            .body(body);
        Answer::of(request).await
    };
    let first = send("text/plain", "k", "hello").await;
    first.expect(StatusCode::CREATED);
    assert_replays(&send("text/plain", "k", "hello").await, &first);
    for another in [
        send("text/html", "k", "hello").await,
        send("text/plain", "l", "hello").await,
        send("text/plain", "k", "hullo").await,
    ] {
        another.expect_problem(422, "idempotency-key-reused");
    }
    let message = app.receive_one("work").await;
    assert_eq!(message["key"], "k");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_the_same_as_it_is_expanded() {
    use std::io::Write as _;
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": "hello"}).to_string();
    let first = keyed(&app, MESSAGES, "a", &body).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body.as_bytes()).unwrap();
    let request = app
        .request(Method::POST, MESSAGES)
        .header("idempotency-key", "a")
        .header("content-type", "Application/JSON; charset=utf-8")
        .header("content-encoding", "gzip")
        .body(encoder.finish().unwrap());
    assert_replays(&Answer::of(request).await, &first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_topic_is_answered_as_before_though_its_subscriptions_changed() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.queue("work", json!({})).await;
    app.queue("more", json!({})).await;
    app.subscription("shop", "one", json!({"queue": "work"}))
        .await;
    let path = "/v1/topics/shop/messages";
    let body = json!({"body": 1, "routing_key": "paid", "mandatory": true});
    let first = keyed(&app, path, "a", &body).await;
    assert_eq!(
        first.expect(StatusCode::CREATED)["messages"][0]["subscriptions"],
        1
    );
    app.subscription("shop", "two", json!({"queue": "more"}))
        .await;
    assert_replays(&keyed(&app, path, "a", &body).await, &first);
    // Now it would be unroutable.
    for subscription in ["one", "two"] {
        app.delete(&format!("/v1/topics/shop/subscriptions/{subscription}"))
            .await
            .expect(StatusCode::NO_CONTENT);
    }
    assert_replays(&keyed(&app, path, "a", &body).await, &first);
    keyed(&app, path, "b", &body)
        .await
        .expect_problem(422, "unroutable");
    app.delete("/v1/topics/shop")
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_replays(&keyed(&app, path, "a", &body).await, &first);
    assert_eq!(app.counts("work").await["ready"], 1);
    assert_eq!(app.counts("more").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_had_no_effect_and_may_be_sent_again_otherwise() {
    let app = App::start().await;
    let body = json!({"body": 1});
    keyed(&app, MESSAGES, "a", &body)
        .await
        .expect_problem(404, "queue-not-found");
    app.queue("work", json!({"max_ready": 1})).await;
    keyed(&app, MESSAGES, "a", json!({"body": 1, "priority": 10}))
        .await
        .expect_problem(422, "invalid");
    keyed(&app, MESSAGES, "a", "{")
        .await
        .expect_problem(400, "malformed-json");
    let first = keyed(&app, MESSAGES, "a", &body).await;
    first.expect(StatusCode::CREATED);
    keyed(&app, MESSAGES, "b", &body)
        .await
        .expect_problem(429, "queue-full");
    // A full queue does not take back what it has answered.
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    app.receive_one("work").await;
    keyed(&app, MESSAGES, "b", json!({"body": 2}))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_answered_is_answered_again_whatever_became_of_its_queue() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": "a long one"});
    let first = keyed(&app, MESSAGES, "a", &body).await;
    app.patch("/v1/queues/work", json!({"max_message_bytes": 3}))
        .await
        .expect(StatusCode::OK);
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    let slow = json!({"rate_limit": {"publish_per_second": 0.01, "burst": 1}});
    app.patch("/v1/queues/work", slow)
        .await
        .expect(StatusCode::OK);
    for _ in 0..3 {
        assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    }
    app.delete("/v1/queues/work?force=true")
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    // Another payload is what it is, whether or not it could be done.
    keyed(&app, MESSAGES, "a", json!({"body": 2}))
        .await
        .expect_problem(422, "idempotency-key-reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_made_anew_is_found_behind_the_cache() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    keyed(&app, MESSAGES, "a", json!({"body": 1}))
        .await
        .expect(StatusCode::CREATED);
    other.delete("/v1/queues/work?force=true").await;
    other.queue("work", json!({})).await;
    keyed(&app, MESSAGES, "b", json!({"body": 1}))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_at_both_gateways_are_woken() {
    let app = App::start().await;
    let other = app.another().await;
    app.until_acquainted(&other).await;
    app.queue("work", json!({})).await;
    app.topic("shop", json!({})).await;
    app.queue("fed", json!({})).await;
    app.subscription("shop", "s", json!({"queue": "fed"})).await;
    let publishing = async {
        tokio::join!(app.until_waiting(1), other.until_waiting(1));
        let (one, two) = tokio::join!(
            keyed(&app, MESSAGES, "a", json!({"body": 1})),
            keyed(&app, "/v1/topics/shop/messages", "a", json!({"body": 2}))
        );
        one.expect(StatusCode::CREATED);
        two.expect(StatusCode::CREATED);
        Instant::now()
    };
    let (one, two, published) = tokio::join!(
        other.receive_one("work"),
        app.receive_one("fed"),
        publishing
    );
    // The poll is every two seconds.
    assert!(published.elapsed() < WOKEN, "{:?}", published.elapsed());
    assert_eq!((&one["body"], &two["body"]), (&json!(1), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_by_dedup_id_are_told_as_such_and_kept_so() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1, "dedup_id": "d"});
    let first = app.publish("work", body.clone()).await;
    let second = keyed(&app, MESSAGES, "a", &body).await;
    let told = second.expect(StatusCode::CREATED)["messages"][0].clone();
    assert_eq!(told, json!({"id": first, "duplicate": true}));
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &second);
    assert_eq!(app.counts("work").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_that_drops_its_oldest_does_so_for_keyed_publishes() {
    let app = App::start().await;
    app.queue("work", json!({"max_ready": 2, "overflow": "drop_oldest"}))
        .await;
    for key in ["a", "b", "c"] {
        keyed(&app, MESSAGES, key, json!({"body": key}))
            .await
            .expect(StatusCode::CREATED);
    }
    let counts = app.counts("work").await;
    assert_eq!((&counts["ready"], &counts["dead"]), (&json!(2), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_again_waits_for_the_reply_to_the_first() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let path = "/v1/queues/work/requests";
    let body = json!({"body": "how much?"});
    let first = keyed(&app, path, "a", &body).await;
    let asked = first.expect(StatusCode::ACCEPTED);
    let again = keyed(&other, path, "a", &body).await;
    assert_eq!(again.expect(StatusCode::ACCEPTED), asked);
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    keyed(&app, path, "a", json!({"body": "how many?"}))
        .await
        .expect_problem(422, "idempotency-key-reused");
    let message = app.receive_one("work").await;
    assert_eq!(app.counts("work").await["ready"], 0);
    let reply = json!({"receipt": message["receipt"], "body": 99});
    app.post("/v1/queues/work/reply", reply)
        .await
        .expect(StatusCode::OK);
    let request = other
        .request(Method::POST, path)
        .header("idempotency-key", "a")
        .header("prefer", "wait=30")
        .header("content-type", "application/json")
        .body(body.to_string());
    let answered = Answer::of(request).await;
    assert_eq!(answered.expect(StatusCode::OK)["body"], 99);
    assert_eq!(answered.headers["idempotency-replayed"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_taking_is_sent_again_is_the_takers() {
    let app = App::start().await;
    let other = app.another().await;
    let path = "/v1/claims/orders:42";
    let first = keyed(&app, path, "a", json!({})).await;
    let view = first.expect(StatusCode::CREATED);
    assert_replays(&keyed(&other, path, "a", json!({})).await, &first);
    // Nobody else, and what was refused is not kept.
    keyed(&other, path, "b", json!({}))
        .await
        .expect_problem(409, "claim-held");
    let token = view["token"].as_str().unwrap();
    let given_up = app.delete(&format!("{path}?token={token}")).await;
    assert_eq!(given_up.status, StatusCode::NO_CONTENT);
    keyed(&other, path, "b", json!({}))
        .await
        .expect(StatusCode::CREATED);
}
