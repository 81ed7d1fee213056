//! `/v1/queues`: settings, conditions, lists, deletion.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, App, Gateway, eventually};

/// A queue's settings as they are when nobody says otherwise.
fn defaults() -> Value {
    json!({
        "lease_seconds": 30, "max_attempts": 5,
        "backoff": {"initial_seconds": 5, "multiplier": 2.0, "max_seconds": 3600, "jitter": 0.2},
        "message_ttl_seconds": 345_600, "delay_seconds": 0, "max_ready": null,
        "overflow": "reject", "max_in_flight": null, "rate_limit": null,
        "ordered": false, "on_blocked": "wait", "fair": false,
        "max_message_bytes": 1_048_576, "dedup_window_seconds": 86_400,
        "dead_letter": {
            "enabled": true, "keep_expired": false, "retention_seconds": 1_209_600,
            "retry": {"every_seconds": 300, "max_rounds": 0},
        },
    })
}

/// Every setting with another value than its default.
fn others() -> Value {
    json!({
        "lease_seconds": 0.5, "max_attempts": 1000,
        "backoff": {"initial_seconds": 0.25, "multiplier": 1.5, "max_seconds": 7, "jitter": 0.0},
        "message_ttl_seconds": 60, "delay_seconds": 1.125, "max_ready": 10,
        "overflow": "drop_oldest", "max_in_flight": 7,
        "ordered": true, "on_blocked": "dead_letter_key", "fair": false,
        "rate_limit": {"publish_per_second": 0.5, "receive_per_second": 1e6, "burst": 3},
        "max_message_bytes": 8_388_608, "dedup_window_seconds": 604_800,
        "dead_letter": {
            "enabled": false, "keep_expired": true, "retention_seconds": 1,
            "retry": {"every_seconds": 1, "max_rounds": 1000},
        },
    })
}

#[track_caller]
fn assert_settings(queue: &Value, settings: &Value) {
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(&queue[name], value, "{name}");
    }
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

