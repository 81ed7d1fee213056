//! What a key does not see is not there.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::lives::alike;
use super::{Guarded, with_key};

async fn names(app: &Guarded, key: &str, path: &str, list: &str) -> Vec<String> {
    let answer = with_key(&app.gateway, key, Method::GET, path, None).await;
    let page = answer.expect(StatusCode::OK);
    page[list]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn stocked() -> Guarded {
    let app = Guarded::start().await;
    for name in ["orders.eu", "orders.us", "orders_eu", "secret"] {
        for kind in ["queues", "topics"] {
            let path = format!("/v1/{kind}/{name}");
            let made = app.as_admin(Method::PUT, &path, json!({})).await;
            assert_eq!(made.status, StatusCode::CREATED);
        }
    }
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_the_key_has_a_scope_on() {
    let app = stocked().await;
    let key = app.key(&["publish:orders.*", "consume:orders_eu"]).await;
    let mine = ["orders.eu", "orders.us", "orders_eu"];
    assert_eq!(names(&app, &key, "/v1/queues", "queues").await, mine);
    let topics: Vec<_> = names(&app, &key, "/v1/topics", "topics").await;
    assert_eq!(topics, mine);
    // Pages are full although what lies between is not shown.
    let page = names(&app, &key, "/v1/queues?limit=2", "queues").await;
    assert_eq!(page, ["orders.eu", "orders.us"]);
    let all = names(&app, &app.admin, "/v1/queues", "queues").await;
    assert_eq!(all.len(), 4);
    let none = app.key(&["monitor"]).await;
    assert!(names(&app, &none, "/v1/queues", "queues").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_puts_nothing_where_the_key_may_not_publish() {
    let app = stocked().await;
    let path = "/v1/queues/orders.eu/dead-letters/redrive";
    let key = app.key(&["manage:orders.*", "publish:orders.us"]).await;
    let to = async |queue: &str| {
        let request = json!({"filter": {}, "to_queue": queue});
        with_key(&app.gateway, &key, Method::POST, path, Some(request)).await
    };
    assert_eq!(to("orders.us").await.status, StatusCode::OK);
    to("orders.eu").await.expect_problem(403, "scope-missing");
    // One that is there, and one that is not.
    for hidden in ["secret", "nothing"] {
        to(hidden).await.expect_problem(404, "queue-not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_feeds_only_what_the_key_manages() {
    let app = stocked().await;
    let key = app.key(&["manage:orders.eu", "consume:orders.us"]).await;
    let put = async |name: &str, body: Value| {
        let path = format!("/v1/topics/orders.eu/subscriptions/{name}");
        with_key(&app.gateway, &key, Method::PUT, &path, Some(body)).await
    };
    let answer = put("a", json!({"queue": "orders.eu"})).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    for hidden in ["secret", "nothing"] {
        let answer = put("b", json!({"queue": hidden})).await;
        answer.expect_problem(404, "queue-not-found");
    }
    let answer = put("b", json!({"queue": "orders.us"})).await;
    answer.expect_problem(403, "scope-missing");
    // Its own queue would be orders.eu.b, which the key does not manage either.
    let problem = put("b", json!({}))
        .await
        .expect_problem(403, "scope-missing");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("manage:orders.eu.b")
    );
    let wider = app.key(&["manage:orders.eu*"]).await;
    let path = "/v1/topics/orders.eu/subscriptions/b";
    let made = with_key(&app.gateway, &wider, Method::PUT, path, Some(json!({}))).await;
    assert_eq!(made.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_for_keys_that_consume_its_name_and_tells_others_nothing() {
    let app = stocked().await;
    let key = app.key(&["consume:orders.eu", "publish:*"]).await;
    let take = async |claim: &str| {
        let path = format!("/v1/claims/{claim}");
        with_key(&app.gateway, &key, Method::POST, &path, Some(json!({}))).await
    };
    assert_eq!(take("orders.eu:42").await.status, StatusCode::CREATED);
    let others = "/v1/claims/secret:42";
    let made = app.as_admin(Method::POST, others, json!({})).await;
    let token = made.expect(StatusCode::CREATED)["token"].clone();
    // One that somebody holds, and one that nobody does.
    let held = take("secret:42").await.expect_problem(403, "scope-missing");
    let free = take("secret:43").await.expect_problem(403, "scope-missing");
    assert_eq!(held["detail"], free["detail"]);
    let complete = format!("{others}/complete");
    let request = json!({"token": token});
    with_key(&app.gateway, &key, Method::POST, &complete, Some(request))
        .await
        .expect_problem(403, "scope-missing");
    let give_up = format!("{others}?token={}", token.as_str().unwrap());
    with_key(&app.gateway, &key, Method::DELETE, &give_up, None)
        .await
        .expect_problem(403, "scope-missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_for_keys_that_publish_to_its_queue_and_not_there_for_others() {
    let app = stocked().await;
    let path = "/v1/queues/orders.eu/requests";
    let asked = app.as_admin(Method::POST, path, json!({"body": 1})).await;
    let asked = asked.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
    let there = format!("/v1/replies/{}", asked.as_str().unwrap());
    let publisher = app.key(&["publish:orders.eu"]).await;
    let read =
        async |key: &str, path: &str| with_key(&app.gateway, key, Method::GET, path, None).await;
    assert_eq!(
        read(&publisher, &there).await.status,
        StatusCode::NO_CONTENT
    );
    // Whoever receives the request sees its id, and answers without reading.
    for scopes in [
        &["consume:orders.eu", "manage:orders.eu"][..],
        &["publish:orders.us"],
        &["monitor"],
    ] {
        let key = app.key(scopes).await;
        let refused = read(&key, &there).await;
        let missing = read(&key, "/v1/replies/req_AQ").await;
        refused.expect_problem(404, "reply-not-found");
        assert_eq!(alike(&refused), alike(&missing), "{scopes:?}");
    }
}
