//! Runs the rows: once with Postgres up, once with it down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::table::Row;
use crate::support::{Database, Gateway, Link, config, eventually};

/// What the rows are about.
pub(super) struct There {
    /// A receipt of `orders` that is good.
    pub(super) receipt: String,
    /// One of the same message's lease before.
    pub(super) older: String,
    /// One whose lease has run out, and whose message nobody has.
    pub(super) expired: String,
    /// A message of `orders`.
    pub(super) id: String,
}

async fn furnish(gateway: &Gateway) -> There {
    gateway
        .topic("shop", json!({"max_message_bytes": 10}))
        .await;
    gateway.topic(&"t".repeat(75), json!({})).await;
    let patient = json!({"backoff": {"initial_seconds": 0, "max_seconds": 0}});
    for queue in ["orders", "other", "work", "shop.taken"] {
        gateway.queue(queue, patient.clone()).await;
    }
    gateway
        .subscription("shop", "s", json!({"queue": "work"}))
        .await;
    // Away from queues whose messages would run out of attempts meanwhile.
    gateway
        .queue("slow", json!({"backoff": {"initial_seconds": 3600}}))
        .await;
    gateway.publish("slow", json!({"body": 1})).await;
    let short = gateway
        .receive("slow", json!({"lease_seconds": 0.05}))
        .await;
    let id = gateway.publish("orders", json!({"body": 1})).await;
    let first = gateway.receive_one("orders").await;
    gateway
        .settle(
            "nack",
            "orders",
            &[&first["receipt"]],
            json!({"delay_seconds": 0}),
        )
        .await
        .expect(reqwest::StatusCode::OK);
    let second = gateway
        .receive("orders", json!({"wait_seconds": 20, "lease_seconds": 3600}))
        .await;
    let text = |message: &Value| message["receipt"].as_str().unwrap().to_owned();
    eventually("its lease has run out", async || {
        let state = gateway.counts("slow").await;
        state["leased"] == 0
    })
    .await;
    There {
        receipt: text(&second[0]),
        older: text(&first),
        expired: text(&short[0]),
        id,
    }
}

/// What a database holds, for seeing that it holds the same as before.
async fn fingerprint(database: &Database) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT 'ready', count(*) FROM postrider.ready
         UNION ALL SELECT 'parked', count(*) FROM postrider.parked
         UNION ALL SELECT 'messages', count(*) FROM postrider.messages
         UNION ALL SELECT 'dead', count(*) FROM postrider.dead_letters
         UNION ALL SELECT 'dedup', count(*) FROM postrider.dedup
         UNION ALL SELECT 'stream', count(*) FROM postrider.stream
         UNION ALL SELECT 'webhooks', count(*) FROM postrider.webhooks
         UNION ALL SELECT 'queue ' || name, version FROM postrider.queues
         UNION ALL SELECT 'topic ' || name, version FROM postrider.topics
         UNION ALL SELECT 'subscription ' || name, version FROM postrider.subscriptions
         ORDER BY 1",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

/// Sends every row with Postgres up, then every row with it down: the answers
/// are those of the table, none takes long, and nothing is stored.
pub(super) async fn check(rows: impl FnOnce(&There) -> Vec<Row>) {
    let database = Database::migrated().await;
    let mut link = Link::to(&database).await;
    let gateway = Arc::new(Gateway::start(&config(link.url())).await);
    let rows = rows(&furnish(&gateway).await);
    let before = fingerprint(&database).await;
    run(&gateway, &rows, true).await;
    assert_eq!(fingerprint(&database).await, before);

    link.cut();
    let cut = Instant::now();
    eventually("what was known of Postgres is forgotten", async || {
        // What was read just before is good for two seconds.
        let is_old = cut.elapsed() > Duration::from_secs(2);
        let publish = gateway.post("/v1/queues/orders/messages", "{}").await;
        let topic = gateway.post("/v1/topics/shop/messages", "{}").await;
        is_old && publish.status == 503 && topic.status == 503
    })
    .await;
    let live = gateway.get("/livez").await;
    live.expect(reqwest::StatusCode::OK);
    run(&gateway, &rows, false).await;

    link.mend().await;
    eventually("it is back", async || {
        gateway.get("/readyz").await.status == 200
    })
    .await;
    assert_eq!(fingerprint(&database).await, before);
}

async fn run(gateway: &Arc<Gateway>, rows: &[Row], is_up: bool) {
    // Up, not more than there is room for; down, each takes some seconds and does
    // nothing.
    let turns = Arc::new(Semaphore::new(if is_up { 16 } else { 256 }));
    let mut running = JoinSet::new();
    for row in rows {
        let (gateway, turns) = (Arc::clone(gateway), Arc::clone(&turns));
        let row = row.clone();
        running.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            // The longest that anything may take is a body: 30 s.
            let limit = Duration::from_secs(45);
            match tokio::time::timeout(limit, row.answer(&gateway)).await {
                Ok(answer) => row.judge(&answer, is_up).err().map(|wrong| {
                    let text: String = answer.text.chars().take(300).collect();
                    format!("{wrong}: {}: {} {text}", row.name(), answer.status)
                }),
                Err(_) => Some(format!("no answer: {}", row.name())),
            }
        });
    }
    let wrong: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    let state = if is_up { "up" } else { "down" };
    assert!(
        wrong.is_empty(),
        "with Postgres {state} {} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}
