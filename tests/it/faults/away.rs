//! Postgres out of reach, and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, App, Database, Gateway, Held, Link, Wire, config, eventually};

/// Readiness follows the database within so long.
const FOLLOWS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_calls_are_503_and_work_again_when_it_is_back() {
    let database = Database::migrated().await;
    let mut link = Link::to(&database).await;
    let gateway = Gateway::start(&config(link.url())).await;
    gateway.queue("work", json!({})).await;
    gateway.publish("work", json!({"body": 1})).await;

    let cut = Instant::now();
    link.cut().await;
    eventually("it is noticed", async || {
        gateway.get("/readyz").await.status == 503
    })
    .await;
    assert!(cut.elapsed() < FOLLOWS, "noticed after {:?}", cut.elapsed());
    gateway
        .get("/readyz")
        .await
        .expect_problem(503, "database-unavailable");
    gateway.get("/livez").await.expect(StatusCode::OK);
    for (path, body) in [
        ("/v1/queues/work/messages", json!({"body": 2})),
        ("/v1/queues/work/receive", json!({})),
        ("/v1/queues/work/purge", json!({})),
    ] {
        gateway
            .post(path, body)
            .await
            .expect_problem(503, "database-unavailable");
    }

    let mended = Instant::now();
    link.mend().await;
    eventually("it is ready", async || {
        gateway.get("/readyz").await.status == 200
    })
    .await;
    let after = mended.elapsed();
    assert!(after < FOLLOWS, "ready after {after:?}");
    // Nothing of what was refused is there, and what was stored before is.
    let messages = gateway
        .receive("work", json!({"max_messages": 10, "wait_seconds": 5}))
        .await;
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["body"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_hold_no_connection() {
    let app = Arc::new(App::start().await);
    app.queue("work", json!({})).await;
    let mut waiting = JoinSet::new();
    for _ in 0..200 {
        let app = Arc::clone(&app);
        waiting.spawn(async move { app.receive("work", json!({"wait_seconds": 10})).await });
    }
    app.until_waiting(200).await;
    // A pool of twelve, and none of it in use by them: a publish goes through.
    let published = tokio::time::timeout(
        Duration::from_secs(5),
        app.publish("work", json!({"body": 1})),
    );
    published.await.unwrap();
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first.len(), 1);
    let (connections,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    assert!(connections <= 12, "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_for_replies_hold_no_connection() {
    let app = Arc::new(App::start().await);
    app.queue("work", json!({})).await;
    let waiting_is = async |count: usize| {
        eventually("so many wait", async || {
            app.app.broker().replies().waiting() == count
        })
        .await;
    };
    let mut asking = JoinSet::new();
    for body in 0..200 {
        let app = Arc::clone(&app);
        asking.spawn(async move {
            let request = app
                .request(Method::POST, "/v1/queues/work/requests")
                .header("prefer", "wait=30")
                .header("content-type", "application/json")
                .body(json!({"body": body}).to_string());
            Answer::of(request).await
        });
    }
    // Each of them has had a connection to publish with, and given it back.
    eventually("all are published", async || {
        app.counts("work").await["ready"] == 200
    })
    .await;
    let message = app.receive_one("work").await;
    let id = message["correlation_id"].as_str().unwrap().to_owned();
    let mut reading = JoinSet::new();
    for _ in 0..50 {
        let app = Arc::clone(&app);
        let path = format!("/v1/replies/{id}?wait_seconds=30");
        reading.spawn(async move { app.get(&path).await });
    }
    waiting_is(250).await;
    // A pool of twelve, and none of it in use by them: a reply goes through, to all
    // who wait for this one and to nobody else.
    let reply = json!({"receipt": message["receipt"], "body": "done"});
    let replied = app.post("/v1/queues/work/reply", reply);
    let replied = tokio::time::timeout(Duration::from_secs(5), replied).await;
    replied.unwrap().expect(StatusCode::OK);
    for answer in reading.join_all().await {
        assert_eq!(answer.expect(StatusCode::OK)["body"], "done");
    }
    let asked = asking.join_next().await.unwrap().unwrap();
    assert_eq!(asked.expect(StatusCode::OK)["correlation_id"], id);
    waiting_is(199).await;
    let connections = crate::store::number(
        &app.database,
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    let connections = connections.await;
    assert!(connections <= 12, "{connections}");
}

/// A kind of session: what only it sends, and its time-outs of statements, of locks
/// and of transactions that do nothing.
type Kind = (&'static str, fn(&str) -> bool, [&'static str; 3]);

/// Nothing that they do takes longer.
const USUAL: [&str; 3] = ["30s", "10s", "1min"];

const KINDS: [Kind; 7] = [
    // Making an index takes as long as it takes.
    (
        "migrations",
        |sent| sent.contains("'postrider migrate'"),
        ["0", "10s", "1min"],
    ),
    (
        "vacuum",
        |sent| sent.starts_with("VACUUM"),
        ["10min", "10s", "1min"],
    ),
    ("hot pool", |sent| sent.starts_with("-- publish:"), USUAL),
    (
        "other pool",
        |sent| sent.contains("INSERT INTO postrider.gateways"),
        USUAL,
    ),
    ("listener", |sent| sent.starts_with("LISTEN"), USUAL),
    (
        "probe",
        |sent| sent.contains("'transaction_read_only'"),
        USUAL,
    ),
    ("watchdog", |sent| sent.contains("array_agg(pid)"), USUAL),
];

/// The time-outs that are in force after what a session has set.
async fn time_outs(database: &Database, session: &[String]) -> [String; 3] {
    let mut same = database.connect().await;
    let set = session
        .iter()
        .filter(|sent| sent.trim_start().starts_with("SET ") && !sent.starts_with("SET LOCAL"));
    for sent in set {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sent.clone()))
            .execute(&mut same)
            .await
            .unwrap();
    }
    sqlx::query_as::<_, (String, String, String)>(
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
            current_setting('idle_in_transaction_session_timeout')",
    )
    .fetch_one(&mut same)
    .await
    .unwrap()
    .into()
}

/// The server does not tell what others have set, so it is heard on the way.
#[tokio::test(flavor = "multi_thread")]
async fn every_session_sets_its_time_outs_before_it_does_anything() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    gateway.queue("work", json!({})).await;
    gateway.publish("work", json!({"body": 1})).await;
    gateway.get("/readyz").await.expect(StatusCode::OK);
    assert!(gateway.app.store().vacuum_hot_tables().await.unwrap());
    // What is stuck for two seconds is asked after.
    let held = Held::table(&database, "ready", "EXCLUSIVE").await;
    let watched = async {
        let kind = |what: &Kind| {
            let sent = |sent: &String| (what.1)(sent);
            wire.sessions().iter().any(|all| all.iter().any(sent))
        };
        eventually("there is a session of each kind", async || {
            KINDS.iter().all(kind)
        })
        .await;
        held.let_go().await;
    };
    tokio::join!(gateway.publish("work", json!({"body": 1})), watched);

    // A session that was just made may not have said anything.
    let sessions = wire.sessions().into_iter().filter(|all| !all.is_empty());
    for session in sessions {
        let first = session[0].trim_start();
        assert!(first.starts_with("SET application_name"), "{session:#?}");
        let is = |kind: &&Kind| session.iter().any(|sent| (kind.1)(sent));
        let (kind, _, expected) = KINDS.iter().find(is).unwrap_or(&("other", |_| true, USUAL));
        assert_eq!(time_outs(&database, &session).await, *expected, "{kind}");
    }
}
