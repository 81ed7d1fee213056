//! What is one key and what is another.

use std::collections::HashSet;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::super::keys::Guarded;
use super::{assert_replays, keyed, keyed_as};
use crate::support::{Answer, App};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_counts_for_one_operation_on_one_name() {
    let app = App::start().await;
    for queue in ["one", "two"] {
        app.queue(queue, json!({})).await;
    }
    app.topic("one", json!({"retention_seconds": 60})).await;
    let body = json!({"body": 1});
    let mut ids = HashSet::new();
    for path in [
        "/v1/queues/one/messages",
        "/v1/queues/two/messages",
        "/v1/topics/one/messages",
    ] {
        let answer = keyed(&app, path, "same", &body).await;
        let stored = answer.expect(StatusCode::CREATED);
        ids.insert(stored["messages"][0]["id"].to_string());
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_another_caller_is_another() {
    let app = Guarded::start().await;
    app.as_admin(Method::PUT, "/v1/queues/work", json!({}))
        .await;
    let (mine, yours) = (app.key(&["publish:*"]).await, app.key(&["publish:*"]).await);
    let path = "/v1/queues/work/messages";
    let first = keyed_as(&app.gateway, &mine, path, "k", json!({"body": "mine"})).await;
    first.expect(StatusCode::CREATED);
    let theirs = keyed_as(&app.gateway, &yours, path, "k", json!({"body": "yours"})).await;
    theirs.expect(StatusCode::CREATED);
    assert_ne!(first.text, theirs.text);
    let again = keyed_as(&app.gateway, &mine, path, "k", json!({"body": "mine"})).await;
    assert_replays(&again, &first);
    // A key that may not publish is told what it is told without.
    let neither = app.key(&["consume:work"]).await;
    keyed_as(&app.gateway, &neither, path, "k", json!({"body": "mine"}))
        .await
        .expect_problem(403, "scope-missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_are_not_part_of_a_key() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let path = "/v1/queues/work/messages";
    let first = keyed(&app, path, "8e03978e-40d5-43dd", json!({"body": 1})).await;
    let quoted = keyed(&app, path, "\"8e03978e-40d5-43dd\"", json!({"body": 1})).await;
    assert_replays(&quoted, &first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused_and_stores_nothing() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.topic("shop", json!({})).await;
    let long = "k".repeat(256);
    let paths = [
        "/v1/queues/work/messages",
        "/v1/topics/shop/messages",
        "/v1/queues/work/dead-letters/redrive",
        "/v1/transactions",
    ];
    for path in paths {
        for key in ["", "a b", "\"a", "\"a\";b", "k\u{e9}y", &long] {
            keyed(&app, path, key, json!({"body": 1}))
                .await
                .expect_problem(400, "invalid-idempotency-key");
        }
        let request = app
            .request(Method::POST, path)
            .header("idempotency-key", "a")
            .header("idempotency-key", "a")
            .header("content-type", "application/json")
            .body("{\"body\": 1}");
        Answer::of(request)
            .await
            .expect_problem(400, "invalid-idempotency-key");
    }
    assert_eq!(app.counts("work").await["ready"], 0);
}
