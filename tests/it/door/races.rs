//! Late commits, two gateways, gateways and connections that die.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::{rows, run};
use crate::support::{App, Deadline, Gateway, eventually};

/// Takes all that is in the queue, until the door is empty; how often each body
/// came.
async fn drain(app: &App, gateway: &Gateway, queue: &str, count: usize) -> BTreeMap<i64, usize> {
    let mut got = BTreeMap::new();
    let deadline = Deadline::start();
    while got.len() < count {
        deadline.check(|| format!("{} of {count} came", got.len()));
        let path = format!("/v1/queues/{queue}/receive");
        let answer = gateway
            .post(&path, json!({"max_messages": 1000, "wait_seconds": 10}))
            .await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            // The last of the cut connections.
            continue;
        }
        let answer = answer.expect(StatusCode::OK);
        let messages = answer["messages"].as_array().unwrap();
        assert!(!messages.is_empty(), "{} of {count}", got.len());
        let receipts: Vec<_> = messages.iter().map(|m| &m["receipt"]).collect();
        for message in messages {
            *got.entry(message["body"].as_i64().unwrap()).or_default() += 1;
        }
        gateway
            .settle("ack", queue, &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
    }
    eventually("the door is empty", async || {
        rows(&app.database).await == (0, 0)
    })
    .await;
    assert_eq!(app.counts(queue).await["ready"], 0);
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_late_is_not_overlooked() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut late = Vec::new();
    for n in 0..4 {
        let mut application = app.database.connect().await;
        run(&mut application, "BEGIN").await;
        let call = format!("SELECT postrider.publish('q', '{n}')");
        run(&mut application, &call).await;
        late.push((n, application));
        // Later ones are committed and gone before it.
        let mut prompt = app.database.connect().await;
        let call = format!("SELECT postrider.publish('q', '{}')", 100 + n);
        run(&mut prompt, &call).await;
        assert_eq!(app.receive_one("q").await["body"], 100 + n);
    }
    // A heartbeat has looked too, and remembers what it has seen.
    let mut beat = app
        .app
        .store()
        .heartbeat(1, &std::collections::HashMap::new())
        .await
        .unwrap();
    assert!(!beat.door);
    for (n, mut application) in late.into_iter().rev() {
        run(&mut application, "SET LOCAL postrider.notify = off; COMMIT").await;
        assert_eq!(app.receive_one("q").await["body"], n);
        beat = app
            .app
            .store()
            .heartbeat(1, &std::collections::HashMap::new())
            .await
            .unwrap();
        assert!(!beat.door);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_move_each_message_once_whatever_dies() {
    const WRITERS: i64 = 6;
    const EACH: i64 = 60;
    let app = App::start().await;
    let other = app.another().await;
    app.queue("q", json!({})).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let mut application = app.database.connect().await;
        writers.spawn(async move {
            for n in 0..EACH {
                let body = (writer * EACH + n) * 2;
                let end = if n % 7 == 3 { "ROLLBACK" } else { "COMMIT" };
                run(
                    &mut application,
                    &format!(
                        "BEGIN; SELECT postrider.publish('q', '{body}'),
                            postrider.publish('q', '{}'); {end}",
                        body + 1
                    ),
                )
                .await;
            }
        });
    }
    // Meanwhile the gateways' connections are cut, again and again.
    let done = AtomicBool::new(false);
    let mut admin = app.database.connect().await;
    let killing = async {
        while !done.load(Ordering::Relaxed) {
            run(
                &mut admin,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'postrider'
                   AND pid <> pg_backend_pid()",
            )
            .await;
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    let writing = async {
        writers.join_all().await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(killing, writing);
    let rolled_back = (0..EACH).filter(|n| n % 7 == 3).count();
    let count =
        usize::try_from(WRITERS * EACH).unwrap() - rolled_back * usize::try_from(WRITERS).unwrap();
    let got = drain(&app, &other, "q", count * 2).await;
    assert_eq!(got.len(), count * 2);
    assert!(got.values().all(|times| *times == 1), "{got:?}");
    app.assert_conserved(&app.database, "q").await;
}
