//! `/v1/topics/{topic}/subscriptions`, and what they do to their queues.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, eventually};

const ORDERS: &str = "/v1/topics/shop/subscriptions/orders";

async fn start() -> App {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.queue("work", json!({})).await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_without_a_queue_has_its_own() {
    let app = start().await;
    let made = app
        .put(ORDERS, json!({"filter": {"routing_key": "orders.#"}}))
        .await;
    let subscription = made.expect(StatusCode::CREATED);
    assert_eq!(
        subscription,
        json!({
            "name": "orders", "topic": "shop", "queue": "shop.orders", "owns_queue": true,
            "filter": {"routing_key": "orders.#"},
            "created_at": subscription["created_at"], "updated_at": subscription["created_at"],
        })
    );
    assert_eq!(app.get(ORDERS).await.json(), subscription);
    // The same put, as it was sent or as it is shown, changes nothing.
    for queue in [Value::Null, json!("shop.orders")] {
        let mut body = json!({"filter": {"routing_key": "orders.#"}});
        if !queue.is_null() {
            body["queue"] = queue;
        }
        let again = app.put(ORDERS, body).await;
        assert_eq!(again.expect(StatusCode::OK), subscription);
        assert_eq!(again.headers["etag"], made.headers["etag"]);
    }
    assert_eq!(app.counts("shop.orders").await["ready"], 0);
    app.delete(ORDERS).await.expect(StatusCode::NO_CONTENT);
    app.get("/v1/queues/shop.orders")
        .await
        .expect_problem(404, "queue-not-found");
    app.delete(ORDERS)
        .await
        .expect_problem(404, "subscription-not-found");
    // And again under the same names.
    app.put(ORDERS, json!({})).await.expect(StatusCode::CREATED);
    app.publish_topic("shop", json!({"body": 1})).await;
    assert_eq!(app.receive_one("shop.orders").await["body"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_can_be_changed_but_for_whose_its_queue_is() {
    let app = start().await;
    app.queue("more", json!({})).await;
    let made = app.put(ORDERS, json!({"queue": "work"})).await;
    assert_eq!(made.expect(StatusCode::CREATED)["owns_queue"], false);
    let patched = app.patch(ORDERS, json!({"queue": "more"})).await;
    assert_eq!(patched.expect(StatusCode::OK)["queue"], "more");
    app.publish_topic("shop", json!({"body": 1})).await;
    assert_eq!(app.receive_one("more").await["body"], 1);
    assert_eq!(app.counts("work").await["ready"], 0);

    let filtered = app
        .patch(ORDERS, json!({"filter": {"routing_key": "a"}}))
        .await;
    assert_eq!(
        filtered.expect(StatusCode::OK)["filter"],
        json!({"routing_key": "a"})
    );
    let all = app.patch(ORDERS, json!({"filter": null})).await;
    assert_eq!(all.expect(StatusCode::OK)["filter"], Value::Null);

    for body in [json!({}), json!({"queue": null})] {
        let own = app.put(ORDERS, body).await;
        let problem = own.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/queue");
    }
    app.subscription("shop", "own", json!({})).await;
    app.patch(
        "/v1/topics/shop/subscriptions/own",
        json!({"queue": "work"}),
    )
    .await
    .expect_problem(422, "invalid");
    // Its own queue was deleted with the others' or stays with it: never without.
    app.delete(ORDERS).await.expect(StatusCode::NO_CONTENT);
    app.counts("more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_guard_every_change_of_a_subscription() {
    let app = start().await;
    let send = async |method: Method, header: (&str, String), body: Value| {
        let request = app.request(method, ORDERS).header(header.0, header.1);
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(body.to_string())).await
    };
    let made = send(Method::PUT, ("if-none-match", "*".into()), json!({})).await;
    made.expect(StatusCode::CREATED);
    let first = made.headers["etag"].to_str().unwrap().to_owned();
    send(Method::PUT, ("if-none-match", "*".into()), json!({}))
        .await
        .expect_problem(412, "precondition-failed");
    let filter = json!({"filter": {"routing_key": "a"}});
    let changed = send(Method::PATCH, ("if-match", first.clone()), filter.clone()).await;
    changed.expect(StatusCode::OK);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        send(method, ("if-match", first.clone()), filter.clone())
            .await
            .expect_problem(412, "precondition-failed");
    }
    let now = changed.headers["etag"].to_str().unwrap().to_owned();
    send(Method::DELETE, ("if-match", now), filter)
        .await
        .expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_listed_by_name_in_pages() {
    let app = start().await;
    for name in ["c", "a", "b"] {
        app.subscription("shop", name, json!({"queue": "work"}))
            .await;
    }
    let path = "/v1/topics/shop/subscriptions?limit=2";
    let page = app.get(path).await.expect(StatusCode::OK);
    assert_eq!(page["subscriptions"][1]["name"], "b");
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = app
        .get(&format!("{path}&cursor={cursor}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(rest["subscriptions"][0]["name"], "c");
    assert_eq!(rest["next_cursor"], Value::Null);
    let some = app.get("/v1/topics/shop/subscriptions?prefix=a").await;
    assert_eq!(some.json()["subscriptions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_fed_is_only_deleted_by_force() {
    let app = start().await;
    app.topic("bank", json!({})).await;
    for (topic, name) in [("shop", "a"), ("shop", "b"), ("bank", "c")] {
        app.subscription(topic, name, json!({"queue": "work"}))
            .await;
    }
    let refused = app.delete("/v1/queues/work").await;
    let problem = refused.expect_problem(409, "queue-in-use");
    let detail = problem["detail"].as_str().unwrap();
    for what in ["bank/c", "shop/a", "shop/b", "force=true"] {
        assert!(detail.contains(what), "{detail}");
    }
    app.delete("/v1/queues/work?force=false")
        .await
        .expect_problem(409, "queue-in-use");
    app.publish_topic("shop", json!({"body": 1})).await;
    app.delete("/v1/queues/work?force=true")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.get("/v1/topics/bank/subscriptions/c")
        .await
        .expect_problem(404, "subscription-not-found");
    let published = app.publish_topic("shop", json!({"body": 2})).await;
    assert_eq!(published["subscriptions"], 0);
    app.delete("/v1/queues/work?force=1")
        .await
        .expect_problem(400, "invalid-query");
}

/// The other gateway has the old state in its cache when the change is made.
#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_this_gateway_at_once_and_every_other_within_a_second() {
    let app = start().await;
    let other = app.another().await;
    let matched = async |gateway: &crate::support::Gateway| {
        let message = json!({"body": 1, "routing_key": "a.b"});
        gateway.publish_topic("shop", message).await["subscriptions"].clone()
    };
    let changes = [
        (json!({"queue": "work"}), 1),
        (json!({"queue": "work", "filter": {"routing_key": "x"}}), 0),
        (
            json!({"queue": "work", "filter": {"routing_key": "a.#"}}),
            1,
        ),
    ];
    assert_eq!(matched(&other).await, 0);
    for (change, expected) in changes {
        matched(&other).await;
        app.put(ORDERS, change).await;
        let began = std::time::Instant::now();
        assert_eq!(matched(&app).await, expected, "not at once");
        while matched(&other).await != expected {
            assert!(began.elapsed().as_millis() < 1000, "not within a second");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    app.delete(ORDERS).await.expect(StatusCode::NO_CONTENT);
    assert_eq!(matched(&app).await, 0);
    eventually("the other knows too", async || matched(&other).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_race_with_subscribing_unsubscribing_and_deleting_queues() {
    let app = start().await;
    let other = app.another().await;
    app.subscription("shop", "always", json!({})).await;
    let publishing = async {
        let mut published = 0;
        for n in 0..150 {
            let gateway = if n % 2 == 0 { &app.gateway } else { &other };
            let message = json!({"messages": [{"body": n}, {"body": n, "delay_seconds": 600}]});
            gateway.publish_topic("shop", message).await;
            published += 2;
        }
        published
    };
    let changing = async {
        for n in 0..25 {
            let (owner, queue) = (format!("own{}", n % 3), format!("fed{}", n % 2));
            let own = format!("/v1/topics/shop/subscriptions/{owner}");
            app.put(&own, json!({})).await;
            other.put(&format!("/v1/queues/{queue}"), "{}").await;
            app.put(
                &format!("/v1/topics/shop/subscriptions/s{n}"),
                json!({"queue": queue}),
            )
            .await;
            other
                .delete(&format!("/v1/queues/{queue}?force=true"))
                .await
                .expect(StatusCode::NO_CONTENT);
            app.delete(&own).await.expect(StatusCode::NO_CONTENT);
        }
    };
    let (published, ()) = tokio::join!(publishing, changing);
    let counts = app.counts("shop.always").await;
    assert_eq!(counts["ready"], published / 2);
    assert_eq!(counts["delayed"], published / 2);
    app.assert_conserved(&app.database, "shop.always").await;
    let left = app.get("/v1/topics/shop/subscriptions").await.json();
    assert_eq!(left["subscriptions"].as_array().unwrap().len(), 1, "{left}");
    while app.app.store().prune().await.unwrap() {}
    let orphans: (i64,) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM postrider.ready
                 WHERE queue_id NOT IN (SELECT id FROM postrider.queues))
              + (SELECT count(*) FROM postrider.parked
                 WHERE queue_id NOT IN (SELECT id FROM postrider.queues))",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    assert_eq!(orphans.0, 0, "rows of deleted queues are left");
}
