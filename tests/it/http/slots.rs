//! Replication slots that keep dead rows, as `GET /v1/health/storage` has them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::storage::{health, told};
use crate::support::{Database, Gateway, config, eventually};

/// A name that has to be quoted could not be one of a slot.
const SLOT: &str = "standby_of_old";

/// A standby that speaks just enough to say what it still wants to see.
struct Standby(TcpStream);

impl Standby {
    /// A walsender's connection, to the server of this database.
    async fn connect(database: &Database) -> Self {
        let url = database.url();
        let address = url.split('@').nth(1).unwrap().split('/').next().unwrap();
        let mut standby = Self(TcpStream::connect(address).await.unwrap());
        let settings = b"user\0postgres\0replication\0true\0\0";
        // Version 3 of the protocol.
        let startup = [&196_608_u32.to_be_bytes(), &settings[..]].concat();
        let length = u32::try_from(startup.len() + 4).unwrap();
        let startup = [&length.to_be_bytes(), &startup[..]].concat();
        standby.0.write_all(&startup).await.unwrap();
        standby.read_until(b'Z').await;
        standby
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len() + 4).unwrap();
        let message = [&[kind], &length.to_be_bytes()[..], payload].concat();
        self.0.write_all(&message).await.unwrap();
    }

    async fn read_until(&mut self, kind: u8) {
        loop {
            let found = self.0.read_u8().await.unwrap();
            let length = self.0.read_u32().await.unwrap();
            let mut payload = vec![0; length as usize - 4];
            self.0.read_exact(&mut payload).await.unwrap();
            let text = String::from_utf8_lossy(&payload);
            assert_ne!(found, b'E', "{text}");
            if found == kind {
                return;
            }
        }
    }

    /// Streams from there by the slot, and wants to see all since that transaction.
    async fn wants(&mut self, position: &str, transaction: u64) {
        let start = format!("START_REPLICATION SLOT {SLOT} PHYSICAL {position}\0");
        self.send(b'Q', start.as_bytes()).await;
        self.read_until(b'W').await;
        // Hot standby feedback: the time, the oldest transaction and its epoch, and
        // the same for system tables, which is none.
        let bytes = transaction.to_be_bytes();
        let feedback = [b"h", &[0; 8][..], &bytes[4..], &bytes[..4], &[0; 8]].concat();
        self.send(b'd', &feedback).await;
    }
}

/// The slot, in the list.
async fn held(gateway: &Gateway) -> Option<Value> {
    let report = health(gateway).await;
    let all = report["snapshots"].as_array().unwrap();
    all.iter().find(|held| held["kind"] == "slot").cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_standby_is_gone_is_named_warned_of_and_told_of() {
    // On a server of its own: a slot keeps the rows of every database.
    let database = Database::alone("slot").await;
    let mut config = config(&database.url());
    config.snapshot_age_warning_seconds = 2;
    let gateway = Gateway::start(&config).await;
    gateway.queue("alerts", json!({})).await;
    let filter = json!({"queue": "alerts", "filter": {"routing_key": "storage.#"}});
    let subscribed = gateway
        .put("/v1/topics/system.events/subscriptions/alerts", filter)
        .await;
    assert!(subscribed.status.is_success(), "{subscribed:?}");
    assert_eq!(held(&gateway).await, None);

    let (position, transaction): (String, i64) = sqlx::query_as(
        "SELECT pg_current_wal_flush_lsn()::text, pg_current_xact_id()::text::bigint
         FROM pg_create_physical_replication_slot($1)",
    )
    .bind(SLOT)
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    let mut standby = Standby::connect(&database).await;
    standby
        .wants(&position, transaction.try_into().unwrap())
        .await;
    eventually("the slot keeps rows", async || {
        held(&gateway).await.is_some()
    })
    .await;
    let read = held(&gateway).await.unwrap();
    assert_eq!(read["name"], SLOT);
    assert_eq!(read["state"], "active");
    assert!(read["pid"].is_i64(), "{read}");
    assert_eq!(read["catalog_only"], false);
    let what_to_do = read["what_to_do"].as_str().unwrap();
    assert!(what_to_do.contains("lags"), "{what_to_do}");

    drop(standby);
    eventually("nobody reads it", async || {
        held(&gateway).await.unwrap()["state"] == "inactive"
    })
    .await;
    eventually("it is warned of", async || {
        health(&gateway).await["status"] == "warning"
    })
    .await;
    let report = health(&gateway).await;
    let oldest = &report["oldest_snapshot"];
    assert_eq!(
        (&oldest["kind"], &oldest["name"]),
        (&json!("slot"), &json!(SLOT))
    );
    let drop_it = format!("pg_drop_replication_slot('{SLOT}')");
    let what_to_do = oldest["what_to_do"].as_str().unwrap();
    assert!(what_to_do.contains(&drop_it), "{what_to_do}");
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&drop_it), "{warning}");
    let event = told(&gateway).await;
    assert_eq!(event["event"], "storage.snapshot_held", "{event}");
    assert_eq!(
        (&event["kind"], &event["name"]),
        (&json!("slot"), &json!(SLOT))
    );

    database.execute(&format!("SELECT {drop_it}")).await;
    assert_eq!(held(&gateway).await, None);
    assert_eq!(told(&gateway).await["event"], "storage.snapshot_released");
}
