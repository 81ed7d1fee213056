//! `Idempotency-Key`: once, however often it is sent.

mod keys;
mod lives;
mod publishes;
mod requests;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Gateway};

/// A POST of JSON with a key.
pub(crate) async fn keyed(gateway: &Gateway, path: &str, key: &str, json: impl ToString) -> Answer {
    let request = gateway
        .request(Method::POST, path)
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(json.to_string());
    Answer::of(request).await
}

/// The same with an API key.
async fn keyed_as(gateway: &Gateway, api_key: &str, path: &str, key: &str, json: Value) -> Answer {
    let request = gateway
        .request(Method::POST, path)
        .bearer_auth(api_key)
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(json.to_string());
    Answer::of(request).await
}

/// The answer is another's, byte for byte, and says so.
#[track_caller]
pub(super) fn assert_replays(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, first.status, "{}", answer.text);
    assert_eq!(answer.text, first.text);
    assert_eq!(
        answer.headers["content-type"],
        first.headers["content-type"]
    );
    assert_eq!(answer.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
}
