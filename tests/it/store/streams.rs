//! The stream of a topic in Postgres: nothing is skipped, whatever the order of
//! commits; partitions stay as long as it and no longer.

use postrider::store::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use super::partitions::drop_partitions;
use super::{execute, number};
use crate::support::{App, Database, eventually};

/// One publish as `publish_topic.sql` does it, in a transaction held open:
/// `drawn` before it is stored, `stored` before it is committed.
struct Held {
    connection: PgConnection,
    id: i64,
}

impl Held {
    /// Has a transaction id and an id of a message.
    async fn drawn(database: &Database) -> Self {
        let mut connection = database.connect().await;
        connection.execute("BEGIN").await.unwrap();
        let (id, _): (i64, String) =
            sqlx::query_as("SELECT nextval('postrider.message_ids'), pg_current_xact_id()::text")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        Self { connection, id }
    }

    async fn store(&mut self, body: i64) {
        let id = self.id;
        let statement = format!(
            "INSERT INTO postrider.messages (id, body, topic, routing_key)
             VALUES ({id}, '{body}', 'shop', '');
             INSERT INTO postrider.stream (topic_id, message_id, routing_key)
             SELECT id, {id}, '' FROM postrider.topics WHERE name = 'shop'"
        );
        self.connection
            .execute(sqlx::raw_sql(AssertSqlSafe(statement)))
            .await
            .unwrap();
    }

    async fn end(mut self, how: &'static str) {
        self.connection.execute(how).await.unwrap();
    }
}

/// Reads on from a cursor.
struct Reader {
    after: Option<String>,
    seen: Vec<i64>,
}

impl Reader {
    /// Reads page by page until one is empty; what came.
    async fn read(&mut self, app: &App) -> Vec<i64> {
        let mut new = Vec::new();
        loop {
            let after = self.after.as_ref().map(|a| format!("&after={a}"));
            let path = format!(
                "/v1/topics/shop/messages?limit=2{}",
                after.unwrap_or_default()
            );
            let page = app.get(&path).await.expect(StatusCode::OK);
            self.after = Some(page["next_cursor"].as_str().unwrap().to_owned());
            let messages = page["messages"].as_array().unwrap();
            if messages.is_empty() {
                self.seen.extend(&new);
                return new;
            }
            new.extend(messages.iter().map(|m| m["body"].as_i64().unwrap()));
        }
    }
}

impl Reader {
    /// Reads until these have come, and nothing else. A transaction of any other
    /// test may hold them back for a while: they share the server.
    async fn await_all(&mut self, app: &App, expected: &[i64]) {
        let mut new = Vec::new();
        eventually("all have come", async || {
            new.extend(self.read(app).await);
            new.len() >= expected.len()
        })
        .await;
        assert_eq!(new, expected);
    }
}

async fn start() -> App {
    let app = App::start().await;
    app.topic("shop", json!({"retention_seconds": 3600})).await;
    app
}

