//! A database that takes no writes for a while, as one does that was a primary
//! until a fail-over.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::store::execute;
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_flip_is_noticed_and_so_is_its_end() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let name = app.database.name.clone();

    // Sessions keep what they began with, as they keep to a server: only a new
    // connection sees the change, in both directions.
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    execute(&app.database, set).await;
    end_sessions(&app).await;
    let flipped = Instant::now();
    eventually("it is not ready", async || {
        app.get("/readyz").await.status == 503
    })
    .await;
    assert!(flipped.elapsed() < Duration::from_secs(5));
    let problem = app.get("/readyz").await;
    let problem = problem.expect_problem(503, "database-unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("read-only"));
    for (path, body) in [
        ("/v1/queues/work/messages", json!({"body": 2})),
        ("/v1/queues/work/receive", json!({})),
        ("/v1/queues/work/purge", json!({})),
    ] {
        let answer = app.post(path, body).await;
        answer.expect_problem(503, "database-unavailable");
    }
    assert_eq!(app.get("/livez").await.status, 200);

    let mut admin = app.database.connect().await;
    for sql in [
        "SET default_transaction_read_only = off".to_owned(),
        format!("ALTER DATABASE {name} RESET default_transaction_read_only"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut admin)
            .await
            .unwrap();
    }
    let flipped = Instant::now();
    eventually("it is ready", async || {
        app.get("/readyz").await.status == 200
    })
    .await;
    eventually("publishes work", async || {
        let answer = app.post("/v1/queues/work/messages", json!({"body": 3}));
        answer.await.status == 201
    })
    .await;
    assert!(flipped.elapsed() < Duration::from_secs(5));
    // Not one connection leads to what takes no writes.
    for n in 0..50 {
        app.publish("work", json!({"body": n})).await;
    }
    let messages = app.receive("work", json!({"max_messages": 100})).await;
    assert_eq!(messages.len(), 52);
    app.assert_conserved(&app.database, "work").await;
}

async fn end_sessions(app: &App) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&app.database, end).await;
}
