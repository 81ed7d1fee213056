//! `GET /v1/health/storage`, and what is told of it through `system.events`.

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::store::execute;
use crate::support::{App, Database, Gateway, config, eventually};

/// By then every gateway has looked at the storage, which it does every ten
/// seconds, and told what it found, for which it gathers a second.
const LOOKED: u32 = 13;

/// A session that calls itself so, in a transaction with a snapshot.
async fn holder(database: &Database, application: &str) -> (PgConnection, i64) {
    let mut session = database.connect().await;
    for sql in [
        format!("SET application_name = '{application}'"),
        "BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned(),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut session)
            .await
            .unwrap();
    }
    let (pid,): (i32,) = sqlx::query_as("SELECT pg_backend_pid() FROM postrider.queues")
        .fetch_optional(&mut session)
        .await
        .unwrap()
        .unwrap();
    (session, i64::from(pid))
}

pub(super) async fn health(gateway: &Gateway) -> Value {
    gateway
        .get("/v1/health/storage")
        .await
        .expect(StatusCode::OK)
}

/// The next event that is told, taken for good.
pub(super) async fn told(gateway: &Gateway) -> Value {
    let message = gateway.receive_one("alerts").await;
    gateway
        .settle("ack", "alerts", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    message["body"].clone()
}

/// The snapshot of that process, in the list.
fn of(health: &Value, pid: i64) -> Option<Value> {
    let all = health["snapshots"].as_array().unwrap();
    all.iter().find(|held| held["pid"] == pid).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_at_rest_is_well() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let health = health(&app).await;
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["warnings"], json!([]));
    assert_eq!(health["notes"], json!([]));
    assert_eq!(health["snapshot_warned_at"], Value::Null);
    let tables: Vec<&str> = health["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table["name"].as_str().unwrap())
        .collect();
    assert_eq!(tables, ["ready", "parked", "tallies", "queue_counts"]);
    let partitions = health["partitions"].as_array().unwrap();
    assert_eq!(partitions[0]["name"], "messages_0");
    assert_eq!(partitions[0]["kept_for"], "new_messages");
    assert_eq!(partitions[0]["alive"], 1);
    // Two looks, a second apart, make a rate.
    eventually("the log's rate is known", async || {
        self::health(&app).await["wal_bytes_per_second"].is_f64()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_snapshot_is_named_and_told_of_once_until_it_is_over() {
    let database = Database::migrated().await;
    let mut config = config(&database.url());
    // Longer than a statement of the gateways' own takes, on any machine.
    config.snapshot_age_warning_seconds = 3;
    // Two gateways, one warning.
    let gateway = Gateway::start(&config).await;
    let other = Gateway::start(&config).await;
    gateway.queue("alerts", json!({})).await;
    let filter = json!({"queue": "alerts", "filter": {"routing_key": "storage.#"}});
    gateway
        .put("/v1/topics/system.events/subscriptions/alerts", filter)
        .await
        .expect(StatusCode::CREATED);
    let (session, pid) = holder(&database, "monthly report").await;

    eventually("it is warned of", async || {
        health(&gateway).await["status"] == "warning"
    })
    .await;
    let report = health(&gateway).await;
    let held = &report["oldest_snapshot"];
    assert_eq!(held["pid"], pid, "{report}");
    assert_eq!(held["kind"], "session");
    assert_eq!(held["application"], "monthly report");
    assert_eq!(held["user"], "postgres");
    assert_eq!(held["client"], "127.0.0.1");
    assert_eq!(held["state"], "idle in transaction");
    assert!(held["age_seconds"].as_f64().unwrap() >= 3.0);
    let what_to_do = held["what_to_do"].as_str().unwrap();
    assert!(what_to_do.contains(&format!("pg_terminate_backend({pid})")));
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains("monthly report"), "{warning}");

    let event = told(&gateway).await;
    assert_eq!(event["event"], "storage.snapshot_held", "{event}");
    assert_eq!(event["pid"], pid);
    assert_eq!(event["application"], "monthly report");
    assert_eq!(event["threshold_seconds"], 3);
    assert_eq!(event.get("queue"), None);
    assert!(health(&other).await["snapshot_warned_at"].is_string());
    // The other has looked by then, and tells nothing.
    let again = gateway.receive("alerts", json!({"wait_seconds": LOOKED}));
    assert_eq!(again.await, [] as [Value; 0]);

    session.close().await.unwrap();
    eventually("it is gone", async || {
        of(&health(&gateway).await, pid).is_none()
    })
    .await;
    assert_eq!(
        told(&gateway).await,
        json!({"event": "storage.snapshot_released", "threshold_seconds": 3})
    );
    let again = gateway.receive("alerts", json!({"wait_seconds": LOOKED}));
    assert_eq!(again.await, [] as [Value; 0]);
    assert_eq!(health(&gateway).await["snapshot_warned_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_nobody_ends_is_named() {
    // On a server of its own: others' streams wait for transactions of any database.
    let app = App::start_on(Database::alone("prepared").await).await;
    app.queue("work", json!({})).await;
    let mut session = app.database.connect().await;
    let prepare = "BEGIN; DELETE FROM postrider.deleted_queues; SELECT pg_current_xact_id();
        PREPARE TRANSACTION 'half of it''s done'";
    sqlx::raw_sql(prepare).execute(&mut session).await.unwrap();
    session.close().await.unwrap();
    let report = health(&app).await;
    let all = report["snapshots"].as_array().unwrap();
    let held = all.iter().find(|held| held["kind"] == "prepared").unwrap();
    assert_eq!(held["name"], "half of it's done");
    let what_to_do = held["what_to_do"].as_str().unwrap();
    let end = "ROLLBACK PREPARED 'half of it''s done'";
    assert!(what_to_do.contains(end), "{what_to_do}");
    execute(&app.database, end).await;
    let report = health(&app).await;
    assert!(!report.to_string().contains("half of it"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_see_others_says_so() {
    let database = Database::empty().await;
    let (name, role) = (&database.name, format!("{}_role", database.name));
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT CREATE ON DATABASE {name} TO {role}"),
    ] {
        execute(&database, sql).await;
    }
    let gateway = Gateway::start(&config(&database.url_as(&role))).await;
    gateway.queue("work", json!({})).await;
    let (session, pid) = holder(&database, "unseen").await;
    let report = health(&gateway).await;
    assert!(of(&report, pid).is_none(), "{report}");
    let note = report["notes"][0].as_str().unwrap();
    let remedy = format!("GRANT pg_monitor TO \"{role}\"");
    assert!(note.contains(&remedy), "{note}");

    execute(&database, remedy).await;
    let report = health(&gateway).await;
    assert_eq!(report["notes"], json!([]));
    assert!(of(&report, pid).is_some(), "{report}");
    gateway.app.shut_down().await.unwrap();
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_says_whom_it_waits_for() {
    let database = Database::empty().await;
    let mut config = config(&database.url());
    config.partition_messages = 100;
    let gateway = Gateway::start(&config).await;
    gateway.queue("work", json!({})).await;
    let messages: Vec<Value> = (0..250).map(|n| json!({"body": n})).collect();
    gateway
        .post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let report = health(&gateway).await;
    let partitions = report["partitions"].as_array().unwrap();
    let sum: i64 = partitions
        .iter()
        .map(|p| p["alive"].as_i64().unwrap())
        .sum();
    assert_eq!(sum, 250, "{report}");
    assert_eq!(partitions[0]["kept_for"], "messages");
    assert_eq!(partitions.last().unwrap()["kept_for"], "new_messages");
    assert!(partitions[0]["bytes"].as_i64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_without_messages_are_kept_for_a_stream_or_for_nobody() {
    let database = Database::empty().await;
    let mut config = config(&database.url());
    config.partition_messages = 100;
    let gateway = Gateway::start(&config).await;
    gateway
        .topic("shop", json!({"retention_seconds": 3600}))
        .await;
    gateway.queue("work", json!({})).await;
    let retained: Vec<Value> = (0..100)
        .map(|n| json!({"body": n, "routing_key": "a"}))
        .collect();
    let worked_off: Vec<Value> = (0..250).map(|n| json!({"body": n})).collect();
    for (path, messages) in [
        ("/v1/topics/shop/messages", retained),
        ("/v1/queues/work/messages", worked_off),
    ] {
        let published = gateway.post(path, json!({"messages": messages})).await;
        published.expect(StatusCode::CREATED);
    }
    let received = gateway.receive("work", json!({"max_messages": 250})).await;
    assert_eq!(received.len(), 250);
    let receipts: Vec<&Value> = received.iter().map(|m| &m["receipt"]).collect();
    let acked = gateway.settle("ack", "work", &receipts, json!({})).await;
    acked.expect(StatusCode::OK);
    // Nobody's stay for a minute, until all who may have drawn their ids have ended.
    let report = health(&gateway).await;
    let partitions = report["partitions"].as_array().unwrap();
    let kept_for = |name: &str| {
        let it = partitions.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(it["alive"], 0, "{report}");
        it["kept_for"].clone()
    };
    assert_eq!(kept_for("messages_0"), "stream", "{report}");
    assert_eq!(kept_for("messages_200"), "nobody", "{report}");
}

/// Where the server's log is.
async fn log_position(database: &Database) -> f64 {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
    let mut connection = database.connect().await;
    sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_rate_is_at_least_what_was_published_and_at_most_what_was_written() {
    const BODIES: u32 = 8;
    let database = Database::migrated().await;
    let written = log_position(&database).await;
    let began = std::time::Instant::now();
    let app = App::start_on(database).await;
    app.queue("work", json!({})).await;
    health(&app).await;
    // What cannot be compressed, of 512 KiB each.
    let words = (0u32..1 << 16).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 29));
    let words: Vec<String> = words.map(|word| format!("{word:08x}")).collect();
    let body = words.concat();
    for _ in 0..BODIES {
        app.publish("work", json!({"body": body})).await;
    }
    let published = f64::from(BODIES) * 300.0 * 1024.0;
    let mut rate = 0.0;
    eventually("the log's rate is known", async || {
        let known = health(&app).await["wal_bytes_per_second"].as_f64();
        rate = known.unwrap_or_default();
        rate > 0.0
    })
    .await;
    // It is over no more than the gateway's life, and no less than a second.
    let least = published / began.elapsed().as_secs_f64();
    let most = log_position(&app.database).await - written;
    assert!((least..most).contains(&rate), "{least} {rate} {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_that_a_snapshot_keeps_are_told_of() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let (_session, _) = holder(&app.database, "reader").await;
    for body in 0..5 {
        app.publish("work", json!({"body": body})).await;
        let message = app.receive_one("work").await;
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    eventually("they are told of", async || {
        let report = health(&app).await;
        let dead = |name: &str| {
            let mut tables = report["tables"].as_array().unwrap().iter();
            let table = tables.find(|table| table["name"] == name).unwrap();
            table["dead_rows"].as_i64().unwrap()
        };
        // One for each, at least: a claim takes it from the one, an ack from the
        // other.
        dead("ready") >= 5 && dead("parked") >= 5
    })
    .await;
}
