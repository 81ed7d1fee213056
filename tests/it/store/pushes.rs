//! Attempts to push are kept by the day, and dropped with it.

use std::time::{Duration, Instant};

use postrider::store::{AttemptFilter, PushOutcomeKind, PushRecord};

use super::{execute, number};
use crate::support::Database;

const COUNT: &str = "SELECT count(*) FROM postrider.push_attempts";

fn record(message_id: i64) -> PushRecord {
    PushRecord {
        queue_id: 1,
        message_id,
        token: 1,
        attempt: 1,
        started: Instant::now(),
        duration: Duration::from_millis(1),
        outcome: PushOutcomeKind::Delivered,
        status: Some(200),
        error: None,
        answer: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_attempts_is_dropped_whole_after_thirty_days() {
    let database = Database::migrated().await;
    let store = database.store(1_000_000);
    for (ago, kept) in [(31, false), (30, true), (29, true)] {
        let day = format!("(now() AT TIME ZONE 'UTC')::date - {ago}");
        let sql = format!(
            "DO $$ BEGIN EXECUTE format(
                'CREATE TABLE postrider.push_attempts_%s PARTITION OF postrider.push_attempts
                    FOR VALUES FROM (%L) TO (%L)', to_char({day}, 'YYYYMMDD'),
                ({day})::timestamp AT TIME ZONE 'UTC', ({day} + 1)::timestamp AT TIME ZONE 'UTC');
            END $$"
        );
        execute(&database, sql).await;
        store.drop_days(30).await.unwrap();
        let there = format!(
            "SELECT count(*) FROM pg_class
             WHERE relname = 'push_attempts_' || to_char({day}, 'YYYYMMDD')"
        );
        assert_eq!(number(&database, there).await == 1, kept, "{ago}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rest_of_many_days_the_first_attempts_make_their_partition() {
    let database = Database::migrated().await;
    let store = database.store(1_000_000);
    let days = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT relname FROM pg_class
            WHERE relname ~ '^push_attempts_[0-9]+$' AND relkind = 'r'
        LOOP EXECUTE 'DROP TABLE postrider.' || name; END LOOP; END $$";
    execute(&database, days).await;
    store.record_pushes(&[record(1), record(2)]).await.unwrap();
    assert_eq!(number(&database, COUNT).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_attempts_is_one_statement_and_an_empty_one_is_fine() {
    let database = Database::migrated().await;
    let store = database.store(1_000_000);
    store.record_pushes(&[]).await.unwrap();
    let records: Vec<_> = (0..1000).map(record).collect();
    store.record_pushes(&records).await.unwrap();
    assert_eq!(number(&database, COUNT).await, 1000);
    assert_eq!(
        number(
            &database,
            "SELECT count(DISTINCT xmin::text) FROM postrider.push_attempts"
        )
        .await,
        1
    );
    let (page, next) = store
        .push_attempts(1, AttemptFilter::default(), None, 100)
        .await
        .unwrap();
    assert_eq!(page.len(), 100);
    assert!(next.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_attempts_walk_an_index_and_never_sort_a_whole_day() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let session = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;
        SET plan_cache_mode = 'force_generic_plan'";
    sqlx::raw_sql(session)
        .execute(&mut connection)
        .await
        .unwrap();
    for (name, parameters, index) in [
        (
            "push_attempts",
            "1, now(), 1, NULL, NULL, 10",
            "queue_id_started_at_message_id_idx ",
        ),
        (
            "push_failures",
            "1, now(), 1, NULL, NULL, 10",
            "queue_id_started_at_message_id_idx1",
        ),
        (
            "push_attempts_of",
            "1, now(), 1, NULL, NULL, 10, 1",
            "queue_id_message_id_started_at_idx",
        ),
    ] {
        let (_, statement) = postrider::store::Store::statements()
            .into_iter()
            .find(|(known, _)| *known == name)
            .unwrap();
        let sql = format!("PREPARE {name} AS {statement}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap();
        let sql = format!("EXPLAIN (COSTS OFF) EXECUTE {name}({parameters})");
        let rows: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let plan: Vec<String> = rows.into_iter().map(|(line,)| line).collect();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{name} has no {index}:\n{plan}");
        assert!(
            !plan.contains("Sort") && !plan.contains("Seq Scan"),
            "{name}:\n{plan}"
        );
    }
}
