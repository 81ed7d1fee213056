//! Many partitions' worth of messages: the disk holds what is alive, and no
//! body is ever deleted by itself.

use postrider::config::Config;
use postrider::store::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::partitions::{drop_partitions, publish, work_off};
use crate::store::{A_MINUTE_LATER, execute, number};
use crate::support::{App, Database, Gateway, config};

const PARTITION: usize = 1000;
const PARTITIONS: usize = 25;

/// What is on disk of the bodies in partitions, with their indexes and what is
/// stored aside. An empty partition's index is a page.
const BYTES: &str = "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0)::bigint
    FROM pg_inherits WHERE inhparent = 'postrider.messages'::regclass
      AND pg_relation_size(inhrelid) > 0";

/// Partitions that hold anything.
const FILLED: &str = "SELECT count(*) FROM pg_inherits
    WHERE inhparent = 'postrider.messages'::regclass AND pg_relation_size(inhrelid) > 0";

/// Rows of bodies deleted or rewritten, of the partitions that there are.
const REWRITTEN: &str = "SELECT coalesce(sum(n_tup_del + n_tup_upd), 0)::bigint
    FROM pg_stat_all_tables WHERE schemaname = 'postrider' AND relname LIKE 'messages%'";

/// Makes every DELETE and UPDATE of a body fail, in partitions to come too.
const GUARD: &str = "
    CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'a body was touched'; END $$;
    CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON postrider.messages
        FOR EACH ROW EXECUTE FUNCTION guard();";

async fn guard(database: &Database) {
    let mut connection = database.connect().await;
    sqlx::raw_sql(GUARD).execute(&mut connection).await.unwrap();
    // It bites.
    for table in ["messages", "messages_0"] {
        let touch = format!(
            "INSERT INTO postrider.{table} (id, body) VALUES (0, '');
             DELETE FROM postrider.{table}"
        );
        let touched = sqlx::raw_sql(sqlx::AssertSqlSafe(touch))
            .execute(&mut connection)
            .await;
        let error = touched.unwrap_err().to_string();
        assert!(error.contains("a body was touched"), "{error}");
    }
}

/// A gateway that makes small partitions, and a store that drops them at once,
/// which the gateway's own does not within a minute.
async fn start() -> (App, Store) {
    let database = Database::empty().await;
    let store = database.store(i64::try_from(PARTITION).unwrap());
    store.migrate().await.unwrap();
    let gateway = Gateway::start(&Config {
        partition_messages: i64::try_from(PARTITION).unwrap(),
        ..config(&database.url())
    })
    .await;
    gateway.queue("work", json!({})).await;
    (App { database, gateway }, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_many_partitions_the_disk_holds_what_is_alive_and_nothing_was_deleted() {
    let (app, store) = start().await;
    guard(&app.database).await;
    let week = json!({"body": "in a week", "delay_seconds": 7 * 24 * 3600, "key": "k"});
    let week = app.publish("work", week).await;
    let dead = app.publish("work", json!({"body": "dead"})).await;
    let message = app.receive_one("work").await;
    let more = json!({"dead_letter": true, "reason": "no good"});
    app.settle("nack", "work", &[&message["receipt"]], more)
        .await
        .expect(StatusCode::OK);

    let mut most = 0;
    for round in 0..PARTITIONS {
        let bodies = round * PARTITION..(round + 1) * PARTITION;
        publish(&app, bodies.clone()).await;
        if round == 1 {
            // One partition, full.
            most = 2 * number(&app.database, BYTES).await / number(&app.database, FILLED).await;
        }
        assert_eq!(number(&app.database, REWRITTEN).await, 0);
        assert_eq!(work_off(&app, PARTITION).await, bodies.collect::<Vec<_>>());
        if round % 3 == 2 {
            drop_partitions(&app.database, &store).await;
        }
    }
    // Nothing was forgotten on the way.
    let first = drop_partitions(&app.database, &store).await;
    assert!(
        first >= i64::try_from((PARTITIONS - 1) * PARTITION).unwrap(),
        "{first}"
    );
    assert!(number(&app.database, FILLED).await <= 2);
    let bytes = number(&app.database, BYTES).await;
    assert!(bytes <= most, "{bytes} bytes, two partitions are {most}");
    assert_eq!(number(&app.database, REWRITTEN).await, 0);

    let guarded = "SELECT count(*) FROM pg_trigger WHERE tgname = 'guard'";
    let tables = "SELECT 1 + count(*) FROM postrider.message_partitions";
    assert_eq!(
        number(&app.database, guarded).await,
        number(&app.database, tables).await
    );

    // The delay pins none of them: one body is kept apart, and it is whole.
    execute(&app.database, A_MINUTE_LATER).await;
    while app.app.store().prune().await.unwrap() {}
    let apart = "SELECT count(*) FROM postrider.stragglers";
    assert_eq!(number(&app.database, apart).await, 1);
    let seen = app.get(&format!("/v1/queues/work/messages/{week}")).await;
    let seen = seen.expect(StatusCode::OK);
    assert_eq!(
        (&seen["state"], &seen["body"]),
        (&json!("delayed"), &json!("in a week"))
    );
    let letter = app
        .get(&format!("/v1/queues/work/dead-letters/{dead}"))
        .await;
    assert_eq!(letter.expect(StatusCode::OK)["body"], "dead");
    app.assert_conserved(&app.database, "work").await;

    // A week later it is delivered.
    execute(&app.database, "UPDATE postrider.parked SET wake_at = now()").await;
    let message: Value = app.receive_one("work").await;
    assert_eq!(
        (&message["id"], &message["body"], &message["key"]),
        (&json!(week), &json!("in a week"), &json!("k"))
    );
}
