//! PUT, PATCH, GET, DELETE.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook, etag};
use crate::store::execute;
use crate::support::{Answer, App};

fn defaults() -> Value {
    json!({
        "queue": "orders", "url": "http://127.0.0.1:9/hook", "headers": {},
        "timeout_seconds": 15, "max_in_flight": 10, "rate_limit_per_second": null,
        "circuit_breaker": {
            "failure_rate": 0.5, "window": 20, "min_calls": 10, "open_seconds": 30,
        },
        "disable_after_seconds": 432_000, "status": "active", "status_reason": null,
        "breaker": {"state": "closed", "since": null, "next_probe_at": null},
        "failing_since": null, "old_secret_until": null,
    })
}

fn others() -> Value {
    json!({
        "url": "http://127.0.0.1:10/other", "headers": {"Authorization": "Bearer x", "X-A": ""},
        "timeout_seconds": 0.25, "max_in_flight": 1000, "rate_limit_per_second": 0.5,
        "circuit_breaker": {
            "failure_rate": 1.0, "window": 1000, "min_calls": 1, "open_seconds": 0.1,
        },
        "disable_after_seconds": 60,
    })
}

#[track_caller]
fn assert_fields(webhook: &Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&webhook[name], value, "{name}: {webhook}");
    }
}

async fn conditional(app: &App, method: Method, header: (&str, &str), json: Value) -> Answer {
    let request = app
        .request(method, HOOK)
        .header(header.0, header.1)
        .header("content-type", "application/json")
        .body(json.to_string());
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_makes_a_webhook_with_all_defaults_and_the_same_put_changes_nothing() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.get(HOOK).await.expect_problem(404, "webhook-not-found");
    let config = json!({"url": "http://127.0.0.1:9/hook"});
    let made = app.put(HOOK, &config).await;
    let webhook = made.expect(StatusCode::CREATED);
    assert_fields(&webhook, &defaults());
    assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"));

    let again = app.put(HOOK, &config).await;
    let same = again.expect(StatusCode::OK);
    assert_eq!(etag(&again), etag(&made));
    assert_eq!(same["updated_at"], webhook["updated_at"]);
    assert!(same.get("secret").is_none(), "{same}");

    let read = app.get(HOOK).await;
    assert_eq!(etag(&read), etag(&made));
    assert_fields(&read.expect(StatusCode::OK), &defaults());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_replaces_every_setting_and_keeps_the_status() {
    let (app, made) = app_with_webhook(json!({})).await;
    let answer = app.put(HOOK, others()).await;
    let replaced = answer.expect(StatusCode::OK);
    assert_fields(&replaced, &others());
    assert_eq!(replaced["status"], "paused");
    assert_eq!(replaced["created_at"], made["created_at"]);
    assert_fields(&app.get(HOOK).await.json(), &others());

    // What is left out has its default again.
    app.put(HOOK, json!({"url": "http://127.0.0.1:9/hook"}))
        .await
        .expect(StatusCode::OK);
    let mut expected = defaults();
    expected["status"] = json!("paused");
    assert_fields(&app.get(HOOK).await.json(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names_and_null_brings_back_the_default() {
    let (app, _) = app_with_webhook(others()).await;
    let patch = json!({
        "max_in_flight": 5, "circuit_breaker": {"window": 30}, "headers": {"X-A": null, "X-B": "b"},
        "rate_limit_per_second": null, "timeout_seconds": null,
    });
    let patched = app.patch(HOOK, patch).await.expect(StatusCode::OK);
    let mut expected = others();
    expected["max_in_flight"] = json!(5);
    expected["circuit_breaker"]["window"] = json!(30);
    expected["headers"] = json!({"Authorization": "Bearer x", "X-B": "b"});
    expected["rate_limit_per_second"] = Value::Null;
    expected["timeout_seconds"] = json!(15);
    assert_fields(&patched, &expected);
    // A webhook has a URL.
    app.patch(HOOK, json!({"url": null}))
        .await
        .expect_problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_guard_every_change() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let config = json!({"url": "http://127.0.0.1:9/hook"});
    let put =
        async |header, config: &Value| conditional(&app, Method::PUT, header, config.clone()).await;
    put(("if-match", "*"), &config)
        .await
        .expect_problem(412, "precondition-failed");
    let made = put(("if-none-match", "*"), &config).await;
    made.expect(StatusCode::CREATED);
    put(("if-none-match", "*"), &config)
        .await
        .expect_problem(412, "precondition-failed");

    let old = etag(&made);
    let changed = put(("if-match", &old), &others()).await;
    changed.expect(StatusCode::OK);
    assert_ne!(etag(&changed), old);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        conditional(&app, method, ("if-match", &old), config.clone())
            .await
            .expect_problem(412, "precondition-failed");
    }
    conditional(
        &app,
        Method::DELETE,
        ("if-match", &etag(&changed)),
        config.clone(),
    )
    .await
    .expect(StatusCode::NO_CONTENT);

    // One that was made anew is another, though it counts from one again.
    let anew = app.put(HOOK, &config).await;
    anew.expect(StatusCode::CREATED);
    assert_ne!(etag(&anew), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_and_rotating_leave_the_etag() {
    let (app, _) = app_with_webhook(json!({})).await;
    let before = etag(&app.get(HOOK).await);
    for call in ["pause", "resume", "rotate-secret"] {
        let answer = app.post(&format!("{HOOK}/{call}"), "").await;
        answer.expect(StatusCode::OK);
        assert_eq!(etag(&answer), before, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_leaves_the_queue_and_its_messages() {
    let (app, _) = app_with_webhook(json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    app.delete(HOOK).await.expect(StatusCode::NO_CONTENT);
    app.delete(HOOK)
        .await
        .expect_problem(404, "webhook-not-found");
    assert_eq!(app.receive_one("orders").await["id"], id.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_goes_with_its_queue() {
    let (app, _) = app_with_webhook(json!({})).await;
    app.delete("/v1/queues/orders")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.queue("orders", json!({})).await;
    app.get(HOOK).await.expect_problem(404, "webhook-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_puts_at_once_one_makes_the_webhook_and_only_its_secret_counts() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    let config = json!({"url": "http://127.0.0.1:9/hook"});
    let answers = futures_util::future::join_all(
        (0..10).map(|n| if n % 2 == 0 { &app.gateway } else { &other }.put(HOOK, &config)),
    )
    .await;
    let secrets = answers
        .iter()
        .filter(|answer| answer.json().get("secret").is_some())
        .inspect(|answer| assert_eq!(answer.status, StatusCode::CREATED));
    assert_eq!(secrets.count(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_url_is_another_endpoint_and_its_breaker_is_closed() {
    let (app, _) = app_with_webhook(json!({})).await;
    let open = "UPDATE postrider.webhooks SET failing_since = now(),
        breaker = '{\"epoch\": 7, \"state\": \"open\", \"since\": 1000000000000}'";
    execute(&app.database, open).await;
    let webhook = app.patch(HOOK, json!({"max_in_flight": 7})).await.json();
    assert_eq!(webhook["breaker"]["state"], "open");
    assert_eq!(webhook["breaker"]["since"], "2001-09-09T01:46:40Z");
    assert_eq!(webhook["breaker"]["next_probe_at"], "2001-09-09T01:47:10Z");
    assert!(webhook["failing_since"].is_string());

    let moved = json!({"url": "http://127.0.0.1:9/moved"});
    let webhook = app.patch(HOOK, moved).await.json();
    assert_eq!(webhook["breaker"]["state"], "closed");
    assert_eq!(webhook["failing_since"], Value::Null);
}
