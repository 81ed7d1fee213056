//! Kills and restarts, of the gateway and of Postgres, under load.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::process::{Folder, Process};
use crate::support::{Database, eventually, http_client};

/// What a load of publishes brought about.
#[derive(Default)]
struct Load {
    next: AtomicU64,
    stop: AtomicBool,
    /// Body by id, for each 201.
    stored: Mutex<HashMap<String, u64>>,
    statuses: Mutex<HashMap<u16, usize>>,
}

impl Load {
    /// Publishes from eight clients until told to stop. A gateway that is away
    /// is tried again.
    fn start(self: &Arc<Self>, url: &str) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (load, url) = (Arc::clone(self), format!("{url}/v1/queues/work/messages"));
            clients.spawn(async move {
                let client = http_client();
                while !load.stop.load(Ordering::SeqCst) {
                    let body = load.next.fetch_add(1, Ordering::SeqCst);
                    let request = client
                        .post(&url)
                        .header("content-type", "application/json")
                        .body(json!({"body": body}).to_string())
                        .timeout(Duration::from_secs(20));
                    let Ok(response) = request.send().await else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    let status = response.status();
                    *load
                        .statuses
                        .lock()
                        .await
                        .entry(status.as_u16())
                        .or_default() += 1;
                    if status == StatusCode::CREATED
                        && let Ok(text) = response.text().await
                    {
                        let answer: Value = serde_json::from_str(&text).unwrap();
                        let id = answer["messages"][0]["id"].as_str().unwrap().to_owned();
                        load.stored.lock().await.insert(id, body);
                    } else if status == StatusCode::SERVICE_UNAVAILABLE {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        }
        clients
    }

    async fn stored(&self) -> usize {
        self.stored.lock().await.len()
    }

    async fn end(&self, mut clients: JoinSet<()>) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(result) = clients.join_next().await {
            result.unwrap();
        }
    }

    /// Receives everything and holds it against what was published: nothing
    /// that was acknowledged is lost, nothing comes that was never sent, and
    /// nothing comes twice.
    async fn check(&self, url: &str) {
        let client = http_client();
        let call = async |verb: &str, body: Value| -> Value {
            loop {
                let response = client
                    .post(format!("{url}/v1/queues/work/{verb}"))
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
                    .await
                    .unwrap();
                // A connection that the last fault killed, noticed only now.
                if response.status() != StatusCode::SERVICE_UNAVAILABLE {
                    assert_eq!(response.status(), StatusCode::OK);
                    return serde_json::from_str(&response.text().await.unwrap()).unwrap();
                }
            }
        };
        let mut received = HashMap::new();
        loop {
            let answer = call("receive", json!({"max_messages": 1000, "wait_seconds": 1})).await;
            let messages = answer["messages"].as_array().unwrap();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                let id = message["id"].as_str().unwrap().to_owned();
                let before = received.insert(id, message["body"].as_u64().unwrap());
                assert_eq!(before, None, "twice: {message}");
            }
            let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
            call("ack", json!({"receipts": receipts})).await;
        }
        let sent = self.next.load(Ordering::SeqCst);
        for (id, body) in self.stored.lock().await.iter() {
            assert_eq!(received.get(id), Some(body), "lost: {id}");
        }
        let bodies: HashSet<u64> = received.values().copied().collect();
        assert_eq!(bodies.len(), received.len(), "one publish was stored twice");
        assert!(bodies.iter().all(|body| *body < sent), "never published");
    }
}

