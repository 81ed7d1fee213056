//! The gateway on a random port, and a client for it.

use std::time::Duration;

use postrider::app;
use postrider::config::{Auth, Config, LogFormat, LogRequests, Server};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::Database;

/// A gateway over a database of its own.
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) gateway: Gateway,
}

impl std::ops::Deref for App {
    type Target = Gateway;
    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::start_on(Database::migrated().await).await
    }

    pub(crate) async fn start_on(database: Database) -> Self {
        let gateway = Gateway::start(&config(&database.url())).await;
        Self { database, gateway }
    }

    /// Another gateway over the same database.
    pub(crate) async fn another(&self) -> Gateway {
        Gateway::start(&config(&self.database.url())).await
    }
}

/// What a gateway of a test is given.
pub(crate) fn config(database_url: &str) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth: Auth::Off,
        failed_logins_per_minute: 10_000.try_into().unwrap(),
        data_dir: "unused".into(),
        data_dir_is_default: false,
        database_url: Some(database_url.parse().unwrap()),
        database_connections: 12,
        pg_bin: None,
        partition_messages: postrider::store::Store::PARTITION_SIZE,
        secret_key_file: Some(
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/secret.key").into(),
        ),
        webhook_allow: vec!["127.0.0.0/8".parse().unwrap()],
        backlog_high: 100_000,
        snapshot_age_warning_seconds: 300,
        push_attempt_days: 30,
        max_requests: 4096,
        body_memory_mib: 128,
        metrics_queues: 500,
        log: "off".into(),
        log_format: LogFormat::Human,
        log_requests: LogRequests::Off,
        drain_seconds: 5,
        server: Server::default(),
    }
}

