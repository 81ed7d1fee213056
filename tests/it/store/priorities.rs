//! Each priority has a watermark of its own: what is drained in one hides
//! nothing in another.

use std::time::Duration;

use postrider::store::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{number, queue_id};
use crate::support::App;

const HIGH: usize = 0;
const LOW: usize = 9;

struct Fixture {
    app: App,
    queue: i64,
}

impl Fixture {
    async fn start() -> Self {
        let app = App::start().await;
        app.queue("work", json!({})).await;
        let queue = queue_id(&app.database, "work").await;
        Self { app, queue }
    }

    fn store(&self) -> &Store {
        self.app.app.store()
    }

    /// Publishes so many messages of a priority, which is their body too.
    async fn publish(&self, priority: i16, count: usize) {
        let messages = vec![json!({"body": priority, "priority": priority}); count];
        self.app
            .post("/v1/queues/work/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }

    /// Receives and acks so many, or fewer if no more come; the bodies.
    async fn take(&self, count: usize) -> Vec<i64> {
        let request = json!({"max_messages": count});
        let messages = self.app.receive("work", request).await;
        if !messages.is_empty() {
            let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
            self.app
                .settle("ack", "work", &receipts, json!({}))
                .await
                .expect(StatusCode::OK);
        }
        let bodies = messages.iter().map(|m| m["body"].as_i64().unwrap());
        bodies.collect()
    }

    /// Raises the watermarks as if everything that runs had ended; the floors of
    /// 9 and of 0.
    async fn raise(&self) -> (i64, i64) {
        let store = self.store();
        store.raise_watermarks_after(Duration::ZERO).await.unwrap();
        let found = store.watermark_violations().await.unwrap();
        assert_eq!((found.ready, found.parked), (0, 0));
        let floors = store.watermarks().lanes(self.queue).1;
        (floors[HIGH], floors[LOW])
    }

    /// The first position that was ever given, or is still there.
    async fn first(&self, priority: i16) -> i64 {
        let first =
            format!("SELECT min(position) FROM postrider.ready WHERE priority = {priority}");
        number(&self.app.database, first).await
    }

    async fn end(self) {
        assert_eq!(self.take(1000).await, Vec::<i64>::new());
        self.app.assert_conserved(&self.app.database, "work").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn high_priorities_that_are_drained_hide_no_low_ones() {
    let it = Fixture::start().await;
    it.publish(0, 50).await;
    let first_low = it.first(0).await;
    let mut before = it.raise().await;
    for _ in 0..4 {
        it.publish(9, 200).await;
        assert_eq!(it.take(200).await, vec![9; 200]);
        let (high, low) = it.raise().await;
        assert!(high >= before.0 + 200, "{before:?} to {high}");
        assert!(low <= first_low, "{low} is over {first_low}");
        before = (high, low);
    }
    // All of them come, though they are older than the floor of 9.
    assert!(first_low < before.0);
    assert_eq!(it.take(1000).await, vec![0; 50]);
    let (_, low) = it.raise().await;
    assert!(low >= first_low + 50, "{low}");
    it.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn low_priorities_that_are_drained_hide_no_high_ones() {
    let it = Fixture::start().await;
    it.publish(9, 50).await;
    let first_high = it.first(9).await;
    // Somebody else's claim has the high ones in hand, and lets go of them
    // later: until then the low ones are drained past them.
    let mut claiming = it.app.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT FROM postrider.ready WHERE priority = 9 FOR UPDATE")
        .execute(&mut claiming)
        .await
        .unwrap();
    let mut before = it.raise().await;
    for _ in 0..4 {
        it.publish(0, 200).await;
        assert_eq!(it.take(200).await, vec![0; 200]);
        let (high, low) = it.raise().await;
        assert!(low >= before.1 + 200, "{before:?} to {low}");
        assert!(high <= first_high, "{high} is over {first_high}");
        before = (high, low);
    }
    assert!(first_high < before.1);
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut claiming)
        .await
        .unwrap();
    assert_eq!(it.take(1000).await, vec![9; 50]);
    it.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_that_was_never_used_is_looked_at_when_it_is() {
    let it = Fixture::start().await;
    it.publish(5, 500).await;
    assert_eq!(it.take(500).await, vec![5; 500]);
    it.raise().await;
    for priority in [9, 0, 4] {
        it.publish(priority, 3).await;
        assert_eq!(it.take(10).await, vec![i64::from(priority); 3]);
        it.raise().await;
    }
    it.end().await;
}
