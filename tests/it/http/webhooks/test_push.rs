//! One signed push, to see whether an endpoint works.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode as Status};
use reqwest::StatusCode;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{HOOK, app_with_webhook};
use crate::store::number;
use crate::support::App;

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// An endpoint that answers so to everything; its URL, and what it has seen.
async fn endpoint(status: u16, answer: &'static [u8]) -> (String, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let router = axum::Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
        kept.lock().unwrap().push((headers, body));
        (Status::from_u16(status).unwrap(), answer)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

async fn test(app: &App, body: &str) -> Value {
    app.post(&format!("{HOOK}/test"), body)
        .await
        .expect(StatusCode::OK)
}

/// Whether a receiver that knows this secret takes the push.
fn verifies(secret: &Value, (headers, body): &(HeaderMap, Bytes)) -> bool {
    Webhook::new(secret.as_str().unwrap())
        .unwrap()
        .verify(body, headers)
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_push_is_signed_and_its_answer_is_shown() {
    let (url, seen) = endpoint(202, b"thank you").await;
    let config = json!({"url": url, "headers": {"X-Token": "abc"}});
    let (app, made) = app_with_webhook(config).await;

    let tested = test(&app, r#"{"body": {"hello": "webhook"}}"#).await;
    assert_eq!(tested["outcome"], "delivered");
    assert_eq!(tested["status"], 202);
    assert_eq!(tested["answer"], "thank you");
    assert_eq!(tested["error"], Value::Null);
    assert!(tested["duration_seconds"].as_f64().unwrap() < 15.0);

    let seen = seen.lock().unwrap();
    let (headers, body) = &seen[0];
    assert_eq!(body, r#"{"hello":"webhook"}"#);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["postrider-queue"], "orders");
    assert_eq!(headers["x-token"], "abc");
    assert_eq!(
        headers["webhook-id"],
        tested["webhook_id"].as_str().unwrap()
    );
    assert!(verifies(&made["secret"], &seen[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_verify_for_a_day() {
    let (url, seen) = endpoint(200, b"").await;
    let (app, made) = app_with_webhook(json!({"url": url})).await;
    let rotate = format!("{HOOK}/rotate-secret");
    let rotated = app.post(&rotate, "").await.expect(StatusCode::OK);
    assert_ne!(rotated["secret"], made["secret"]);
    let until = crate::store::time(&rotated["old_secret_until"]);
    let hours = crate::store::seconds_between(&rotated["created_at"], &rotated["old_secret_until"]);
    assert!((86_400.0..86_460.0).contains(&hours), "{until}");

    test(&app, "").await;
    let last = || seen.lock().unwrap().last().unwrap().clone();
    assert!(verifies(&made["secret"], &last()));
    assert!(verifies(&rotated["secret"], &last()));

    // A day later.
    let later = "UPDATE postrider.webhooks SET old_secret_until = now()";
    crate::store::execute(&app.database, later).await;
    test(&app, "").await;
    assert!(!verifies(&made["secret"], &last()));
    assert!(verifies(&rotated["secret"], &last()));
    assert_eq!(app.get(HOOK).await.json()["old_secret_until"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_fails_says_how_and_changes_nothing() {
    let (url, _) = endpoint(410, b"no more").await;
    let (app, _) = app_with_webhook(json!({"url": url})).await;
    let tested = test(&app, "").await;
    assert_eq!(tested["outcome"], "gone");
    assert_eq!(tested["status"], 410);
    assert_eq!(tested["answer"], "no more");
    assert_eq!(app.get(HOOK).await.json()["status"], "paused");

    let (url, _) = endpoint(500, b"").await;
    app.patch(HOOK, json!({"url": url}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(test(&app, "").await["outcome"], "failed");

    // Nobody listens there.
    app.patch(HOOK, json!({"url": "http://127.0.0.1:9/hook"}))
        .await
        .expect(StatusCode::OK);
    let tested = test(&app, "").await;
    assert_eq!(tested["outcome"], "failed");
    assert_eq!(tested["status"], Value::Null);
    assert!(tested["error"].is_string(), "{tested}");

    let attempts = "SELECT count(*) FROM postrider.push_attempts";
    assert_eq!(number(&app.database, attempts).await, 0);
    let webhook = app.get(HOOK).await.json();
    assert_eq!(webhook["breaker"]["state"], "closed");
    assert_eq!(webhook["failing_since"], Value::Null);
}
