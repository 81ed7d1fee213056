//! Pushing to webhooks, the whole way: gateways, their database, receivers on
//! real sockets.

mod again;
mod breaker;
mod events;
mod flow;
mod hostile;
mod outcomes;
mod signed;

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, Gateway, Received, Receiver, eventually};

pub(super) const HOOK: &str = "/v1/queues/orders/webhook";

/// A queue `orders` with a webhook to a receiver, and the webhook's secret.
pub(crate) struct Hook {
    pub(crate) app: App,
    pub(crate) receiver: Receiver,
    pub(crate) secret: String,
}

impl std::ops::Deref for Hook {
    type Target = App;
    fn deref(&self) -> &App {
        &self.app
    }
}

impl Hook {
    /// With these settings of the webhook and of its queue. Failures are tried
    /// again at once, and no breaker opens, unless they say otherwise.
    pub(crate) async fn start(webhook: Value, queue: Value) -> Self {
        Self::start_on(App::start().await, webhook, queue).await
    }

    pub(crate) async fn start_on(app: App, webhook: Value, queue: Value) -> Self {
        let receiver = Receiver::start().await;
        let secret = hook(&app, "orders", &receiver.url("/hook"), webhook, queue).await;
        Self {
            app,
            receiver,
            secret,
        }
    }

    /// Publishes so many messages, numbered from 0; their ids.
    pub(crate) async fn publish_many(&self, count: usize) -> Vec<String> {
        publish_many(&self.app, "orders", count).await
    }

    pub(crate) async fn attempts(&self, query: &str) -> Vec<Value> {
        attempts(&self.app, "orders", query).await
    }

    /// Waits for so many attempts of `query`; the newest is first.
    pub(crate) async fn wait_for_attempts(&self, query: &str, count: usize) -> Vec<Value> {
        eventually("there are enough attempts", async || {
            self.attempts(query).await.len() >= count
        })
        .await;
        let found = self.attempts(query).await;
        assert_eq!(found.len(), count, "{found:?}");
        found
    }

    pub(crate) async fn webhook(&self) -> Value {
        self.get(HOOK).await.expect(StatusCode::OK)
    }

    /// Waits until nothing is left in the queue.
    pub(crate) async fn drained(&self) {
        drained(&self.app, "orders").await;
    }

    pub(crate) async fn dead_letter(&self, id: &str) -> Value {
        let path = format!("/v1/queues/orders/dead-letters/{id}");
        eventually("it is dead", async || {
            self.get(&path).await.status == StatusCode::OK
        })
        .await;
        self.get(&path).await.json()
    }
}

/// Makes a queue with a webhook; the webhook's secret.
pub(super) async fn hook(
    gateway: &Gateway,
    name: &str,
    url: &str,
    webhook: Value,
    queue: Value,
) -> String {
    let mut settings = json!({
        "backoff": {"initial_seconds": 0, "max_seconds": 60},
    });
    merge(&mut settings, &queue);
    gateway.queue(name, settings).await;
    let mut settings = json!({
        "url": url,
        "timeout_seconds": 20,
        "circuit_breaker": {"failure_rate": 1, "window": 1000, "min_calls": 1000},
    });
    merge(&mut settings, &webhook);
    let made = gateway
        .put(&format!("/v1/queues/{name}/webhook"), settings)
        .await
        .expect(StatusCode::CREATED);
    made["secret"].as_str().unwrap().to_owned()
}

fn merge(settings: &mut Value, more: &Value) {
    let more = more.as_object().cloned().unwrap_or_default();
    settings.as_object_mut().unwrap().extend(more);
}

/// Publishes so many messages, numbered from 0; their ids.
pub(super) async fn publish_many(gateway: &Gateway, queue: &str, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let bodies: Vec<usize> = (0..count).collect();
    for some in bodies.chunks(1000) {
        let messages: Vec<Value> = some.iter().map(|body| json!({"body": body})).collect();
        let answer = gateway
            .post(
                &format!("/v1/queues/{queue}/messages"),
                json!({"messages": messages}),
            )
            .await
            .expect(StatusCode::CREATED);
        let stored = answer["messages"].as_array().unwrap();
        ids.extend(stored.iter().map(|m| m["id"].as_str().unwrap().to_owned()));
    }
    ids
}

/// A page of attempts, the newest first.
pub(super) async fn attempts(gateway: &Gateway, queue: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/queues/{queue}/webhook/attempts?limit=1000&{query}");
    let list = gateway.get(&path).await.expect(StatusCode::OK);
    list["attempts"].as_array().unwrap().clone()
}

/// Waits until nothing is left in the queue.
pub(super) async fn drained(gateway: &Gateway, queue: &str) {
    let mut last = Value::Null;
    let empty = async {
        loop {
            last = gateway.counts(queue).await;
            if ["ready", "leased", "delayed"].iter().all(|c| last[c] == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(40), empty).await;
    in_time.unwrap_or_else(|_| panic!("{queue} is never empty"));
}

/// Whether a receiver that knows this secret takes the push.
pub(super) fn verifies(secret: &str, request: &Received) -> bool {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, value.parse().unwrap())
        })
        .collect();
    standardwebhooks::Webhook::new(secret)
        .unwrap()
        .verify(&request.body, &headers)
        .is_ok()
}

/// The id of the message that was pushed.
pub(super) fn pushed_id(request: &Received) -> &str {
    request.header("webhook-id").unwrap()
}
