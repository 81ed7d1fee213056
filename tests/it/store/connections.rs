//! What transactions do to the pool that they have their connection of.

use postrider::config::Config;
use postrider::domain::{Compatibility, QueueName, QueueSettings};
use postrider::store::{NewSchema, SchemaOf, Store};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Database, Gateway, config, eventually};

fn name(name: &str) -> QueueName {
    QueueName::parse(name, "").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_four_connections_a_transaction_finds_what_it_looks_up() {
    let database = Database::migrated().await;
    // Made by another, so that this gateway knows nothing of them.
    let other = database.store(Store::PARTITION_SIZE);
    let settings = QueueSettings::default();
    for queue in ["door", "ticks", "fair"] {
        let made = other.create_queue(&name(queue), &settings).await.unwrap();
        let new = NewSchema {
            active: None,
            after: 0,
            schema: "{}",
            compatibility: Compatibility::None,
        };
        let of = SchemaOf::Queue(made.unwrap().id);
        other.put_schema(of, &name(queue), new).await.unwrap();
    }
    let gateway = Gateway::start(&Config {
        database_connections: 4,
        ..config(&database.url())
    })
    .await;
    database
        .execute("SELECT postrider.publish('door', '1')")
        .await;
    let settings = json!({"cron": "* * * * * *", "queue": "ticks", "message": {"body": 2}});
    gateway
        .put("/v1/schedules/s", settings)
        .await
        .expect(StatusCode::CREATED);
    eventually(
        "the door has moved its message, and the clock two",
        async || {
            let door = gateway.counts("door").await["ready"].clone();
            let ticks = gateway.counts("ticks").await["ready"].as_i64();
            door == 1 && ticks.is_some_and(|ready| ready >= 2)
        },
    )
    .await;
    let message = json!({"body": 3, "key": "k", "fair": true});
    let steps = json!({"publishes": [{"queue": "fair", "message": message}]});
    gateway
        .post("/v1/transactions", steps)
        .await
        .expect(StatusCode::OK);
}
