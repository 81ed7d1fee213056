//! Runs the rows: once with Postgres up, once with it down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::config::Config;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::table::Row;
use crate::support::{Answer, Database, Gateway, Link, config, eventually};

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
    /// A dead letter of `revived` until it was put back.
    pub(super) revived: String,
}

/// A message that died and was put back, which takes it once.
async fn revived(gateway: &Gateway) -> String {
    gateway.queue("revived", json!({})).await;
    let id = gateway.publish("revived", json!({"body": 1})).await;
    let message = gateway.receive_one("revived").await;
    let bury = json!({"dead_letter": true});
    gateway
        .settle("nack", "revived", &[&message["receipt"]], bury)
        .await
        .expect(StatusCode::OK);
    let redrive = "/v1/queues/revived/dead-letters/redrive";
    let redriven = gateway.post(redrive, json!({"ids": [id]})).await;
    assert_eq!(redriven.expect(StatusCode::OK)["ids"], json!([id]));
    id
}

/// A queue with a webhook, to which nothing is pushed.
async fn pushed(gateway: &Gateway) {
    gateway.queue("pushed", json!({})).await;
    // Whatever the gateway allows it may be pushed to a public address.
    let hook = json!({"url": "https://1.1.1.1/hook"});
    gateway
        .put("/v1/queues/pushed/webhook", hook)
        .await
        .expect(StatusCode::CREATED);
    gateway
        .post("/v1/queues/pushed/webhook/pause", "")
        .await
        .expect(StatusCode::OK);
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
    gateway.queue("checked", json!({})).await;
    let schema = json!({"schema": {"type": "integer"}});
    let put = gateway.put("/v1/queues/checked/schema", &schema).await;
    put.expect(StatusCode::CREATED);
    gateway.topic("checked", json!({})).await;
    let put = gateway.put("/v1/topics/checked/schema", schema).await;
    put.expect(StatusCode::CREATED);
    // Paused: whenever this runs, it does not fire.
    let yearly = json!({"cron": "@yearly", "queue": "orders", "message": {"body": 1},
        "paused": true});
    let put = gateway.put("/v1/schedules/yearly", yearly).await;
    put.expect(StatusCode::CREATED);
    let revived = revived(gateway).await;
    pushed(gateway).await;
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
        .expect(StatusCode::OK);
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
        revived,
    }
}

/// What a database holds, for seeing that it holds the same as before: all that a
/// request can add to or change.
async fn fingerprint(database: &Database) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT 'ready', count(*) FROM postrider.ready
         UNION ALL SELECT 'parked', count(*) FROM postrider.parked
         UNION ALL SELECT 'messages', count(*) FROM postrider.messages
         UNION ALL SELECT 'dead', count(*) FROM postrider.dead_letters
         UNION ALL SELECT 'dedup', count(*) FROM postrider.dedup
         UNION ALL SELECT 'stream', count(*) FROM postrider.stream
         UNION ALL SELECT 'replies', count(*) FROM postrider.replies
         UNION ALL SELECT 'claims', count(*) FROM postrider.claims
         UNION ALL SELECT 'schemas', count(*) FROM postrider.schemas
         UNION ALL SELECT 'attempts', count(*) FROM postrider.attempts
         UNION ALL SELECT 'push attempts', count(*) FROM postrider.push_attempts
         UNION ALL SELECT 'lined up', count(*) FROM postrider.lined_up
         UNION ALL SELECT 'turns', count(*) FROM postrider.turns
         UNION ALL SELECT 'idempotency', count(*) FROM postrider.idempotency
         UNION ALL SELECT 'keys', count(*) FROM postrider.api_keys
         UNION ALL SELECT 'keys version', keys_version FROM postrider.cluster
         UNION ALL SELECT 'door', count(*) FROM postrider.door
         UNION ALL SELECT 'refused at the door', count(*) FROM postrider.door_refused
         UNION ALL SELECT 'webhook ' || queue_id, version FROM postrider.webhooks
         UNION ALL SELECT 'schedule ' || name, version FROM postrider.schedules
         UNION ALL SELECT 'schema of ' || name, schema_version FROM postrider.queues
             WHERE schema_version IS NOT NULL
         UNION ALL SELECT 'schema of topic ' || name, schema_version FROM postrider.topics
             WHERE schema_version IS NOT NULL
         UNION ALL SELECT 'queue ' || name, version FROM postrider.queues
         UNION ALL SELECT 'topic ' || name, version FROM postrider.topics
         UNION ALL SELECT 'subscription ' || name, version FROM postrider.subscriptions
         ORDER BY 1",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

