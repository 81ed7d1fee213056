//! `/v1/queues/{queue}/webhook`: the resource. What its worker does is tested
//! elsewhere.

mod attempts;
mod errors;
mod resend;
mod resource;
mod secrets;
mod status;
mod test_push;

use std::time::{Duration, Instant};

use postrider::store::{PushOutcomeKind, PushRecord};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, App};

pub(super) const HOOK: &str = "/v1/queues/orders/webhook";

/// A queue with a webhook; where nobody listens, if nothing else is said.
pub(super) async fn app_with_webhook(settings: Value) -> (App, Value) {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let mut config = json!({"url": "http://127.0.0.1:9/hook"});
    for (name, value) in settings.as_object().unwrap() {
        config[name] = value.clone();
    }
    let made = app.put(HOOK, config).await.expect(StatusCode::CREATED);
    // Its worker stays out of the way of tests that do not ask for it.
    app.post(&format!("{HOOK}/pause"), "{}")
        .await
        .expect(StatusCode::OK);
    (app, made)
}

pub(super) fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

/// What a push came to, that began so many seconds ago.
pub(super) fn record(
    queue_id: i64,
    message_id: i64,
    seconds_ago: u64,
    status: Option<u16>,
) -> PushRecord {
    PushRecord {
        queue_id,
        message_id,
        token: 1,
        attempt: 1,
        started: Instant::now()
            .checked_sub(Duration::from_secs(seconds_ago))
            .unwrap(),
        duration: Duration::from_millis(42),
        outcome: match status {
            Some(200..300) => PushOutcomeKind::Delivered,
            Some(410) => PushOutcomeKind::Gone,
            Some(429) => PushOutcomeKind::Waiting,
            _ => PushOutcomeKind::Failed,
        },
        status,
        error: status
            .is_none_or(|status| status >= 300)
            .then(|| "it failed".to_owned()),
        answer: b"answer".to_vec(),
    }
}
