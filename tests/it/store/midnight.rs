//! Dedup ids around midnight UTC, when their partition changes; and that all
//! statements that publish go by the same rule there.

use postrider::store::Store;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::queue_id;
use crate::support::App;

/// `publish_dedup.sql` for one message with one dedup id, as it would run at
/// another time: so many seconds after midnight of the day after tomorrow.
fn publish_at(seconds: f64, queue_id: i64) -> String {
    let (_, sql) = Store::statements()
        .into_iter()
        .find(|(name, _)| *name == "publish_dedup")
        .unwrap();
    let now = format!(
        "(((now() AT TIME ZONE 'UTC')::date + 2)::timestamp AT TIME ZONE 'UTC' \
          + {seconds} * interval '1 s')"
    );
    let values = [
        &format!("ARRAY[{queue_id}]"),
        "ARRAY['1'::bytea]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[0]",
        "ARRAY[0]",
        "ARRAY[NULL]",
        "ARRAY[3600000]",
        "ARRAY[false]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY['the same']",
        "ARRAY[3600000]",
        "ARRAY[NULL::integer]",
    ];
    let mut sql = sql.replace("now()", &now);
    for (n, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", n + 1), value);
    }
    sql
}

/// The id and whether it is a duplicate; no id where another statement has it.
async fn run(connection: &mut PgConnection, sql: String) -> (Option<i64>, bool) {
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap();
    (
        row.try_get("id").unwrap(),
        row.try_get("duplicate").unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_on_either_side_of_midnight_store_one_message() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let (mut before, mut after) = (app.database.connect().await, app.database.connect().await);

    // Begun before midnight, not committed when the other begins.
    sqlx::raw_sql("BEGIN").execute(&mut before).await.unwrap();
    let (id, duplicate) = run(&mut before, publish_at(-0.1, queue)).await;
    assert!(id.is_some() && !duplicate);
    let waiting = run(&mut after, publish_at(1.0, queue));
    let freeing = async {
        app.database.until_stuck("-- publish", 1).await;
        sqlx::raw_sql("COMMIT").execute(&mut before).await.unwrap();
    };
    let ((_, duplicate), ()) = tokio::join!(waiting, freeing);
    assert!(duplicate, "stored twice");
    // From then on the row of the day before is seen.
    assert_eq!(run(&mut after, publish_at(120.0, queue)).await, (id, true));
}

/// `publish_topic.sql` likewise, for one message to one queue.
fn publish_topic_at(seconds: f64, topic_id: i64, queue_id: i64) -> String {
    let (_, sql) = Store::statements()
        .into_iter()
        .find(|(name, _)| *name == "publish_topic")
        .unwrap();
    let now = format!(
        "(((now() AT TIME ZONE 'UTC')::date + 2)::timestamp AT TIME ZONE 'UTC' \
          + {seconds} * interval '1 s')"
    );
    let values = [
        &format!("ARRAY[{topic_id}]"),
        "ARRAY['shop']",
        "ARRAY['']",
        "ARRAY['1'::bytea]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[3600000]",
        "ARRAY[0]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY[NULL]",
        "ARRAY['the same']",
        "ARRAY[3600000]",
        "ARRAY[1]",
        "ARRAY[0]",
        &format!("ARRAY[{queue_id}]"),
        "ARRAY[NULL::integer]",
    ];
    let mut sql = sql.replace("now()", &now);
    for (n, value) in values.iter().enumerate().rev() {
        sql = sql.replace(&format!("${}", n + 1), value);
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_to_a_topic_on_either_side_of_midnight_store_one_message() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let topic = "SELECT id FROM postrider.topics WHERE name = 'shop'";
    let topic = super::number(&app.database, topic).await;
    let (mut before, mut after) = (app.database.connect().await, app.database.connect().await);
    sqlx::raw_sql("BEGIN").execute(&mut before).await.unwrap();
    let (id, duplicate) = run(&mut before, publish_topic_at(-0.1, topic, queue)).await;
    assert!(id.is_some() && !duplicate);
    let waiting = run(&mut after, publish_topic_at(1.0, topic, queue));
    let freeing = async {
        app.database.until_stuck("-- publish", 1).await;
        sqlx::raw_sql("COMMIT").execute(&mut before).await.unwrap();
    };
    let ((_, duplicate), ()) = tokio::join!(waiting, freeing);
    assert!(duplicate, "stored twice");
    let later = run(&mut after, publish_topic_at(120.0, topic, queue)).await;
    assert_eq!(later, (id, true));
}

/// Why the minute has to be longer than any statement: after it nobody waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_outlives_the_minute_would_be_missed() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let (mut before, mut after) = (app.database.connect().await, app.database.connect().await);
    sqlx::raw_sql("BEGIN").execute(&mut before).await.unwrap();
    run(&mut before, publish_at(-0.1, queue)).await;
    let (_, duplicate) = run(&mut after, publish_at(61.0, queue)).await;
    assert!(!duplicate);
}

/// What is in a `.sql` file from the first of these lines up to the second.
fn part(name: &str, from: &str, to: &str) -> String {
    let mut all = Store::statements().into_iter();
    let (_, sql) = all.find(|(known, _)| *known == name).unwrap();
    let lines = sql.lines().skip_while(|line| *line != from);
    let part: Vec<&str> = lines.take_while(|line| *line != to).collect();
    assert!(
        part.len() > 40,
        "{name} has not much between {from} and {to}"
    );
    part.join("\n")
}

#[test]
fn what_may_line_up_wins_its_dedup_id_by_the_same_text_as_what_may_not() {
    let first = "first AS MATERIALIZED (";
    for (plain, lined, end) in [
        ("publish_dedup", "publish_lined", "made_ready AS ("),
        (
            "publish_topic",
            "publish_topic_lined",
            "new AS MATERIALIZED (",
        ),
    ] {
        assert_eq!(part(plain, first, end), part(lined, first, end), "{lined}");
    }
}
