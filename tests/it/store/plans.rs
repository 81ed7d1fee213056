//! Plans must not change when a table grows from nothing to hundreds of
//! thousands of rows between two looks of the statistics.

use postrider::store::Store;
use sqlx::{PgConnection, Row as _};

use crate::store::execute;
use crate::support::Database;

/// The planner's part of what the store sets on each of its connections.
const SESSION: &str = "SET plan_cache_mode = 'force_generic_plan';
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off";

/// The generic plan of a statement.
async fn plan(connection: &mut PgConnection, name: &str) -> String {
    let (_, statement) = Store::statements()
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let mut run = async |sql: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .unwrap()
    };
    run(format!("PREPARE {name} AS {statement}")).await;
    let parameters = run(format!(
        "SELECT cardinality(parameter_types)::text FROM pg_prepared_statements
         WHERE name = '{name}'"
    ))
    .await;
    let count: usize = parameters[0].get::<&str, _>(0).parse().unwrap();
    let nulls = vec!["NULL"; count].join(", ");
    let lines = run(format!("EXPLAIN (COSTS OFF) EXECUTE {name}({nulls})")).await;
    run(format!("DEALLOCATE {name}")).await;
    let lines: Vec<&str> = lines.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

/// Whether a plan walks through a whole hot table.
fn reads_all(plan: &str) -> bool {
    plan.lines().any(|line| {
        let hot = ["ready", "parked", "messages"]
            .iter()
            .any(|table| line.contains(&format!(" on {table}")));
        hot && (line.contains("Seq Scan") || line.contains("Bitmap Heap Scan"))
    })
}

async fn check(connection: &mut PgConnection) {
    sqlx::raw_sql(SESSION)
        .execute(&mut *connection)
        .await
        .unwrap();
    for (name, scans) in [
        (
            "claim",
            &[
                "Index Scan using ready_pkey on ready",
                "Tid Scan on ready",
                "Index Scan using messages_0_pkey on messages_0",
            ][..],
        ),
        (
            "ack",
            &[
                "Index Scan using parked_pkey on parked",
                "Tid Scan on parked",
            ],
        ),
        (
            "settle",
            &[
                "Index Scan using parked_pkey on parked",
                "Tid Scan on parked",
                "Index Scan using messages_0_pkey on messages_0",
            ],
        ),
        ("publish", &[]),
        ("publish_dedup", &[]),
        ("alive", &["using ready_pkey on ready"]),
        ("move_ready", &["Tid Scan on ready"]),
        ("move_parked", &["Tid Scan on parked"]),
        ("purge_ready", &["using ready_pkey on ready"]),
        ("purge_parked", &["using parked_pkey on parked"]),
        (
            "due",
            &[
                "Index Scan using parked_by_wake on parked",
                "Tid Scan on parked",
            ],
        ),
        ("extend", &["Index Scan using parked_pkey on parked"]),
        ("late", &["Tid Scan on ready"]),
        ("floors", &["using ready_pkey on ready"]),
        ("with_ready", &["using ready_pkey on ready"]),
        ("expire", &["using ready_by_expiry on ready"]),
        ("message", &["using ready_pkey on ready"]),
        ("browse_ready", &["using ready_pkey on ready"]),
        ("browse_parked", &["using parked_by_wake on parked"]),
        ("cancel", &[]),
        ("redrive", &[]),
        ("overflow", &["using ready_pkey on ready"]),
        ("counts", &["using ready_pkey on ready"]),
        ("next_due", &["using parked_by_wake on parked"]),
        ("due_floors", &["using parked_by_wake on parked"]),
    ] {
        let plan = plan(connection, name).await;
        assert!(!reads_all(&plan), "{name} reads a whole table:\n{plan}");
        for scan in scans {
            assert!(plan.contains(scan), "{name} has no {scan}:\n{plan}");
        }
        // In order from the index: a sort would read the whole backlog first.
        if matches!(name, "claim" | "due" | "browse_ready" | "overflow") {
            let limited = plan.split("Limit").nth(1).unwrap_or_default();
            let next = limited.lines().find(|line| line.contains("->"));
            assert!(
                !next.is_some_and(|line| line.contains("Sort")),
                "{name} sorts before its limit:\n{plan}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_statements_use_their_indexes_whatever_the_statistics_say() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    // On empty tables.
    check(&mut connection).await;
    for filling in [
        "INSERT INTO postrider.messages (id, body)
         SELECT n, '1' FROM generate_series(1, 200000) AS n",
        "INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
         SELECT 1 + n % 3, n % 10, n, n, now() + interval '1 day'
         FROM generate_series(1, 200000) AS n",
        "INSERT INTO postrider.parked (queue_id, message_id, wake_at, expires_at, priority)
         SELECT 1 + n % 3, n, now() + interval '1 hour', now() + interval '1 day', 0
         FROM generate_series(200001, 250000) AS n",
    ] {
        execute(&database, filling).await;
    }
    // On full ones that the planner thinks are empty, anew and cached.
    check(&mut database.connect().await).await;
    check(&mut connection).await;
    // And when it knows better.
    execute(&database, "ANALYZE postrider.ready, postrider.parked").await;
    check(&mut database.connect().await).await;
}