fn reader() -> Reader {
    Reader {
        after: None,
        seen: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_skips_no_message_whatever_the_order_of_commits() {
    let app = start().await;
    let mut reader = reader();
    let mut first = Held::drawn(&app.database).await;
    let mut second = Held::drawn(&app.database).await;
    let third = Held::drawn(&app.database).await;
    // A later id commits first: not shown, since an earlier one may come.
    second.store(2).await;
    second.end("COMMIT").await;
    app.publish_topic("shop", json!({"body": 4})).await;
    assert_eq!(reader.read(&app).await, [0; 0]);
    first.store(1).await;
    assert_eq!(reader.read(&app).await, [0; 0]);
    first.end("COMMIT").await;
    // Up to the third, which still runs.
    reader.await_all(&app, &[1, 2]).await;
    let fourth = Held::drawn(&app.database).await;
    third.end("ROLLBACK").await;
    reader.await_all(&app, &[4]).await;
    fourth.end("ROLLBACK").await;
    assert_eq!(reader.seen, [1, 2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pages_meanwhile_sees_every_message_once_and_in_one_order() {
    let app = start().await;
    let mut reader = reader();
    let mut held: Vec<Held> = Vec::new();
    let mut committed = Vec::new();
    // Thirty transactions, at most five open, ended in an order of their own.
    for n in 0..30i64 {
        let mut one = Held::drawn(&app.database).await;
        one.store(n).await;
        held.push(one);
        if held.len() == 5 {
            let place = usize::try_from(n * 7 % 5).unwrap();
            let ended = held.remove(place);
            if n % 6 == 0 {
                ended.end("ROLLBACK").await;
            } else {
                let (body,): (Vec<u8>,) =
                    sqlx::query_as("SELECT body FROM postrider.messages WHERE id = $1")
                        .bind(ended.id)
                        .fetch_one(&mut {
                            let mut ended = ended;
                            ended.connection.execute("COMMIT").await.unwrap();
                            ended.connection
                        })
                        .await
                        .unwrap();
                committed.push(String::from_utf8(body).unwrap().parse::<i64>().unwrap());
            }
            reader.read(&app).await;
        }
    }
    for one in held {
        one.end("ROLLBACK").await;
    }
    eventually("all have come", async || {
        reader.read(&app).await;
        reader.seen.len() >= committed.len()
    })
    .await;
    committed.sort_unstable();
    let mut from_the_start = Reader {
        after: None,
        seen: Vec::new(),
    };
    assert_eq!(
        from_the_start.read(&app).await,
        reader.seen,
        "one order for all"
    );
    let mut seen = reader.seen;
    seen.sort_unstable();
    assert_eq!(seen, committed);
}

async fn small_partitions() -> (App, Store) {
    let database = Database::empty().await;
    let store = database.store(1000);
    store.migrate().await.unwrap();
    let app = App::start_on(database).await;
    (app, store)
}

async fn publish(app: &App, count: usize) {
    let messages: Vec<Value> = (0..count).map(|n| json!({"body": n})).collect();
    app.post("/v1/topics/shop/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_stay_as_long_as_their_stream_and_lowered_retention_frees_them() {
    let (app, store) = small_partitions().await;
    app.topic("shop", json!({"retention_seconds": 86_400}))
        .await;
    for _ in 0..3 {
        publish(&app, 1000).await;
    }
    publish(&app, 10).await;
    assert_eq!(drop_partitions(&app.database, &store).await, 0);
    // The first two thousand were published long ago.
    execute(
        &app.database,
        "UPDATE postrider.stream SET published_at = now() - interval '3 hours'
         WHERE message_id < 2000",
    )
    .await;
    assert_eq!(drop_partitions(&app.database, &store).await, 0);
    app.patch("/v1/topics/shop", json!({"retention_seconds": 3600}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(drop_partitions(&app.database, &store).await, 2000);
    assert_eq!(
        number(
            &app.database,
            "SELECT count(*) FROM postrider.stream WHERE message_id < 2000"
        )
        .await,
        0
    );
    let streams = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'postrider.stream'::regclass";
    let partitions = "SELECT count(*) FROM postrider.message_partitions";
    assert_eq!(
        number(&app.database, streams).await,
        number(&app.database, partitions).await
    );
    // What is left can be read, from a cursor of before too.
    let page = app.get("/v1/topics/shop/messages?limit=1000").await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1000);
    app.delete("/v1/topics/shop")
        .await
        .expect(StatusCode::NO_CONTENT);
    assert_eq!(drop_partitions(&app.database, &store).await, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_lives_on_when_its_partition_goes() {
    let (app, store) = small_partitions().await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "slow", json!({})).await;
    app.subscription("shop", "fast", json!({})).await;
    app.publish_topic("shop", json!({"body": "kept", "routing_key": "a"}))
        .await;
    app.subscription("shop", "fast2", json!({"queue": "shop.fast"}))
        .await;
    app.delete("/v1/topics/shop/subscriptions/slow")
        .await
        .expect(StatusCode::NO_CONTENT);
    for _ in 0..2 {
        publish(&app, 1000).await;
    }
    let mut left = 2000;
    let kept = app
        .receive("shop.fast", json!({"lease_seconds": 600}))
        .await;
    while left > 0 {
        let some = app
            .receive("shop.fast", json!({"max_messages": 1000}))
            .await;
        let receipts: Vec<&Value> = some.iter().map(|m| &m["receipt"]).collect();
        app.settle("ack", "shop.fast", &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
        left -= some.len();
    }
    // What the deleted queue left pins it until it is pruned.
    while store.prune().await.unwrap() {}
    assert!(drop_partitions(&app.database, &store).await >= 1000);
    app.settle(
        "nack",
        "shop.fast",
        &[&kept[0]["receipt"]],
        json!({"delay_seconds": 0}),
    )
    .await
    .expect(StatusCode::OK);
    let again = app.receive_one("shop.fast").await;
    assert_eq!(
        (&again["body"], &again["topic"], &again["routing_key"]),
        (&json!("kept"), &json!("shop"), &json!("a"))
    );
    app.assert_conserved(&app.database, "shop.fast").await;
}
