//! Plans must not change when a table grows from nothing to hundreds of
//! thousands of rows between two looks of the statistics.

use postrider::store::Store;
use sqlx::{PgConnection, Row as _};

use crate::store::execute;
use crate::support::Database;

/// The planner's part of what the store sets on each of its connections.
const SESSION: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off";

/// How a statement is planned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Planned {
    /// Once for all parameters, as the store has it.
    Generic,
    /// For these parameters, with so many rows.
    For(usize),
}

async fn run(connection: &mut PgConnection, sql: String) -> Vec<String> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// A parameter of this type, as SQL; an array of one has so many elements.
async fn parameter(connection: &mut PgConnection, kind: &str, rows: usize) -> String {
    let element = kind.strip_suffix("[]").unwrap_or(kind);
    let value = match element {
        "smallint" | "integer" | "bigint" | "double precision" | "text" => format!("n::{element}"),
        "boolean" => "n > 0".to_owned(),
        "bytea" => "n::text::bytea".to_owned(),
        "jsonb" => "to_jsonb(n)".to_owned(),
        "timestamp with time zone" => "now() + n * interval '1 s'".to_owned(),
        other => panic!("what is a {other}?"),
    };
    // There are ten priorities whatever the batch.
    let rows = if element == "smallint" { 10 } else { rows };
    let literal = if element == kind {
        // A limit, or the last queue.
        format!("SELECT quote_literal({value}) FROM (VALUES ({rows})) AS v (n)")
    } else {
        format!("SELECT quote_literal(array_agg({value})::text) FROM generate_series(1, {rows}) n")
    };
    format!("{}::{kind}", run(connection, literal).await[0])
}

/// The plan of a statement.
async fn plan(connection: &mut PgConnection, name: &str, planned: Planned) -> String {
    let (_, statement) = Store::statements()
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    run(connection, format!("PREPARE {name} AS {statement}")).await;
    let types = format!(
        "SELECT unnest(parameter_types)::text FROM pg_prepared_statements WHERE name = '{name}'"
    );
    let mut parameters = Vec::new();
    for kind in run(connection, types).await {
        parameters.push(match planned {
            Planned::Generic => "NULL".to_owned(),
            Planned::For(rows) => parameter(connection, &kind, rows).await,
        });
    }
    let parameters = parameters.join(", ");
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE {name}({parameters})");
    let lines = run(connection, explain).await;
    run(connection, format!("DEALLOCATE {name}")).await;
    lines.join("\n")
}

/// Whether a plan walks through a whole hot table, or a whole index of one.
fn reads_all(plan: &str) -> bool {
    let lines: Vec<&str> = plan.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let hot = ["ready", "parked", "messages", "lined_up", "turns"]
            .iter()
            .any(|table| line.contains(&format!(" on {table}")));
        let mut details = lines[at + 1..].iter().take_while(|l| !l.contains("->"));
        let bounded = line.contains("Tid Scan")
            || line.contains("Index") && details.any(|detail| detail.contains("Index Cond:"));
        hot && line.contains("Scan") && !bounded
    })
}

