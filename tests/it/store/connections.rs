//! What transactions do to the pool that they have their connection of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use postrider::config::{Config, DatabaseUrl};
use postrider::domain::{Compatibility, QueueName, QueueSettings};
use postrider::store::{End, Error, NewSchema, SchemaOf, Store};
use reqwest::StatusCode;
use serde_json::json;
use tokio::sync::Barrier;

use crate::support::{Chaos, Database, Gateway, Weather, config, eventually};

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

/// So many transactions at once: the server's processes that they run in.
async fn at_once(store: &Store, database: &Database, transactions: usize) -> BTreeSet<i32> {
    let all = Arc::new(Barrier::new(transactions));
    let running = (0..transactions).map(|_| {
        let all = Arc::clone(&all);
        store.transaction(move |_| {
            let all = Arc::clone(&all);
            Box::pin(async move {
                all.wait().await;
                Ok(End::Commit(()))
            })
        })
    });
    for ended in futures_util::future::join_all(running).await {
        ended.unwrap();
    }
    database.sessions().await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_takes_too_long_costs_its_own_connection_and_no_other() {
    let database = Database::migrated().await;
    let store = database.store(Store::PARTITION_SIZE);
    let before = at_once(&store, &database, 3).await;
    assert_eq!(before.len(), 3);
    let endless = store.transaction_within(Duration::from_millis(100), |_| {
        Box::pin(std::future::pending::<Result<End<()>, Error>>())
    });
    let error = endless.await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    eventually("its own has ended", async || {
        let mut now = at_once(&store, &database, 2).await;
        now.retain(|pid| before.contains(pid));
        assert!(now.len() >= 2, "of {before:?} only {now:?} are left");
        now.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_takes_too_long_costs_its_own_connection_and_no_other() {
    let database = Database::migrated().await;
    let chaos = Arc::new(Chaos::over(&database).await);
    let url: DatabaseUrl = chaos.url().parse().unwrap();
    let store = Store::new(url.options(), 12, Store::PARTITION_SIZE);
    let before = at_once(&store, &database, 3).await;
    assert_eq!(before.len(), 3);
    let slow = Arc::clone(&chaos);
    let refused = store.transaction(move |_| {
        let slow = Arc::clone(&slow);
        Box::pin(async move {
            slow.weather(Weather::Slow(Duration::from_millis(1500)));
            Err::<End<()>, _>(Error::Conflict)
        })
    });
    let error = refused.await.unwrap_err();
    assert!(matches!(error, Error::Conflict), "{error}");
    chaos.weather(Weather::Fair);
    let mut now = at_once(&store, &database, 2).await;
    now.retain(|pid| before.contains(pid));
    assert!(now.len() >= 2, "of {before:?} only {now:?} are left");
}