/// A request with one more header.
async fn with_header(
    gateway: &Gateway,
    method: Method,
    header: (&str, &str),
    json: Option<Value>,
) -> Answer {
    let mut request = gateway
        .request(method, "/v1/queues/orders")
        .header(header.0, header.1);
    if let Some(json) = json {
        request = request
            .header("content-type", "application/json")
            .body(json.to_string());
    }
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_makes_a_queue_with_all_defaults_and_the_same_put_changes_nothing() {
    let app = App::start().await;
    // Neither a body nor its content type is needed.
    let made = Answer::of(app.request(Method::PUT, "/v1/queues/orders")).await;
    let queue = made.expect(StatusCode::CREATED);
    assert_eq!(queue["name"], "orders");
    assert_settings(&queue, &defaults());
    assert_eq!(queue["created_at"], queue["updated_at"]);

    let again = app.put("/v1/queues/orders", "{}").await;
    let same = again.expect(StatusCode::OK);
    assert_eq!(same["updated_at"], queue["updated_at"]);
    assert_eq!(etag(&again), etag(&made));
    assert_settings(&app.counts("orders").await, &defaults());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_replaces_every_setting() {
    let app = App::start().await;
    let made = app.put("/v1/queues/orders", others()).await;
    assert_settings(&made.expect(StatusCode::CREATED), &others());
    assert_settings(&app.counts("orders").await, &others());

    let replaced = app
        .put("/v1/queues/orders", json!({"max_attempts": 7}))
        .await;
    let queue = replaced.expect(StatusCode::OK);
    let mut expected = defaults();
    expected["max_attempts"] = json!(7);
    assert_settings(&queue, &expected);
    assert_ne!(etag(&replaced), etag(&made));
    assert_eq!(queue["created_at"], made.json()["created_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_puts_at_once_one_makes_the_queue() {
    let app = App::start().await;
    let other = app.another().await;
    let mut puts = JoinSet::new();
    for n in 1..=20 {
        let gateway = if n % 2 == 0 { &app.gateway } else { &other };
        puts.spawn(Answer::of(
            gateway
                .request(Method::PUT, "/v1/queues/orders")
                .header("content-type", "application/json")
                .body(json!({"max_attempts": n}).to_string()),
        ));
    }
    let answers = puts.join_all().await;
    let made = answers.iter().filter(|a| a.status == StatusCode::CREATED);
    assert_eq!(made.count(), 1, "{answers:?}");
    for answer in &answers {
        // Losing ten times in a row is possible, and then said so.
        assert!(
            matches!(answer.status.as_u16(), 200 | 201 | 409),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_and_null_brings_the_default_back() {
    let app = App::start().await;
    app.queue("orders", others()).await;
    let patched = app
        .patch(
            "/v1/queues/orders",
            json!({
                "lease_seconds": 45, "max_ready": null, "overflow": null,
                "backoff": {"jitter": 1, "max_seconds": null},
                "dead_letter": {"retry": {"max_rounds": 3}},
            }),
        )
        .await;
    let mut expected = others();
    expected["lease_seconds"] = json!(45);
    expected["max_ready"] = Value::Null;
    expected["overflow"] = json!("reject");
    expected["backoff"]["jitter"] = json!(1.0);
    expected["backoff"]["max_seconds"] = json!(3600);
    expected["dead_letter"]["retry"]["max_rounds"] = json!(3);
    assert_settings(&patched.expect(StatusCode::OK), &expected);

    let whole = app.patch(
        "/v1/queues/orders",
        json!({"backoff": null, "dead_letter": null}),
    );
    let whole = whole.await.expect(StatusCode::OK);
    assert_eq!(whole["backoff"], defaults()["backoff"]);
    assert_eq!(whole["dead_letter"], defaults()["dead_letter"]);
    assert_eq!(whole["lease_seconds"], 45);

    let merge_patch = app
        .request(Method::PATCH, "/v1/queues/orders")
        .header("content-type", "application/merge-patch+json")
        .body(r#"{"max_attempts": 9}"#);
    let answer = Answer::of(merge_patch).await;
    assert_eq!(answer.expect(StatusCode::OK)["max_attempts"], 9);

    app.patch("/v1/queues/nope", "{}")
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_at_the_same_time_do_not_undo_each_other() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let other = app.another().await;
    let fields = [
        "lease_seconds",
        "max_attempts",
        "delay_seconds",
        "max_ready",
    ];
    let mut patches = JoinSet::new();
    for (n, field) in fields.into_iter().enumerate() {
        let gateway = if n % 2 == 0 { &app.gateway } else { &other };
        patches.spawn(Answer::of(
            gateway
                .request(Method::PATCH, "/v1/queues/orders")
                .header("content-type", "application/json")
                .body(json!({field: 77}).to_string()),
        ));
    }
    for answer in patches.join_all().await {
        answer.expect(StatusCode::OK);
    }
    let queue = app.counts("orders").await;
    for field in fields {
        assert_eq!(queue[field], 77, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_guard_changes_and_deletion() {
    let app = App::start().await;
    let absent = with_header(&app, Method::PUT, ("if-match", "*"), Some(json!({}))).await;
    absent.expect_problem(412, "precondition-failed");
    app.get("/v1/queues/orders")
        .await
        .expect_problem(404, "queue-not-found");

    let only_if_new = ("if-none-match", "*");
    let made = with_header(&app, Method::PUT, only_if_new, Some(json!({}))).await;
    made.expect(StatusCode::CREATED);
    let there = with_header(&app, Method::PUT, only_if_new, Some(json!({}))).await;
    there.expect_problem(412, "precondition-failed");

    let first = etag(&app.get("/v1/queues/orders").await);
    assert_eq!(first, etag(&made));
    let patch = Some(json!({"max_attempts": 6}));
    let patched = with_header(&app, Method::PATCH, ("if-match", &first), patch.clone()).await;
    patched.expect(StatusCode::OK);
    for (method, body) in [
        (Method::PATCH, patch),
        (Method::PUT, Some(json!({}))),
        (Method::DELETE, None),
    ] {
        let stale = with_header(&app, method, ("if-match", &first), body).await;
        stale.expect_problem(412, "precondition-failed");
    }
    assert_eq!(app.counts("orders").await["max_attempts"], 6);

    let list = format!("\"x-1\", {}", etag(&patched));
    let put = with_header(&app, Method::PUT, ("if-match", &list), Some(json!({}))).await;
    assert_eq!(put.expect(StatusCode::OK)["max_attempts"], 5);
    let gone = with_header(&app, Method::DELETE, ("if-match", &etag(&put)), None).await;
    gone.expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_puts_at_once_one_makes_the_queue_and_the_rest_are_refused() {
    let app = App::start().await;
    let other = app.another().await;
    for round in 0..10 {
        let path = format!("/v1/queues/orders-{round}");
        let mut puts = JoinSet::new();
        for n in 1..=8 {
            let gateway = if n % 2 == 0 { &app.gateway } else { &other };
            puts.spawn(Answer::of(
                gateway
                    .request(Method::PUT, &path)
                    .header("if-none-match", "*")
                    .header("content-type", "application/json")
                    .body(json!({"max_attempts": n}).to_string()),
            ));
        }
        let (made, refused): (Vec<Answer>, Vec<Answer>) = puts
            .join_all()
            .await
            .into_iter()
            .partition(|answer| answer.status == StatusCode::CREATED);
        assert_eq!(made.len(), 1, "{made:?} {refused:?}");
        for answer in refused {
            answer.expect_problem(412, "precondition-failed");
        }
        let queue = app.get(&path).await.expect(StatusCode::OK);
        assert_eq!(queue["max_attempts"], made[0].json()["max_attempts"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_listed_by_name_in_pages_that_link_to_the_next() {
    let app = App::start().await;
    for name in ["b", "a.2", "a_1", "a.1", "a.3", "B"] {
        app.queue(name, json!({})).await;
    }
    let names = |answer: &Answer| -> Vec<String> {
        let list = answer.expect(StatusCode::OK);
        let queues = list["queues"].as_array().unwrap();
        queues
            .iter()
            .map(|queue| {
                assert_settings(queue, &defaults());
                queue["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let all = app.get("/v1/queues").await;
    assert_eq!(names(&all), ["B", "a.1", "a.2", "a.3", "a_1", "b"]);
    assert_eq!(all.json()["next_cursor"], Value::Null);
    assert!(!all.headers.contains_key("link"));

    let first = app.get("/v1/queues?prefix=a.&limit=2").await;
    assert_eq!(names(&first), ["a.1", "a.2"]);
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    let link = first.headers["link"].to_str().unwrap();
    let next = link
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix(">; rel=\"next\""))
        .unwrap();
    assert_eq!(
        next,
        format!("/v1/queues?prefix=a.&limit=2&cursor={cursor}")
    );
    let second = app.get(next).await;
    assert_eq!(names(&second), ["a.3"]);
    assert_eq!(second.json()["next_cursor"], Value::Null);

    // A prefix is text, not a pattern.
    for nothing in ["a%25", "%25", "zzz", "A"] {
        let answer = app.get(&format!("/v1/queues?prefix={nothing}")).await;
        assert_eq!(names(&answer), [""; 0], "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_gone_and_a_new_one_of_its_name_is_empty() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let lease = app
        .publish("orders", json!({"body": 2, "priority": 9}))
        .await;
    let leased = app.receive_one("orders").await;
    assert_eq!(leased["id"], lease.as_str());
    let deleted = app.delete("/v1/queues/orders").await;
    assert_eq!(deleted.expect(StatusCode::NO_CONTENT), Value::Null);
    for answer in [
        app.get("/v1/queues/orders").await,
        app.delete("/v1/queues/orders").await,
        app.post("/v1/queues/orders/messages", r#"{"body":1}"#)
            .await,
        app.post("/v1/queues/orders/receive", "{}").await,
    ] {
        answer.expect_problem(404, "queue-not-found");
    }

    app.queue("orders", json!({})).await;
    let counts = app.counts("orders").await;
    for count in ["ready", "leased", "delayed", "dead", "consumers"] {
        assert_eq!(counts[count], 0, "{count}");
    }
    assert!(app.receive("orders", json!({})).await.is_empty());
    app.get(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect_problem(404, "message-not-found");
    app.settle("ack", "orders", &[&leased["receipt"]], json!({}))
        .await
        .expect_problem(404, "receipt-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_sees_a_change_within_two_seconds() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({"max_message_bytes": 10})).await;
    // Both have the queue in their caches now.
    app.publish("orders", json!({"body": 1})).await;
    other.publish("orders", json!({"body": 2})).await;

    let long = json!({"body": "more than ten bytes"}).to_string();
    app.patch("/v1/queues/orders", json!({"max_message_bytes": 100}))
        .await
        .expect(StatusCode::OK);
    let changed = std::time::Instant::now();
    eventually("the other gateway takes longer messages", || async {
        let answer = other.post("/v1/queues/orders/messages", &long).await;
        answer.status == StatusCode::CREATED
    })
    .await;
    assert!(changed.elapsed().as_secs_f64() < 4.0, "{changed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_publishes_into_a_queue_that_was_made_anew() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    other.publish("orders", json!({"body": "old"})).await;

    app.delete("/v1/queues/orders")
        .await
        .expect(StatusCode::NO_CONTENT);
    // At once, though the other gateway remembers the old queue.
    other
        .post("/v1/queues/orders/messages", r#"{"body":1}"#)
        .await
        .expect_problem(404, "queue-not-found");

    app.queue("orders", json!({})).await;
    let id = other.publish("orders", json!({"body": "new"})).await;
    let message = app.receive_one("orders").await;
    assert_eq!(message["id"], id.as_str());
    assert_eq!(message["body"], "new");
    assert!(app.receive("orders", json!({})).await.is_empty());
}
