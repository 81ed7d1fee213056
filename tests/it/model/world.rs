//! What the model is held against: two gateways over a Postgres of their own.

use std::sync::atomic::{AtomicU32, Ordering};

use postrider::store::Store;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::queue::{BACKOFF, DEDUP_WINDOW, MESSAGE_TTL, Totals};
use super::steps::Settings;
use crate::support::{Answer, Database, Process, eventually, http_client};

pub(super) struct World {
    pub(super) database: Database,
    gateways: Vec<Option<Process>>,
    client: reqwest::Client,
    queue: String,
}

fn as_json(settings: &Settings) -> Value {
    json!({
        "max_attempts": settings.max_attempts,
        "delay_seconds": settings.delay,
        "message_ttl_seconds": MESSAGE_TTL,
        "dedup_window_seconds": DEDUP_WINDOW,
        "backoff": {"initial_seconds": BACKOFF[0], "multiplier": 3, "max_seconds": BACKOFF[2],
            "jitter": 0},
        "dead_letter": {"enabled": settings.dead_letters, "keep_expired": settings.keep_expired},
    })
}

impl World {
    pub(super) async fn start(sabotage: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("model-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let database = Database::alone(&name).await;
        let mut world = Self {
            database,
            gateways: vec![None, None],
            client: http_client(),
            queue: String::new(),
        };
        for gateway in 0..2 {
            world.begin(gateway).await;
        }
        world.database.execute(sabotage).await;
        world
    }

    async fn begin(&mut self, gateway: usize) {
        let url = self.database.url();
        self.gateways[gateway] = Some(Process::start(&["--database-url", &url]));
        self.is_ready(gateway).await;
    }

    async fn is_ready(&self, gateway: usize) {
        eventually("the gateway is ready", async || {
            let path = "/readyz".to_owned();
            let ready = self.ask(gateway, Method::GET, &path, None).await;
            ready.is_some_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }

    async fn ask(
        &self,
        gateway: usize,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<Answer> {
        let url = format!("{}{path}", self.gateways[gateway].as_ref()?.url);
        let mut request = self
            .client
            .request(method, url)
            .timeout(std::time::Duration::from_secs(30));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.ok()?;
        Some(Answer {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.text().await.ok()?,
        })
    }

    /// A new queue, which all is about from now on.
    pub(super) async fn furnish(&mut self, settings: &Settings) {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        self.queue = format!("q{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // A run before may have ended in the middle of a restart.
        for gateway in 0..2 {
            if self.gateways[gateway].is_none() {
                self.begin(gateway).await;
            }
            self.is_ready(gateway).await;
        }
        self.change(settings).await;
    }

    /// Asks a gateway something about the queue. What is not its answer, because
    /// there is none or it could not do its work, is a panic.
    pub(super) async fn call(&self, by: usize, method: Method, path: &str, body: Value) -> Answer {
        let path = format!("/v1/queues/{}{path}", self.queue);
        let body = (!body.is_null()).then_some(body);
        let answer = self.ask(by, method, &path, body).await;
        let answer = answer.unwrap_or_else(|| panic!("no answer from {path}"));
        assert!(!answer.status.is_server_error(), "{path}: {answer:?}");
        answer
    }

    pub(super) async fn post(&self, by: usize, path: &str, body: Value) -> Answer {
        self.call(by, Method::POST, path, body).await
    }

    /// At both, so that neither goes by what it has remembered for a second.
    pub(super) async fn change(&self, settings: &Settings) {
        for by in 0..2 {
            let put = self.call(by, Method::PUT, "", as_json(settings)).await;
            assert!(put.status.is_success(), "{put:?}");
        }
    }

    pub(super) async fn kill(&mut self, gateway: usize) {
        self.gateways[gateway].take().unwrap().kill();
        self.begin(gateway).await;
    }

    pub(super) async fn stop(&mut self, gateway: usize) {
        let process = self.gateways[gateway].take().unwrap();
        tokio::task::spawn_blocking(move || process.stop())
            .await
            .unwrap();
        self.begin(gateway).await;
    }

    /// Kills a backend; Postgres ends all others then, and recovers.
    pub(super) async fn crash(&self) {
        let mut connection = self.database.connect().await;
        let (pid,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Whatever is connected is at its end when this is.
        while sqlx::query("SELECT").execute(&mut connection).await.is_ok() {}
        for by in 0..2 {
            self.is_ready(by).await;
            self.is_warm(by).await;
        }
    }

    /// Waits until nothing that the crash has cut is in use: some calls in a row
    /// that come back.
    async fn is_warm(&self, by: usize) {
        let mut good = 0;
        eventually("connections are good", async || {
            let path = format!("/v1/queues/warm-{by}");
            let mut fine = true;
            for (method, path, body) in [
                (Method::PUT, path.clone(), json!({})),
                (Method::POST, format!("{path}/messages"), json!({"body": 1})),
                (
                    Method::POST,
                    format!("{path}/receive"),
                    json!({"max_messages": 1000}),
                ),
                (Method::POST, format!("{path}/purge"), json!({})),
                (Method::GET, path, Value::Null),
            ] {
                let body = (!body.is_null()).then_some(body);
                let answer = self.ask(by, method, &path, body).await;
                fine &= answer.is_some_and(|answer| answer.status.is_success());
            }
            good = if fine { good + 1 } else { 0 };
            good >= 8
        })
        .await;
    }

    /// Moves everything of the queue so far into the past, and waits until the
    /// gateways have dealt with what is due. A wake time is not moved below now:
    /// none was there before, and gateways look from where they have been.
    pub(super) async fn pass(&self, seconds: u64) {
        let queue = format!(
            "(SELECT id FROM postrider.queues WHERE name = '{}')",
            self.queue
        );
        let ago = format!("interval '{seconds} s'");
        self.database
            .execute(&format!(
                "BEGIN;
                 UPDATE postrider.parked SET wake_at = greatest(wake_at - {ago}, now()),
                     expires_at = expires_at - {ago} WHERE queue_id = {queue};
                 UPDATE postrider.ready SET expires_at = expires_at - {ago} WHERE queue_id = {queue};
                 UPDATE postrider.dedup SET expires_at = expires_at - {ago} WHERE queue_id = {queue};
                 COMMIT"
            ))
            .await;
        let due = format!(
            "SELECT (SELECT count(*) FROM postrider.parked
                 WHERE queue_id = {queue} AND wake_at <= now())
               + (SELECT count(*) FROM postrider.ready
                 WHERE queue_id = {queue} AND expires_at <= now())"
        );
        let mut connection = self.database.connect().await;
        eventually("what is due is dealt with", async || {
            let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(due.clone()));
            query.fetch_one(&mut connection).await.unwrap() == 0
        })
        .await;
    }

    /// All that was ever done with the queue, as the database counts.
    pub(super) async fn totals(&self) -> Totals {
        let store = self.database.store(Store::PARTITION_SIZE);
        while store.fold().await.unwrap() {}
        store.close().await;
        let row: (i64, i64, i64, i64, i64, i64, i64, i64) = sqlx::query_as(
            "SELECT published, delivered, acked, failed, nacked, dead_lettered, expired, removed
             FROM postrider.queue_counts JOIN postrider.queues ON id = queue_id
             WHERE name = $1",
        )
        .bind(&self.queue)
        .fetch_one(&mut self.database.connect().await)
        .await
        .unwrap();
        let (published, delivered, acked, failed, nacked, dead_lettered, expired, removed) = row;
        Totals {
            published,
            delivered,
            acked,
            failed,
            nacked,
            dead_lettered,
            expired,
            removed,
        }
    }
}
