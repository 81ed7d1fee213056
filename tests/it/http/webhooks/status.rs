//! Pause and resume.

use postrider::domain::DisableReason;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook};
use crate::store::{execute, queue_id};
use crate::support::App;

async fn call(app: &App, call: &str) -> Value {
    app.post(&format!("{HOOK}/{call}"), "")
        .await
        .expect(StatusCode::OK)
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_twice_is_pausing_once_and_resuming_undoes_it() {
    let (app, _) = app_with_webhook(json!({})).await;
    let paused = call(&app, "pause").await;
    assert_eq!(paused["status"], "paused");
    let again = call(&app, "pause").await;
    assert_eq!(again["status_since"], paused["status_since"]);
    let resumed = call(&app, "resume").await;
    assert_eq!(resumed["status"], "active");
    assert_eq!(
        call(&app, "resume").await["status_since"],
        resumed["status_since"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_webhook_says_why_and_only_a_resume_enables_it() {
    let (app, _) = app_with_webhook(json!({})).await;
    let queue = queue_id(&app.database, "orders").await;
    let store = app.app.store();
    assert!(
        store
            .disable_webhook(queue, DisableReason::Gone)
            .await
            .unwrap()
    );
    // One event for one disabling, whoever else tries.
    let again = store.disable_webhook(queue, DisableReason::Failing).await;
    assert!(!again.unwrap());

    for webhook in [app.get(HOOK).await.json(), call(&app, "pause").await] {
        assert_eq!(webhook["status"], "disabled");
        assert_eq!(webhook["status_reason"], "gone");
    }
    let replaced = app
        .put(HOOK, json!({"url": "http://127.0.0.1:9/new"}))
        .await;
    assert_eq!(replaced.json()["status"], "disabled");

    let resumed = call(&app, "resume").await;
    assert_eq!(resumed["status"], "active");
    assert_eq!(resumed["status_reason"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_closes_the_breaker_and_forgets_the_failures() {
    let (app, _) = app_with_webhook(json!({})).await;
    let open = "UPDATE postrider.webhooks SET failing_since = now() - interval '4 days',
        breaker = '{\"epoch\": 7, \"state\": \"half-open\", \"since\": 1000000000000,
            \"probe_until\": 1000000015000}'";
    execute(&app.database, open).await;
    assert_eq!(app.get(HOOK).await.json()["breaker"]["state"], "half-open");
    let resumed = call(&app, "resume").await;
    assert_eq!(resumed["breaker"]["state"], "closed");
    assert_eq!(resumed["failing_since"], Value::Null);
}
