//! Kills and restarts, of the gateway and of Postgres, under load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::load::{Load, make_queue, status_of};
use crate::support::{Database, Folder, Process, eventually, http_client, kill_postgres};

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
        kill_postgres(&data_dir);
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
    load.assert_stored_or_refused().await;
    eventually("it is ready", async || {
        status_of(&format!("{}/readyz", process.url)).await == 200
    })
    .await;
    load.check(&process.url).await;
}

/// Postgres then ends all its processes and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_killed_under_load_is_no_loss() {
    let database = Database::alone("killed").await;
    let process = Process::start(&["--database-url", &database.url()]);
    make_queue(&process.url).await;
    let load = Arc::new(Load::default());
    let clients = load.start(&process.url);
    for _ in 0..2 {
        let wanted = load.stored().await + 300;
        eventually("publishes work", async || load.stored().await >= wanted).await;
        let (pid,): (i32,) = sqlx::query_as(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'postrider' LIMIT 1",
        )
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let (killed, before) = (Instant::now(), load.stored().await);
        eventually("publishes work again", async || {
            load.stored().await > before + 50
        })
        .await;
        assert!(killed.elapsed() < Duration::from_secs(15));
    }
    load.end(clients).await;
    load.assert_stored_or_refused().await;
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
    load.assert_stored_or_refused().await;
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