/// A gateway with something to be asked about, and its Postgres, which can be
/// taken away.
pub(super) struct Bench {
    pub(super) gateway: Arc<Gateway>,
    pub(super) there: There,
    database: Database,
    link: Link,
    before: Vec<(String, i64)>,
}

impl Bench {
    /// With what the tests' gateways have, changed.
    pub(super) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let database = Database::migrated().await;
        let link = Link::to(&database).await;
        let mut config = config(link.url());
        change(&mut config);
        let gateway = Arc::new(Gateway::start(&config).await);
        let there = furnish(&gateway).await;
        let before = fingerprint(&database).await;
        Self {
            gateway,
            there,
            database,
            link,
            before,
        }
    }

    /// Takes Postgres away, until all that was known of it is forgotten.
    pub(super) async fn cut(&mut self) {
        let gateway = &self.gateway;
        let ready = gateway.get("/readyz").await;
        assert_eq!(ready.expect(StatusCode::OK)["status"], "ok");
        self.link.cut().await;
        let cut = Instant::now();
        eventually("what was known of Postgres is forgotten", async || {
            // What was read just before is good for two seconds.
            let is_old = cut.elapsed() > Duration::from_secs(2);
            let publish = gateway.post("/v1/queues/orders/messages", "{}").await;
            let topic = gateway.post("/v1/topics/shop/messages", "{}").await;
            is_old && publish.status == 503 && topic.status == 503
        })
        .await;
        self.assert_away().await;
    }

    /// While Postgres is away the gateway is live and not ready, and says when
    /// to ask again.
    async fn assert_away(&self) {
        let live = self.gateway.get("/livez").await;
        live.expect(StatusCode::OK);
        assert_away(&self.gateway.get("/readyz").await);
    }

    /// Brings it back.
    pub(super) async fn mend(&mut self) {
        self.assert_away().await;
        self.link.mend().await;
        eventually("it is back", async || {
            self.gateway.get("/readyz").await.status == 200
        })
        .await;
    }

    /// What is stored now is what has to stay.
    pub(super) async fn remember(&mut self) {
        self.before = fingerprint(&self.database).await;
    }

    /// Nothing was stored.
    pub(super) async fn assert_unchanged(&self) {
        assert_eq!(fingerprint(&self.database).await, self.before);
    }
}

/// What is answered while Postgres is away, where it has to be asked.
#[track_caller]
pub(super) fn assert_away(answer: &Answer) {
    // And `Retry-After`.
    answer.expect_problem(503, "database-unavailable");
}

/// Sends every row with Postgres up, then every row with it down: the answers
/// are those of the table, none takes long, and nothing is stored.
pub(super) async fn check(rows: impl FnOnce(&There) -> Vec<Row>) {
    check_at(|_| {}, rows).await;
}

/// The same at a gateway with other settings.
pub(super) async fn check_at(
    change: impl FnOnce(&mut Config),
    rows: impl FnOnce(&There) -> Vec<Row>,
) {
    let mut bench = Bench::start(change).await;
    let rows = rows(&bench.there);
    run(&bench.gateway, &rows, true).await;
    bench.assert_unchanged().await;
    bench.cut().await;
    run(&bench.gateway, &rows, false).await;
    bench.mend().await;
    bench.assert_unchanged().await;
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
            match tokio::time::timeout(limit, row.send.answer(&gateway)).await {
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