/// A client for the gateway itself.
#[expect(clippy::disallowed_methods, reason = "tests ask what they please")]
pub(crate) fn http_client() -> reqwest::Client {
    // reqwest takes the process's; a second one is refused, and is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// A running gateway, in this process.
pub(crate) struct Gateway {
    pub(crate) app: app::App,
    client: reqwest::Client,
}

impl Gateway {
    pub(crate) async fn start(config: &Config) -> Self {
        // reqwest leaves the choice to the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let app = app::App::start(config).await.unwrap();
        Self {
            app,
            client: http_client(),
        }
    }

    /// A URL of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.address())
    }

    /// A request to it.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, self.url(path))
            .timeout(Duration::from_secs(90))
    }

    /// Sends JSON, as it is written.
    pub(crate) async fn send(&self, method: Method, path: &str, json: impl ToString) -> Answer {
        let request = self
            .request(method, path)
            .header("content-type", "application/json")
            .body(json.to_string());
        Answer::of(request).await
    }

    pub(crate) async fn post(&self, path: &str, json: impl ToString) -> Answer {
        self.send(Method::POST, path, json).await
    }

    pub(crate) async fn put(&self, path: &str, json: impl ToString) -> Answer {
        self.send(Method::PUT, path, json).await
    }

    pub(crate) async fn patch(&self, path: &str, json: impl ToString) -> Answer {
        self.send(Method::PATCH, path, json).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// Waits until so many receivers wait here.
    pub(crate) async fn until_waiting(&self, receivers: usize) {
        eventually("they wait", async || {
            self.app.broker().waiting().values().sum::<usize>() == receivers
        })
        .await;
    }

    /// Waits until it and another know of each other, and send each other hints.
    pub(crate) async fn until_acquainted(&self, other: &Self) {
        eventually("the gateways know of each other", async || {
            self.app.broker().hints().others() && other.app.broker().hints().others()
        })
        .await;
    }

    /// Makes a queue with these settings.
    pub(crate) async fn queue(&self, name: &str, settings: Value) {
        self.put(&format!("/v1/queues/{name}"), settings)
            .await
            .expect(StatusCode::CREATED);
    }

    /// Makes a topic with these settings.
    pub(crate) async fn topic(&self, name: &str, settings: Value) {
        self.put(&format!("/v1/topics/{name}"), settings)
            .await
            .expect(StatusCode::CREATED);
    }

    /// Makes a subscription.
    pub(crate) async fn subscription(&self, topic: &str, name: &str, subscription: Value) {
        let path = format!("/v1/topics/{topic}/subscriptions/{name}");
        self.put(&path, subscription)
            .await
            .expect(StatusCode::CREATED);
    }

    /// Publishes to a topic; its answer for the first message.
    pub(crate) async fn publish_topic(&self, topic: &str, message: Value) -> Value {
        let answer = self
            .post(&format!("/v1/topics/{topic}/messages"), message)
            .await;
        answer.expect(StatusCode::CREATED)["messages"][0].clone()
    }

    /// Publishes one message and answers with its id.
    pub(crate) async fn publish(&self, queue: &str, message: Value) -> String {
        let answer = self
            .post(&format!("/v1/queues/{queue}/messages"), message)
            .await;
        answer.expect(StatusCode::CREATED)["messages"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Receives messages.
    pub(crate) async fn receive(&self, queue: &str, request: Value) -> Vec<Value> {
        let answer = self
            .post(&format!("/v1/queues/{queue}/receive"), request)
            .await;
        answer.expect(StatusCode::OK)["messages"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// Receives exactly one message, waiting for it.
    pub(crate) async fn receive_one(&self, queue: &str) -> Value {
        let mut messages = self
            .receive(queue, serde_json::json!({"wait_seconds": 20}))
            .await;
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// Settles receipts (`ack`, `nack`, `extend`), with more fields if need be.
    pub(crate) async fn settle(
        &self,
        verb: &str,
        queue: &str,
        receipts: &[&Value],
        more: Value,
    ) -> Answer {
        let mut request = serde_json::json!({"receipts": receipts});
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap_or_default());
        self.post(&format!("/v1/queues/{queue}/{verb}"), request)
            .await
    }

    /// The queue with its counts.
    pub(crate) async fn counts(&self, queue: &str) -> Value {
        self.get(&format!("/v1/queues/{queue}"))
            .await
            .expect(StatusCode::OK)
    }

    /// The sum that must always hold: what was published is somewhere.
    pub(crate) async fn assert_conserved(&self, database: &Database, queue: &str) {
        while self.app.store().fold().await.unwrap() {}
        let row: (i64, i64, i64, i64, i64) = sqlx::query_as(
            "SELECT c.published - c.ready - c.leased - c.delayed - c.dead - c.acked - c.expired
                    - c.removed,
                c.ready - (SELECT count(*) FROM postrider.ready WHERE queue_id = q.id)
                    - (SELECT count(*) FROM postrider.lined_up
                        WHERE queue_id = q.id AND NOT is_out),
                c.leased - (SELECT count(*) FROM postrider.parked
                    WHERE queue_id = q.id AND token <> 0),
                c.delayed - (SELECT count(*) FROM postrider.parked
                    WHERE queue_id = q.id AND token = 0),
                c.dead - (SELECT count(*) FROM postrider.dead_letters WHERE queue_id = q.id)
             FROM postrider.queues q JOIN postrider.queue_counts c ON c.queue_id = q.id
             WHERE q.name = $1",
        )
        .bind(queue)
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
        assert_eq!(
            row,
            (0, 0, 0, 0, 0),
            "(sum, ready, leased, delayed, dead) are off by"
        );
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        Self {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body, if the status is this one.
    #[track_caller]
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// The body, if it is a well-made problem of this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(
            problem["request_id"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
        if matches!(status, 429 | 503) {
            assert!(self.headers.contains_key("retry-after"), "{self:?}");
        }
        problem
    }
}

/// What may take long, but not for ever: a loop that waits for something that is lost.
pub(crate) struct Deadline(std::time::Instant);

impl Deadline {
    /// Two minutes from now.
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now() + Duration::from_mins(2))
    }

    /// Panics if it is over, and says what is missing.
    #[track_caller]
    pub(crate) fn check(&self, missing: impl FnOnce() -> String) {
        assert!(
            std::time::Instant::now() < self.0,
            "after two minutes: {}",
            missing()
        );
    }
}

/// Waits until the condition holds; panics after 30 s.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition().await {
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "never came true: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
