//! A loop that consumes, transforms and produces, by transactions, while consumers,
//! gateways and Postgres are killed: exactly one output for each input.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Database, Folder, Process, eventually, http_client, kill_postgres};

/// Asks the gateway that is there now, until it answers other than 503.
async fn call(url: &Mutex<String>, path: &str, key: Option<&str>, json: &Value) -> (u16, Value) {
    let client = http_client();
    loop {
        let to = format!("{}{path}", url.lock().unwrap());
        let mut request = client
            .post(to)
            .header("content-type", "application/json")
            .timeout(Duration::from_secs(20))
            .body(json.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Ok(response) = request.send().await {
            let status = response.status().as_u16();
            if status != 503
                && let Ok(text) = response.text().await
            {
                return (status, serde_json::from_str(&text).unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Takes inputs and makes an output of each. One that does not know whether it is
/// done either asks again, with a key, or leaves it: it will come again, or not.
async fn consume(url: Arc<Mutex<String>>, with_key: bool) {
    loop {
        let wish = json!({"max_messages": 3, "wait_seconds": 1, "lease_seconds": 1.5});
        let (status, answer) = call(&url, "/v1/queues/in/receive", None, &wish).await;
        assert_eq!(status, 200, "{answer}");
        let messages = answer["messages"].as_array().unwrap();
        if messages.is_empty() {
            continue;
        }
        let acks: Vec<Value> = messages
            .iter()
            .map(|message| json!({"queue": "in", "receipt": message["receipt"]}))
            .collect();
        let outputs: Vec<Value> = messages
            .iter()
            .map(|message| json!({"queue": "out", "message": {"body": message["body"]}}))
            .collect();
        let steps = json!({"acks": acks, "publishes": outputs});
        if with_key {
            let key = acks[0]["receipt"].as_str().unwrap();
            let (status, answer) = call(&url, "/v1/transactions", Some(key), &steps).await;
            let code = answer["code"].as_str().unwrap_or_default();
            assert!(status == 200 || status == 409, "{status} {code}: {answer}");
        } else {
            let to = format!("{}/v1/transactions", url.lock().unwrap());
            let request = http_client()
                .post(to)
                .header("content-type", "application/json")
                .body(steps.to_string());
            // Whatever becomes of it.
            let _ = request.send().await;
        }
    }
}

/// Consumers that can be killed.
struct Consumers {
    url: Arc<Mutex<String>>,
    /// One task each.
    all: Vec<JoinSet<()>>,
}

impl Consumers {
    fn start(url: &Arc<Mutex<String>>) -> Self {
        Self {
            url: Arc::clone(url),
            all: (0..6).map(|n| Self::one(url, n)).collect(),
        }
    }

    fn one(url: &Arc<Mutex<String>>, n: usize) -> JoinSet<()> {
        let mut task = JoinSet::new();
        task.spawn(consume(Arc::clone(url), n.is_multiple_of(2)));
        task
    }

    /// One is killed, wherever it is, and another starts.
    async fn kill_one(&mut self, n: usize) {
        let at = n % self.all.len();
        let again = Self::one(&self.url, n);
        Self::kill(std::mem::replace(&mut self.all[at], again)).await;
    }

    async fn kill(mut task: JoinSet<()>) {
        task.abort_all();
        let ended = task.join_next().await.unwrap();
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }

    async fn end(self) {
        for consumer in self.all {
            Self::kill(consumer).await;
        }
    }
}

async fn furnish(url: &Mutex<String>, inputs: usize) {
    let settings = json!({"max_attempts": 1000,
        "backoff": {"initial_seconds": 0, "max_seconds": 0}});
    for queue in ["in", "out"] {
        let to = format!("{}/v1/queues/{queue}", url.lock().unwrap());
        let made = http_client()
            .put(to)
            .header("content-type", "application/json")
            .body(settings.to_string())
            .send();
        assert_eq!(made.await.unwrap().status(), StatusCode::CREATED);
    }
    let messages: Vec<Value> = (0..inputs).map(|n| json!({ "body": n })).collect();
    let (status, answer) = call(
        url,
        "/v1/queues/in/messages",
        Some("inputs"),
        &json!({ "messages": messages }),
    )
    .await;
    assert_eq!(status, 201, "{answer}");
}

/// How many of a queue there are; nothing while nobody answers.
async fn counts(url: &Mutex<String>, queue: &str) -> Option<Value> {
    let to = format!("{}/v1/queues/{queue}", url.lock().unwrap());
    let response = http_client().get(to).send().await.ok()?;
    let text = response.text().await.ok()?;
    serde_json::from_str(&text).ok()
}

async fn ready(url: &Mutex<String>) -> u64 {
    let counts = counts(url, "out").await;
    counts.and_then(|c| c["ready"].as_u64()).unwrap_or(0)
}

/// Each input has one output, and is done with.
async fn check(url: &Mutex<String>, inputs: usize) {
    eventually("all inputs are done with", async || {
        let left = counts(url, "in").await;
        left.is_some_and(|c| {
            ["ready", "leased", "delayed", "dead"]
                .iter()
                .all(|state| c[state] == 0)
        })
    })
    .await;
    let mut outputs: HashMap<u64, usize> = HashMap::new();
    loop {
        let wish = json!({"max_messages": 1000, "lease_seconds": 3600});
        let (status, answer) = call(url, "/v1/queues/out/receive", None, &wish).await;
        assert_eq!(status, 200, "{answer}");
        let messages = answer["messages"].as_array().unwrap();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            *outputs
                .entry(message["body"].as_u64().unwrap())
                .or_default() += 1;
        }
    }
    let more: Vec<_> = outputs.iter().filter(|(_, times)| **times != 1).collect();
    assert!(more.is_empty(), "more than one output: {more:?}");
    assert_eq!(outputs.len(), inputs);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_consumers_and_gateways_leaves_one_output_for_each_input() {
    const INPUTS: usize = 600;
    let database = Database::migrated().await;
    let database_url = database.url();
    let start = || Process::start(&["--database-url", &database_url]);
    let mut gateway = start();
    let url = Arc::new(Mutex::new(gateway.url.clone()));
    furnish(&url, INPUTS).await;
    let mut consumers = Consumers::start(&url);
    for n in 1..=12 {
        let wanted = u64::try_from(n * INPUTS / 14).unwrap();
        eventually("outputs come", async || ready(&url).await >= wanted).await;
        consumers.kill_one(n).await;
        if n % 4 == 0 {
            gateway.kill();
            gateway = start();
            url.lock().unwrap().clone_from(&gateway.url);
        }
    }
    check_while(consumers, &url, INPUTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_postgres_leave_one_output_for_each_input() {
    const INPUTS: usize = 400;
    let folder = Folder::new("steps");
    let data_dir = folder.path().join("data");
    let process = Process::start(&["--data-dir", data_dir.to_str().unwrap()]);
    let url = Arc::new(Mutex::new(process.url.clone()));
    furnish(&url, INPUTS).await;
    let mut consumers = Consumers::start(&url);
    for n in 1..=3 {
        let wanted = u64::try_from(n * INPUTS / 5).unwrap();
        eventually("outputs come", async || ready(&url).await >= wanted).await;
        consumers.kill_one(n).await;
        kill_postgres(&data_dir);
    }
    check_while(consumers, &url, INPUTS).await;
}

/// The consumers work until all is done.
async fn check_while(consumers: Consumers, url: &Mutex<String>, inputs: usize) {
    eventually("there is an output for each input", async || {
        ready(url).await >= u64::try_from(inputs).unwrap()
    })
    .await;
    check(url, inputs).await;
    consumers.end().await;
}
