//! What cannot be published after the commit.

use reqwest::StatusCode;
use serde_json::json;
use sqlx::Row as _;

use super::{rows, run};
use crate::support::{App, Database, eventually};

const SOONER: &str = "UPDATE postrider.door_refused SET next_try_at = now()";

/// Reason and tries of all that is refused.
async fn refused(database: &Database) -> Vec<(String, i32)> {
    sqlx::query("SELECT reason, tries FROM postrider.door_refused ORDER BY id")
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_at_the_commit_stops_nobody_and_gets_its_messages_when_it_is_back() {
    let app = App::start().await;
    app.queue("a", json!({})).await;
    app.queue("b", json!({})).await;
    app.topic("t", json!({})).await;
    app.put(
        "/v1/topics/system.events/subscriptions/alerts",
        json!({"filter": {"routing_key": "door.#"}}),
    )
    .await
    .expect(StatusCode::CREATED);
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "BEGIN; SELECT postrider.publish('a', '1', headers => '{\"x\": \"y\"}', key => 'k'),
            postrider.publish_topic('t', '2'), postrider.publish('b', '3')",
    )
    .await;
    app.delete("/v1/queues/a")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.delete("/v1/topics/t")
        .await
        .expect(StatusCode::NO_CONTENT);
    run(&mut application, "COMMIT").await;
    assert_eq!(app.receive_one("b").await["body"], 3);
    eventually("two are refused", async || {
        rows(&app.database).await == (0, 2)
    })
    .await;
    let reasons: Vec<String> = refused(&app.database)
        .await
        .into_iter()
        .map(|r| r.0)
        .collect();
    assert_eq!(reasons, ["queue-not-found", "topic-not-found"]);
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = app.receive_one("system.events.alerts").await["body"].clone();
        told.push((event["reason"].clone(), event["to"].clone()));
    }
    told.sort_by_key(|(reason, _)| reason.to_string());
    told.dedup();
    assert_eq!(
        told,
        [
            (json!("queue-not-found"), json!("a")),
            (json!("topic-not-found"), json!("t"))
        ]
    );
    app.queue("a", json!({})).await;
    let message = app.receive_one("a").await;
    assert_eq!(
        (&message["body"], &message["headers"], &message["key"]),
        (&json!(1), &json!({"x": "y"}), &json!("k"))
    );
    eventually("one is left", async || rows(&app.database).await == (0, 1)).await;
    // It is tried again, ever more rarely, for as long as nobody takes it away.
    let tries = refused(&app.database).await[0].1;
    app.database.execute(SOONER).await;
    eventually("it was tried again", async || {
        refused(&app.database).await[0].1 > tries
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_gets_its_messages_when_there_is_room() {
    let app = App::start().await;
    app.queue("q", json!({"max_ready": 2})).await;
    app.queue("other", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', to_jsonb(n)) FROM generate_series(1, 5) AS n;
         SELECT postrider.publish('other', '6')",
    )
    .await;
    assert_eq!(app.receive_one("other").await["body"], 6);
    eventually("two have room, three have not", async || {
        rows(&app.database).await == (0, 3)
    })
    .await;
    for (reason, _) in refused(&app.database).await {
        assert_eq!(reason, "queue-full");
    }
    let mut got = Vec::new();
    while got.len() < 5 {
        let message = app.receive_one("q").await;
        got.push(message["body"].as_i64().unwrap());
        app.settle("ack", "q", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        app.database.execute(SOONER).await;
    }
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3, 4, 5]);
    assert_eq!(rows(&app.database).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_was_lowered_before_the_commit_holds() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "BEGIN; SELECT postrider.publish('q', to_jsonb(repeat('x', 1000))), postrider.publish('q', '1')",
    )
    .await;
    app.patch("/v1/queues/q", json!({"max_message_bytes": 100}))
        .await
        .expect(StatusCode::OK);
    run(&mut application, "COMMIT").await;
    assert_eq!(app.receive_one("q").await["body"], 1);
    let reasons = refused(&app.database).await;
    assert_eq!(reasons[0].0, "message-too-large");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_will_not_store_is_put_aside_by_itself() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    app.database
        .execute(
            "ALTER TABLE postrider.messages
                ADD CONSTRAINT no_thirteen CHECK (key IS DISTINCT FROM '13') NOT VALID",
        )
        .await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', to_jsonb(n), key => n::text) FROM generate_series(11, 15) AS n",
    )
    .await;
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(app.receive_one("q").await["body"].as_i64().unwrap());
    }
    assert_eq!(got, [11, 12, 14, 15]);
    assert_eq!(refused(&app.database).await[0].0, "internal");
    app.database
        .execute("ALTER TABLE postrider.messages DROP CONSTRAINT no_thirteen")
        .await;
    app.database.execute(SOONER).await;
    assert_eq!(app.receive_one("q").await["body"], 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_a_schema_is_refused_and_one_that_keeps_it_carries_the_version() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({})).await;
    for owner in ["queues/q", "topics/t"] {
        let path = format!("/v1/{owner}/schema");
        let schema = json!({"schema": {"type": "object", "required": ["order"]}});
        app.put(&path, schema).await.expect(StatusCode::CREATED);
    }
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', '{}'), postrider.publish_topic('t', '[]'),
            postrider.publish('q', '{\"order\": 1}'),
            postrider.publish_topic('t', '{\"order\": 2}')",
    )
    .await;
    for (queue, order) in [("q", 1), ("t.s", 2)] {
        let message = app.receive_one(queue).await;
        assert_eq!(message["body"]["order"], order);
        assert_eq!(message["schema_version"], 1);
    }
    eventually("two are refused", async || {
        rows(&app.database).await == (0, 2)
    })
    .await;
    for (reason, _) in refused(&app.database).await {
        assert_eq!(reason, "schema-violation");
    }
    let detail: String = sqlx::query_scalar("SELECT detail FROM postrider.door_refused LIMIT 1")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert!(detail.starts_with("version 1 of the schema: "), "{detail}");
    // Where it is taken out of force they are published.
    for owner in ["queues/q", "topics/t"] {
        app.delete(&format!("/v1/{owner}/schema"))
            .await
            .expect(StatusCode::NO_CONTENT);
    }
    app.database.execute(SOONER).await;
    for (queue, body) in [("q", json!({})), ("t.s", json!([]))] {
        assert_eq!(app.receive_one(queue).await["body"], body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_under_its_dedup_id_breaks_no_schema() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    let first = "SELECT postrider.publish('q', '1', dedup_id => 'd')";
    run(&mut application, first).await;
    app.receive_one("q").await;
    app.put("/v1/queues/q/schema", json!({"schema": {"type": "object"}}))
        .await
        .expect(StatusCode::CREATED);
    run(
        &mut application,
        "SELECT postrider.publish('q', '1', dedup_id => 'd'), postrider.publish('q', '{}')",
    )
    .await;
    assert_eq!(app.receive_one("q").await["body"], json!({}));
    assert_eq!(rows(&app.database).await, (0, 0));
}