/// The hot statements, and which scans each is made of.
const HOT: &[(&str, &[&str])] = &[
    (
        "claim",
        &[
            "Index Scan using ready_pkey on ready",
            "Tid Scan on ready",
            "Index Scan using messages_0_pkey on messages_0",
        ],
    ),
    (
        "ack",
        &[
            "Index Scan using parked_pkey on parked",
            "Tid Scan on parked",
        ],
    ),
    (
        "ack_ordered",
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
    ("publish_topic", &[]),
    ("stream", &["using stream_0_pkey on stream_0"]),
    ("retained", &[]),
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
    ("hold", &["Tid Scan on parked"]),
    ("floors", &["using ready_pkey on ready"]),
    ("with_ready", &["using ready_pkey on ready"]),
    ("expire", &["using ready_by_expiry on ready"]),
    ("message", &["using ready_pkey on ready"]),
    ("browse_ready", &["using ready_pkey on ready"]),
    ("browse_parked", &["using parked_by_wake on parked"]),
    ("cancel", &[]),
    ("redrive", &["using ready_pkey on ready"]),
    ("prune_stragglers", &["using ready_pkey on ready"]),
    ("resend", &["using ready_pkey on ready"]),
    ("overflow", &["using ready_pkey on ready"]),
    ("counts", &["using ready_pkey on ready"]),
    ("queue_numbers", &["using ready_pkey on ready"]),
    ("queue_numbers", &["using parked_by_wake on parked"]),
    ("next_due", &["using parked_by_wake on parked"]),
    ("due_floors", &["using parked_by_wake on parked"]),
    ("publish_lined", &[]),
    ("publish_topic_lined", &[]),
    ("sweep_turns", &["using lined_up_pkey on lined_up"]),
    ("move_lined_up", &["using lined_up_by_message on lined_up"]),
    (
        "browse_lined_up",
        &["using lined_up_by_message on lined_up"],
    ),
    ("purge_lined_up", &["using lined_up_by_message on lined_up"]),
    ("expire_lined_up", &["using lined_up_by_expiry on lined_up"]),
    ("blocked_keys", &["using lined_up_pkey on lined_up"]),
    ("unblock", &["using lined_up_pkey on lined_up"]),
];

/// Checks the plans of all hot statements.
pub(super) async fn check(connection: &mut PgConnection, planned: Planned) {
    let mode = match planned {
        Planned::Generic => "generic",
        Planned::For(_) => "custom",
    };
    let session = format!("{SESSION}; SET plan_cache_mode = 'force_{mode}_plan'");
    run(connection, session).await;
    for (name, scans) in HOT.iter().copied() {
        let plan = plan(connection, name, planned).await;
        assert!(
            !reads_all(&plan),
            "{name} ({planned:?}) reads a whole table:\n{plan}"
        );
        for scan in scans {
            assert!(
                plan.contains(scan),
                "{name} ({planned:?}) has no {scan}:\n{plan}"
            );
        }
        // A probe a row: a join may read the whole queue to make a hash of it.
        if matches!(name, "redrive" | "prune_stragglers" | "resend") {
            assert!(
                !plan.contains("Anti Join") && !plan.contains("Semi Join"),
                "{name} ({planned:?}) joins instead of probing:\n{plan}"
            );
        }
        // In order from the index: a sort would read the whole backlog first.
        if matches!(
            name,
            "claim" | "due" | "browse_ready" | "overflow" | "stream"
        ) {
            let limited = plan.split("Limit").nth(1).unwrap_or_default();
            let next = limited.lines().find(|line| line.contains("->"));
            assert!(
                !next.is_some_and(|line| line.contains("Sort")),
                "{name} ({planned:?}) sorts before its limit:\n{plan}"
            );
        }
    }
}

/// Checks all ways of planning, on a connection that knows nothing yet.
pub(super) async fn check_anew(database: &Database) {
    let mut connection = database.connect().await;
    for planned in [Planned::Generic, Planned::For(1), Planned::For(1000)] {
        check(&mut connection, planned).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_statements_use_their_indexes_whatever_the_statistics_say() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    check(&mut connection, Planned::Generic).await;
    // On empty tables, on tiny ones, and on full ones that the planner thinks
    // are empty: anew and cached.
    check_anew(&database).await;
    for (from, to) in [(1, 20), (21, 200_000)] {
        for filling in [
            format!(
                "INSERT INTO postrider.messages (id, body)
                 SELECT n, '1' FROM generate_series({from}, {to}) AS n"
            ),
            format!(
                "INSERT INTO postrider.stream (topic_id, message_id, routing_key)
                 SELECT 1000 + n % 3, n, '' FROM generate_series({from}, {to}) AS n"
            ),
            format!(
                "INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
                 SELECT 1000 + n % 3, n % 10, n, n, now() + interval '1 day'
                 FROM generate_series({from}, {to}) AS n"
            ),
            format!(
                "INSERT INTO postrider.parked (queue_id, message_id, wake_at, expires_at, priority)
                 SELECT 1000 + n % 3, n, now() + interval '1 hour', now() + interval '1 day', 0
                 FROM generate_series({from}, {to}) AS n WHERE n % 4 = 0"
            ),
            format!(
                "INSERT INTO postrider.lined_up
                    (queue_id, key, position, message_id, wake_at, expires_at, priority)
                 SELECT 1000 + n % 3, n % 7, n, n, now(), now() + interval '1 day', 0
                 FROM generate_series({from}, {to}) AS n"
            ),
            "INSERT INTO postrider.turns (queue_id, key)
             SELECT DISTINCT queue_id, key FROM postrider.lined_up
             ON CONFLICT DO NOTHING"
                .to_owned(),
        ] {
            execute(&database, filling).await;
        }
        check_anew(&database).await;
        check(&mut connection, Planned::Generic).await;
    }
    // And when it knows better.
    execute(&database, "ANALYZE postrider.ready, postrider.parked").await;
    check_anew(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_made_while_little_is_parked_finds_leases_by_their_message() {
    let database = Database::migrated().await;
    for left in [0, 1] {
        // What statistics say in the middle of a busy minute: a vacuum that came
        // when nearly all leases were acked, and an index that is large and empty.
        for statement in [
            "TRUNCATE postrider.parked".to_owned(),
            "INSERT INTO postrider.parked (queue_id, message_id, wake_at, expires_at, priority)
             SELECT 1000, n, now() + interval '1 hour', now() + interval '1 day', 0
             FROM generate_series(1, 100000) AS n"
                .to_owned(),
            format!("DELETE FROM postrider.parked WHERE message_id > {left}"),
            "VACUUM ANALYZE postrider.parked".to_owned(),
        ] {
            execute(&database, statement).await;
        }
        let mut connection = database.connect().await;
        let session = format!("{SESSION}; SET plan_cache_mode = 'force_generic_plan'");
        run(&mut connection, session).await;
        for name in ["ack", "settle", "extend", "late", "hold"] {
            let plan = plan(&mut connection, name, Planned::Generic).await;
            assert!(
                plan.contains("using parked_pkey on parked") && !plan.contains("parked_by_wake"),
                "{name} looks through its whole queue:\n{plan}"
            );
        }
    }
}
