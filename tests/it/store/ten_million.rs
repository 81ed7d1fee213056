//! Ten million messages ready and ten million parked, filled in less time than
//! statistics take to notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::domain::{Lease, QueueName, QueueSettings, Seconds};
use postrider::store::{Publish, Receiver, Settled, Store};

use super::plans::check_anew;
use crate::store::execute;
use crate::support::{Database, message};

/// The keys come after the rows, which is several times as fast.
const READY: [&str; 4] = [
    "ALTER TABLE postrider.ready SET (autovacuum_enabled = off)",
    "ALTER TABLE postrider.ready DROP CONSTRAINT ready_pkey",
    "INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
     SELECT 1000 + n % 3, n % 10, n, n, now() + interval '1 day'
     FROM generate_series(1, 10000000) AS n",
    "ALTER TABLE postrider.ready
     ADD CONSTRAINT ready_pkey PRIMARY KEY (queue_id, priority, position)",
];
const PARKED: [&str; 6] = [
    "ALTER TABLE postrider.parked SET (autovacuum_enabled = off)",
    "ALTER TABLE postrider.parked DROP CONSTRAINT parked_pkey",
    "DROP INDEX postrider.parked_by_wake",
    "INSERT INTO postrider.parked (queue_id, message_id, wake_at, expires_at, priority)
     SELECT 1000 + n % 3, n, now() + interval '1 hour', now() + interval '1 day', 0
     FROM generate_series(10000001, 20000000) AS n",
    "ALTER TABLE postrider.parked
     ADD CONSTRAINT parked_pkey PRIMARY KEY (queue_id, message_id)",
    "CREATE INDEX parked_by_wake ON postrider.parked (queue_id, wake_at)",
];

async fn fill(database: &Database, statements: &[&str]) {
    for statement in statements {
        execute(database, *statement).await;
    }
}

/// What the catalogue says of the size of the hot tables and their indexes.
async fn believe(database: &Database, pages: i32, rows: i32) {
    let believed = format!(
        "UPDATE pg_class SET relpages = {pages}, reltuples = {rows}
         WHERE relnamespace = 'postrider'::regnamespace
           AND (relname LIKE 'ready%' OR relname LIKE 'parked%')"
    );
    assert_eq!(execute(database, believed).await, 7);
}

/// A message's life, among all the others.
async fn live_through(store: &Store) {
    let name = QueueName::parse("work", "").unwrap();
    let put = store.put_queue(&name, &QueueSettings::default()).await;
    let queue = put.unwrap().queue;
    let batch = Publish {
        queue: Arc::clone(&queue),
        messages: Arc::new(vec![message(1); 1000]),
    };
    let (results, _) = store.publish(&[batch], &HashMap::new()).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().len(), 1000);
    assert_eq!(store.with_ready(&[queue.id]).await.unwrap(), [queue.id]);
    let wish = Receiver {
        max_messages: 1000,
        lease: Seconds::new(60),
    };
    let claimed = store.claim(queue.id, &[wish]).await.unwrap();
    let leases: Vec<Lease> = claimed.deliveries[0].iter().map(|d| d.lease).collect();
    assert_eq!(leases.len(), 1000);
    store.next_due(Duration::from_secs(5)).await.unwrap();
    assert!(store.due(&[queue.id]).await.unwrap().ended.is_empty());
    let acked = store.ack(&leases).await.unwrap();
    assert!(acked.iter().all(|settled| *settled == Settled::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_hold_with_ten_million_rows_that_were_never_analyzed() {
    let database = Database::migrated().await;
    tokio::join!(fill(&database, &READY), fill(&database, &PARKED));
    // As it was before anybody looked: making an index is a look.
    believe(&database, 0, -1).await;
    check_anew(&database).await;
    // The last look was when there was one row.
    believe(&database, 1, 1).await;
    check_anew(&database).await;

    let store = database.store(Store::PARTITION_SIZE);
    let began = Instant::now();
    live_through(&store).await;
    // A walk through either table takes longer.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");

    execute(&database, "ANALYZE postrider.ready, postrider.parked").await;
    check_anew(&database).await;
}
