//! Things that are really there, for the walk: whoever is let in gets them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::walk::{NAME, Step, name};
use super::{Guarded, with_key};

/// Queues, topics, a subscription, a webhook, schemas and a schedule.
pub(super) struct There(());

impl There {
    pub(super) async fn make(app: &Guarded) -> Self {
        // Of which anything is a later version.
        let schema = json!({"schema": false});
        let webhook = json!({"url": "http://127.0.0.1:9/"});
        let schedule = json!({"cron": "@yearly", "queue": NAME, "message": {"body": 1}});
        let (pushed, checked) = (name("/webhook"), name("/schema"));
        for (path, settings) in [
            (format!("/v1/queues/{NAME}"), json!({})),
            (
                format!("/v1/topics/{NAME}"),
                json!({"retention_seconds": 86400}),
            ),
            (format!("/v1/topics/{NAME}/subscriptions/sub"), json!({})),
            (format!("/v1/queues/{pushed}"), json!({})),
            (format!("/v1/queues/{pushed}/webhook"), webhook),
            (format!("/v1/queues/{checked}"), json!({})),
            (format!("/v1/topics/{checked}"), json!({})),
            (format!("/v1/queues/{checked}/schema"), schema.clone()),
            (format!("/v1/topics/{checked}/schema"), schema),
            (format!("/v1/schedules/{NAME}"), schedule),
        ] {
            let made = app.as_admin(Method::PUT, &path, settings).await;
            assert!(made.status.is_success(), "{path}: {made:?}");
        }
        Self(())
    }

    /// The same operation on a message, a request, a claim or a key that is there.
    pub(super) async fn real(&self, app: &Guarded, step: &Step) -> Step {
        let mut step = step.clone();
        let template = step.template.as_str();
        if template.contains("/{version}") || template.contains("/webhook") {
            return step;
        }
        if template.starts_with("/v1/claims/") {
            step.path = step.path.replace(NAME, &format!("{NAME}:{}", step.id));
            if step.id != "take_claim" {
                let path = format!("/v1/claims/{NAME}:{}", step.id);
                let granted = post(app, &path, json!({})).await;
                let token = granted["token"].as_str().unwrap();
                match step.body.as_mut() {
                    Some(body) => body["token"] = json!(token),
                    None => step.path = format!("{}?token={token}", step.path),
                }
            }
        } else if template.starts_with("/v1/keys/") {
            let key = app.key(&["monitor"]).await;
            step.path = step.path.replace("0123456789ab", &key[3..15]);
        } else if ["get_reply", "reply_to_request"].contains(&&*step.id) {
            let (asked, receipt) = request(app).await;
            step.path = step.path.replace("req_AQ", &asked);
            if let Some(body) = step.body.as_mut() {
                body["receipt"] = receipt;
            }
        } else {
            self.with_message(app, &mut step).await;
        }
        step
    }

    /// Puts a message into it that is ready, leased or dead, whichever it is about.
    async fn with_message(&self, app: &Guarded, step: &mut Step) {
        let wants_receipt = step
            .body
            .as_ref()
            .is_some_and(|body| body.get("receipts").is_some() || body.get("acks").is_some());
        let is_dead = step.template.contains("/dead-letters");
        if !wants_receipt && !step.template.contains("{id}") {
            return;
        }
        let queue = format!("/v1/queues/{NAME}");
        post(app, &format!("{queue}/purge"), json!({})).await;
        let made = post(app, &format!("{queue}/messages"), json!({"body": 1})).await;
        let id = made["messages"][0]["id"].as_str().unwrap().to_owned();
        step.path = step.path.replace("msg_000000000001a", &id);
        if wants_receipt || is_dead {
            let receipt = receive(app).await;
            if is_dead {
                let nack = json!({"receipts": [receipt], "dead_letter": true});
                post(app, &format!("{queue}/nack"), nack).await;
            } else if let Some(body) = step.body.as_mut() {
                if body.get("receipts").is_some() {
                    body["receipts"] = json!([receipt]);
                } else {
                    body["acks"] = json!([{"queue": NAME, "receipt": receipt}]);
                    body["publishes"][0]["topic"] = json!(NAME);
                }
            }
        }
    }
}

/// A request that somebody has received: its id and its receipt.
async fn request(app: &Guarded) -> (String, Value) {
    let queue = format!("/v1/queues/{NAME}");
    post(app, &format!("{queue}/purge"), json!({})).await;
    let asked = post(app, &format!("{queue}/requests"), json!({"body": 1})).await;
    let id = asked["correlation_id"].as_str().unwrap().to_owned();
    (id, receive(app).await)
}

async fn receive(app: &Guarded) -> Value {
    let wish = json!({"wait_seconds": 20});
    let received = post(app, &format!("/v1/queues/{NAME}/receive"), wish).await;
    received["messages"][0]["receipt"].clone()
}

/// As an admin, who is refused nothing.
async fn post(app: &Guarded, path: &str, body: Value) -> Value {
    let answer = with_key(&app.gateway, &app.admin, Method::POST, path, Some(body)).await;
    assert!(answer.status.is_success(), "{path}: {answer:?}");
    assert_ne!(answer.status, StatusCode::NO_CONTENT, "{path}");
    answer.json()
}
