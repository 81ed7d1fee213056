//! Publishes that are checked.

use std::cell::Cell;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MESSAGES, SCHEMA, amounts, app, pointers};
use crate::http::counts::expect_counts;
use crate::http::stream::until_readable;
use crate::support::{Answer, App};

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_breaks_the_schema_is_refused_with_pointers_and_stores_nothing() {
    let app = app().await;
    let long = "x".repeat(3000);
    let batch = json!({"messages": [
        {"body": {"amount": 1}}, {"body": {"amount": "2"}}, {"body": {}}, {"body": {"amount": long}},
        {"body": {"amount": 3, long.as_str(): 1}}]});
    let problem = app.post(MESSAGES, batch).await;
    assert!(!problem.text.contains(&"x".repeat(101)), "{}", problem.text);
    let problem = problem.expect_problem(422, "schema-violation");
    assert_eq!(
        pointers(&problem),
        [
            "/messages/1/body/amount",
            "/messages/2/body",
            "/messages/3/body/amount",
            "/messages/4/body"
        ]
    );
    let problem = app.post(MESSAGES, json!({"body": {"amount": 1.5}})).await;
    let problem = problem.expect_problem(422, "schema-violation");
    assert_eq!(pointers(&problem), ["/body/amount"]);
    let many: Vec<Value> = (0..1000).map(|_| json!({"body": 0})).collect();
    let problem = app.post(MESSAGES, json!({"messages": many})).await;
    assert_eq!(
        pointers(&problem.expect_problem(422, "schema-violation")).len(),
        20
    );
    expect_counts(&app, "orders", &json!({"ready": 0})).await;
    app.publish("orders", json!({"body": {"amount": 1}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_json_or_is_read_in_two_ways_breaks_every_schema() {
    let app = app().await;
    app.put(SCHEMA, json!({"schema": true}))
        .await
        .expect(StatusCode::OK);
    for message in [
        json!({"body_base64": "e30="}).to_string(),
        r#"{"body": {"a": 1, "a": 2}}"#.to_owned(),
        r#"{"body": 1e999}"#.to_owned(),
    ] {
        let answer = app.post(MESSAGES, message).await;
        assert_eq!(
            pointers(&answer.expect_problem(422, "schema-violation")),
            ["/body"]
        );
    }
    let bytes = app
        .request(Method::POST, MESSAGES)
        .header("content-type", "text/plain");
    Answer::of(bytes.body("hello"))
        .await
        .expect_problem(422, "schema-violation");
    for body in ["9007199254740993", "1.10", r#" {"b": "\u0000", "a": 1} "#] {
        let message = format!(r#"{{"body": {body}}}"#);
        app.post(MESSAGES, message)
            .await
            .expect(StatusCode::CREATED);
        let text = app.post("/v1/queues/orders/receive", json!({})).await.text;
        assert!(text.contains(body.trim()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_carry_the_version_that_they_were_checked_with_wherever_they_are() {
    let app = app().await;
    let id = app.publish("orders", json!({"body": {"amount": 1}})).await;
    app.put(SCHEMA, amounts(&json!({"type": "number"})))
        .await
        .expect(StatusCode::OK);
    app.publish(
        "orders",
        json!({"body": {"amount": 1.5}, "delay_seconds": 600}),
    )
    .await;
    let delayed = app
        .get(&format!("{MESSAGES}?state=delayed"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(delayed["messages"][0]["schema_version"], 2);
    let ready = app
        .get(&format!("{MESSAGES}?state=ready"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(ready["messages"][0]["schema_version"], 1);
    let received = app.receive_one("orders").await;
    assert_eq!(received["schema_version"], 1);
    app.settle(
        "nack",
        "orders",
        &[&received["receipt"]],
        json!({"dead_letter": true}),
    )
    .await
    .expect(StatusCode::OK);
    let one = app
        .get(&format!("{MESSAGES}/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&one["state"], &one["schema_version"]),
        (&json!("dead"), &json!(1))
    );
    let path = "/v1/queues/orders/dead-letters";
    let dead = app.get(path).await.expect(StatusCode::OK);
    assert_eq!(dead["dead_letters"][0]["schema_version"], 1);
    // It would break the schema of now.
    let narrow = json!({"schema": false, "compatibility": "none"});
    app.put(SCHEMA, narrow).await.expect(StatusCode::OK);
    app.post(&format!("{path}/redrive"), json!({"ids": [id]}))
        .await
        .expect(StatusCode::OK);
    let again = app.receive_one("orders").await;
    assert_eq!(again["schema_version"], 1);
    // In another queue a version would be one of that queue's schema.
    app.queue("other", json!({})).await;
    app.put("/v1/queues/other/schema", json!({"schema": true}))
        .await
        .expect(StatusCode::CREATED);
    let rejected = json!({"dead_letter": true});
    app.settle("nack", "orders", &[&again["receipt"]], rejected)
        .await
        .expect(StatusCode::OK);
    let elsewhere = json!({"ids": [id], "to_queue": "other"});
    app.post(&format!("{path}/redrive"), elsewhere)
        .await
        .expect(StatusCode::OK);
    let there = app.receive_one("other").await;
    assert_eq!(
        (&there["id"], there.get("schema_version")),
        (&json!(id), None)
    );

    app.delete(SCHEMA).await.expect(StatusCode::NO_CONTENT);
    app.publish("orders", json!({"body": "anything"})).await;
    let text = app.post("/v1/queues/orders/receive", json!({})).await.text;
    assert!(!text.contains("schema_version"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_carries_the_version_that_it_was_checked_with() {
    let app = app().await;
    let requests = "/v1/queues/orders/requests";
    let wrong = app.post(requests, json!({"body": {"amount": 1.5}})).await;
    let problem = wrong.expect_problem(422, "schema-violation");
    assert_eq!(pointers(&problem), ["/body/amount"]);
    app.post(requests, json!({"body": {"amount": 1}}))
        .await
        .expect(StatusCode::ACCEPTED);
    app.put(SCHEMA, amounts(&json!({"type": "number"})))
        .await
        .expect(StatusCode::OK);
    app.post(requests, json!({"body": {"amount": 1.5}}))
        .await
        .expect(StatusCode::ACCEPTED);
    app.delete(SCHEMA).await.expect(StatusCode::NO_CONTENT);
    app.post(requests, json!({"body": "anything"}))
        .await
        .expect(StatusCode::ACCEPTED);
    for version in [json!(1), json!(2), Value::Null] {
        let received = app.receive_one("orders").await;
        assert_eq!(received["schema_version"], version, "{received}");
        assert!(received["correlation_id"].is_string(), "{received}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_again_under_its_dedup_id_is_answered_as_before_the_schema_changed() {
    let app = app().await;
    let message = |id: &str| json!({"body": {"amount": 1}, "dedup_id": id});
    let id = app.publish("orders", message("a")).await;
    app.put(SCHEMA, json!({"schema": false, "compatibility": "none"}))
        .await
        .expect(StatusCode::OK);
    let again = app
        .post(MESSAGES, message("a"))
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(again["messages"], json!([{"id": id, "duplicate": true}]));
    app.post(MESSAGES, message("b"))
        .await
        .expect_problem(422, "schema-violation");
    let both = json!({"messages": [message("a"), message("b")]});
    app.post(MESSAGES, both)
        .await
        .expect_problem(422, "schema-violation");
    expect_counts(&app, "orders", &json!({"ready": 1})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_schema_counts_for_what_is_published_to_it_and_the_queues_do_not() {
    let app = App::start().await;
    app.topic("shop", json!({"retention_seconds": 600})).await;
    app.queue("orders", json!({})).await;
    app.subscription("shop", "orders", json!({"queue": "orders"}))
        .await;
    let text = json!({"schema": {"type": "string"}});
    app.put("/v1/topics/shop/schema", text)
        .await
        .expect(StatusCode::CREATED);
    app.put(SCHEMA, json!({"schema": {"type": "integer"}}))
        .await
        .expect(StatusCode::CREATED);
    app.put(SCHEMA, json!({"schema": {"type": "number"}}))
        .await
        .expect(StatusCode::OK);
    let path = "/v1/topics/shop/messages";
    let problem = app.post(path, json!({"messages": [{"body": 1}]})).await;
    let problem = problem.expect_problem(422, "schema-violation");
    assert_eq!(pointers(&problem), ["/messages/0/body"]);
    app.publish_topic("shop", json!({"body": "a", "dedup_id": "a"}))
        .await;
    let received = app.receive_one("orders").await;
    assert_eq!(
        (&received["topic"], &received["schema_version"]),
        (&json!("shop"), &json!(1))
    );
    until_readable(&app).await;
    let stream = app.get(path).await.expect(StatusCode::OK);
    assert_eq!(stream["messages"][0]["schema_version"], 1);
    let never = json!({"schema": false, "compatibility": "none"});
    app.put("/v1/topics/shop/schema", never)
        .await
        .expect(StatusCode::OK);
    let again = app
        .publish_topic("shop", json!({"body": "a", "dedup_id": "a"}))
        .await;
    assert_eq!(again["duplicate"], true);
    app.post(path, json!({"body": "b"}))
        .await
        .expect_problem(422, "schema-violation");
    app.delete("/v1/topics/shop/schema")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.publish_topic("shop", json!({"body": 1})).await;
}

/// The only thread would be held up by the check, if that were not elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_large_body_is_checked_too_and_the_gateway_answers_others_meanwhile() {
    let app = app().await;
    // So that checking takes much longer than reading.
    let items = json!({"type": "integer", "allOf": vec![json!({"minimum": 0}); 60]});
    let items = json!({"schema": {"type": "array", "items": items}, "compatibility": "none"});
    app.put(SCHEMA, items).await.expect(StatusCode::OK);
    let mut large: Vec<u32> = (0..150_000).collect();
    app.publish("orders", json!({"body": large})).await;
    large.truncate(149_000);
    let mut wrong = json!(large);
    wrong[148_999] = json!("x");
    let wrong = json!({"body": wrong}).to_string();
    let (began, checked) = (Instant::now(), Cell::new(None));
    let checking = async {
        let problem = app.post(MESSAGES, wrong).await;
        checked.set(Some(began.elapsed()));
        problem
    };
    let asking = async {
        let mut longest = Duration::ZERO;
        loop {
            let asked = Instant::now();
            app.get("/livez").await.expect(StatusCode::OK);
            longest = longest.max(asked.elapsed());
            if let Some(took) = checked.get() {
                return (longest, took);
            }
        }
    };
    let (problem, (longest, took)) = tokio::join!(checking, asking);
    assert!(longest < took / 2, "{longest:?} of {took:?}");
    let problem = problem.expect_problem(422, "schema-violation");
    assert_eq!(pointers(&problem), ["/body/148999"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_of_a_transaction_are_checked_as_all_are() {
    let app = app().await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "orders", json!({"queue": "orders"}))
        .await;
    app.put(
        "/v1/topics/shop/schema",
        json!({"schema": {"type": "null"}}),
    )
    .await
    .expect(StatusCode::CREATED);
    let queue = |amount: Value| json!({"queue": "orders", "message": {"body": {"amount": amount}}});
    let topic = |body: Value| json!({"topic": "shop", "message": {"body": body}});
    for publishes in [
        json!([topic(json!(null)), queue(json!("1"))]),
        json!([queue(json!(1)), topic(json!(2))]),
    ] {
        let answer = app
            .post("/v1/transactions", json!({"publishes": publishes}))
            .await;
        let problem = answer.expect_problem(422, "schema-violation");
        let pointer = pointers(&problem)[0];
        assert!(
            pointer.starts_with("/publishes/1/message/body"),
            "{problem}"
        );
    }
    expect_counts(&app, "orders", &json!({"ready": 0})).await;
    let good = json!({"publishes": [queue(json!(1)), topic(json!(null))]});
    let done = app.post("/v1/transactions", good).await;
    assert!(done.status.is_success(), "{done:?}");
    for _ in 0..2 {
        assert_eq!(app.receive_one("orders").await["schema_version"], 1);
    }
}