async fn make_queue(url: &str) {
    let response = http_client()
        .put(format!("{url}/v1/queues/work"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

async fn status_of(url: &str) -> u16 {
    match http_client()
        .get(url)
        .timeout(Duration::from_secs(10))
        .send()
        .await
    {
        Ok(response) => response.status().as_u16(),
        Err(_) => 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_gateway_under_load_loses_no_acknowledged_publish() {
    let database = Database::migrated().await;
    let url = database.url();
    let load = Arc::new(Load::default());
    for round in 1..=3 {
        let process = Process::start(&["--database-url", &url]);
        if round == 1 {
            make_queue(&process.url).await;
        }
        let clients = load.start(&process.url);
        let wanted = load.stored().await + 500;
        eventually("some are stored", async || load.stored().await >= wanted).await;
        process.kill();
        load.end(clients).await;
        load.stop.store(false, Ordering::SeqCst);
    }
    let process = Process::start(&["--database-url", &url]);
    load.check(&process.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_postgres_under_load_heals_by_itself_with_503s_in_between() {
    let folder = Folder::new("crash");
    let data_dir = folder.path().join("data");
    let process = Process::start(&["--data-dir", data_dir.to_str().unwrap()]);
    make_queue(&process.url).await;
    let load = Arc::new(Load::default());
    let clients = load.start(&process.url);
    for _ in 0..3 {
        let wanted = load.stored().await + 300;
        eventually("some are stored", async || load.stored().await >= wanted).await;
        // An immediate shutdown: what was not flushed is gone.
        let pid_file = std::fs::read_to_string(data_dir.join("pg/postmaster.pid")).unwrap();
        let pid = Pid::from_raw(pid_file.lines().next().unwrap().parse().unwrap()).unwrap();
        kill_process(pid, Signal::QUIT).unwrap();
        let killed = Instant::now();
        let before = load.stored().await;
        eventually("publishes work again", async || {
            load.stored().await > before + 50
        })
        .await;
        assert!(
            killed.elapsed() < Duration::from_secs(15),
            "{:?}",
            killed.elapsed()
        );
        assert_eq!(status_of(&format!("{}/livez", process.url)).await, 200);
    }
    load.end(clients).await;
    let statuses = load.statuses.lock().await.clone();
    assert!(
        statuses.get(&503).is_some_and(|count| *count > 0),
        "{statuses:?}"
    );
    assert!(
        statuses.keys().all(|status| matches!(status, 201 | 503)),
        "{statuses:?}"
    );
    eventually("it is ready", async || {
        status_of(&format!("{}/readyz", process.url)).await == 200
    })
    .await;
    load.check(&process.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_sessions_under_load_heal_by_themselves() {
    let database = Database::migrated().await;
    let url = database.url();
    let process = Process::start(&["--database-url", &url]);
    make_queue(&process.url).await;
    let load = Arc::new(Load::default());
    let clients = load.start(&process.url);
    for _ in 0..5 {
        let wanted = load.stored().await + 200;
        eventually("publishes work", async || load.stored().await >= wanted).await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    }
    load.end(clients).await;
    let statuses = load.statuses.lock().await.clone();
    assert!(
        statuses.keys().all(|status| matches!(status, 201 | 503)),
        "{statuses:?}"
    );
    load.check(&process.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_every_request_in_hand_and_ends_within_ten_seconds() {
    let database = Database::migrated().await;
    let mut process = Process::start(&["--database-url", &database.url()]);
    make_queue(&process.url).await;

    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let url = format!("{}/v1/queues/work/receive", process.url);
        waiting.spawn(async move {
            let response = http_client()
                .post(url)
                .header("content-type", "application/json")
                .body(r#"{"wait_seconds": 60}"#)
                .send()
                .await
                .unwrap();
            (response.status(), response.text().await.unwrap())
        });
    }
    // A publish whose body is half there.
    let address = process.url.strip_prefix("http://").unwrap();
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    slow.write_all(
        b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
          Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"body\":",
    )
    .await
    .unwrap();
    eventually("all wait", async || {
        let (count,): (Option<i64>,) = sqlx::query_as(
            "SELECT sum(value::bigint)::bigint
             FROM postrider.gateways, jsonb_each_text(gateways.waiting)",
        )
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
        count == Some(50)
    })
    .await;

    process.signal(Signal::TERM);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(
            answer.unwrap(),
            (StatusCode::OK, "{\"messages\":[]}\n".to_owned())
        );
    }
    slow.write_all(b"12 }").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(process.ends_within(Duration::from_secs(10)).success());
}
