//! API keys: the endpoints, and what they let through.

pub(super) mod lives;
mod names;
mod random;
mod reading;
mod there;
mod walk;

use postrider::config::{Auth, Config};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Database, Gateway, config};

/// A gateway that asks for keys.
pub(super) struct Guarded {
    pub(super) database: Database,
    pub(super) gateway: Gateway,
    /// The key that the first start made.
    admin: String,
}

fn guarded(database: &Database) -> Config {
    Config {
        auth: Auth::Required,
        ..config(&database.url())
    }
}

impl Guarded {
    pub(super) async fn start() -> Self {
        let database = Database::migrated().await;
        let gateway = Gateway::start(&guarded(&database)).await;
        let admin = gateway.app.admin_key().expect("the first start").to_owned();
        Self {
            database,
            gateway,
            admin,
        }
    }

    /// Another gateway over the same database.
    async fn another(&self) -> Gateway {
        let gateway = Gateway::start(&guarded(&self.database)).await;
        assert_eq!(gateway.app.admin_key(), None, "it is shown once");
        gateway
    }

    pub(super) async fn as_admin(&self, method: Method, path: &str, json: Value) -> Answer {
        with_key(&self.gateway, &self.admin, method, path, Some(json)).await
    }

    /// Makes a key; the answer.
    async fn make(&self, request: Value) -> Value {
        let made = self.as_admin(Method::POST, "/v1/keys", request).await;
        made.expect(StatusCode::CREATED)
    }

    /// A key with these scopes.
    pub(super) async fn key(&self, scopes: &[&str]) -> String {
        let made = self.make(json!({"name": "test", "scopes": scopes})).await;
        made["key"].as_str().unwrap().to_owned()
    }
}

/// A request with a key.
pub(super) async fn with_key(
    gateway: &Gateway,
    key: &str,
    method: Method,
    path: &str,
    json: Option<Value>,
) -> Answer {
    let mut request = gateway.request(method, path).bearer_auth(key);
    if let Some(json) = json {
        request = request
            .header("content-type", "application/json")
            .body(json.to_string());
    }
    Answer::of(request).await
}

/// What a key may list: the simplest question that needs one.
async fn ask(gateway: &Gateway, key: &str) -> Answer {
    with_key(gateway, key, Method::GET, "/v1/queues", None).await
}
