//! What happens at the same moment, and what nobody is left to do.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::Row as _;
use tokio_util::task::TaskTracker;

use super::{ack, ack_next, bodies, nack, ordered, publish_all, receive_now};
use crate::store::{execute, message_id, number, queue_id};
use crate::support::{App, Gateway, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_between_an_ack_and_the_turn_leaves_nobody_waiting() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    publish_all(&app, "q", "b", &[11]).await;
    app.receive("q", json!({"max_messages": 2})).await;
    // What an ack's statement does, and nobody passes the turn on.
    execute(&app.database, "DELETE FROM postrider.parked").await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_between_a_publish_and_the_turn_leaves_nobody_waiting() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let id = queue_id(&app.database, "q").await;
    for statement in [
        "INSERT INTO postrider.messages (id, body, key)
         VALUES (nextval('postrider.message_ids'), '1', 'a')"
            .to_owned(),
        format!("INSERT INTO postrider.turns (queue_id, key) VALUES ({id}, 'a')"),
        format!(
            "INSERT INTO postrider.lined_up
                (queue_id, key, position, message_id, wake_at, expires_at, priority)
             SELECT {id}, key, id, id, now(), now() + interval '1 day', 0
             FROM postrider.messages"
        ),
    ] {
        execute(&app.database, statement).await;
    }
    ack_next(&app, "q", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_key_are_committed_in_their_order_however_slow_a_publish_is() {
    let app = Arc::new(App::start().await);
    let other = app.another().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[0]).await;
    let id = queue_id(&app.database, "q").await;
    // A publish that has drawn its id and is not committed yet.
    let mut slow = app.database.connect().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "BEGIN;
         INSERT INTO postrider.turns (queue_id, key) VALUES ({id}, 'a')
            ON CONFLICT (queue_id, key) DO UPDATE SET floor = excluded.floor WHERE false;
         INSERT INTO postrider.messages (id, body, key)
            VALUES (nextval('postrider.message_ids'), '1', 'a');
         INSERT INTO postrider.lined_up
            (queue_id, key, position, message_id, wake_at, expires_at, priority)
         SELECT {id}, 'a', last_value, last_value, now(), now() + interval '1 day', 0
         FROM postrider.message_ids"
    )))
    .execute(&mut slow)
    .await
    .unwrap();
    let publishing = TaskTracker::new().spawn({
        let app = Arc::clone(&app);
        async move { app.publish("q", json!({"body": 2, "key": "a"})).await }
    });
    app.database.until_stuck("-- publish", 1).await;
    // Other keys do not.
    publish_all(&other, "q", "b", &[11]).await;
    assert!(!publishing.is_finished());
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    publishing.await.unwrap();
    let both = receive_now(&app, "q").await;
    for message in &both {
        ack(&app, "q", message).await;
    }
    assert_eq!(bodies(&both), [0, 11]);
    ack_next(&app, "q", 1).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_and_an_ack_at_the_same_moment_leave_nobody_waiting() {
    let app = Arc::new(App::start().await);
    let other = Arc::new(app.another().await);
    app.queue("q", ordered()).await;
    for round in 0..60 {
        let key = format!("k{round}");
        publish_all(&app, "q", &key, &[1]).await;
        let first = app.receive_one("q").await;
        let (publishing, acking) = (Arc::clone(&app), Arc::clone(&other));
        let next = json!({"body": 2, "key": key});
        tokio::join!(
            async move { publishing.publish("q", next).await },
            async move { ack(&acking, "q", &first).await },
        );
        // At once: not by the sweep.
        let messages = receive_now(&app, "q").await;
        assert_eq!(bodies(&messages), [2], "round {round}");
        ack(&app, "q", &messages[0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_switch_waits_for_publishes_that_are_under_way() {
    let app = Arc::new(App::start().await);
    app.queue("q", json!({})).await;
    let id = queue_id(&app.database, "q").await;
    let mut slow = app.database.connect().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "BEGIN;
         INSERT INTO postrider.ready (queue_id, priority, position, message_id, expires_at)
         VALUES ({id}, 0, 1, 1, now() + interval '1 day')"
    )))
    .execute(&mut slow)
    .await
    .unwrap();
    let switching = TaskTracker::new().spawn({
        let app = Arc::clone(&app);
        async move { app.patch("/v1/queues/q", json!({"ordered": true})).await }
    });
    eventually("the switch waits", async || {
        let waiting = "SELECT count(*) FROM pg_locks
            WHERE NOT granted AND mode = 'ShareLock' AND relation = 'postrider.ready'::regclass
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        switching.is_finished() || number(&app.database, waiting).await > 0
    })
    .await;
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.unwrap();
    let answer = switching.await.unwrap();
    assert!(
        matches!(answer.status.as_u16(), 409 | 503),
        "{}",
        answer.text
    );
    app.patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect_problem(409, "queue-not-empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_race_with_the_switch_and_no_message_is_out_of_line() {
    let app = Arc::new(App::start().await);
    let other = Arc::new(app.another().await);
    app.queue("q", json!({})).await;
    other.publish("q", json!({"body": 0, "key": "a"})).await;
    app.post("/v1/queues/q/purge", "{}").await;
    let publishing = TaskTracker::new().spawn({
        let other = Arc::clone(&other);
        async move {
            for body in 1..=100 {
                other.publish("q", json!({"body": body, "key": "a"})).await;
            }
        }
    });
    loop {
        let answer = app.patch("/v1/queues/q", json!({"ordered": true})).await;
        if answer.status == StatusCode::OK {
            break;
        }
        app.post("/v1/queues/q/purge", "{}").await;
    }
    publishing.await.unwrap();
    let mut last = 0;
    loop {
        let messages = receive_now(&app, "q").await;
        assert!(messages.len() <= 1, "{:?}", bodies(&messages));
        let Some(message) = messages.first() else {
            break;
        };
        let id = message_id(message["id"].as_str().unwrap());
        assert!(last < id);
        last = id;
        ack(&app, "q", message).await;
    }
    assert_eq!(app.counts("q").await["ready"], 0);
}

/// How many pages passing a key's turn on reads.
async fn pages_of_a_turn(app: &App, queue_id: i64) -> i64 {
    let mut connection = app.database.connect().await;
    let mut pages = 0;
    // The first time a session also reads what the catalog says.
    for _ in 0..2 {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
             SELECT * FROM postrider.next_turn(ARRAY[{queue_id}::bigint], ARRAY['a'],
                ARRAY[NULL::bigint], 1000)"
        )))
        .fetch_one(&mut connection)
        .await
        .unwrap();
        let plan: Value = row.get(0);
        pages = plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap();
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_snapshot_does_not_make_turns_slow() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let id = queue_id(&app.database, "q").await;
    let mut holder = app.database.connect().await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM postrider.queues")
        .execute(&mut holder)
        .await
        .unwrap();
    execute(
        &app.database,
        format!("INSERT INTO postrider.turns (queue_id, key) VALUES ({id}, 'a')"),
    )
    .await;
    execute(
        &app.database,
        format!(
            "INSERT INTO postrider.lined_up
                (queue_id, key, position, message_id, wake_at, expires_at, priority)
             SELECT {id}, 'a', n, n, now(), now() + interval '1 day', 0
             FROM generate_series(1, 8000) AS n"
        ),
    )
    .await;
    let pass = async |turns: usize| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "DO $$ BEGIN FOR n IN 1..{turns} LOOP
                PERFORM postrider.next_turn(ARRAY[{id}::bigint], ARRAY['a'],
                    ARRAY[NULL::bigint], 1000);
                DELETE FROM postrider.ready WHERE queue_id = {id};
                COMMIT;
             END LOOP; END $$"
        )))
        .execute(&mut app.database.connect().await)
        .await
        .unwrap();
    };
    pass(6000).await;
    // Longer than a floor stays where it is.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    pass(300).await;
    let pages = pages_of_a_turn(&app, id).await;
    assert!(pages < 1500, "{pages} pages");
    execute(&app.database, "UPDATE postrider.turns SET floor = 0").await;
    let without = pages_of_a_turn(&app, id).await;
    assert!(without > 3000, "{without} pages: the test is worth nothing");
}

/// Messages that stand in line behind one that does not move.
const BEHIND: i64 = 100_000;

/// The tables that a message of an ordered queue is in, but for its content.
const LINES: [&str; 4] = ["lined_up", "turns", "ready", "parked"];

/// Messages of twenty other keys go by, two of each.
async fn others_go_by(app: &Gateway, round: &str) {
    for n in 0..20 {
        publish_all(app, "q", &format!("{round}-{n}"), &[1, 2]).await;
        ack_next(app, "q", 1).await;
        ack_next(app, "q", 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_behind_a_key_that_does_not_move_costs_other_keys_nothing() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let id = queue_id(&app.database, "q").await;
    publish_all(&app, "q", "a", &[0]).await;
    let head = app.receive("q", json!({"lease_seconds": 600})).await;
    // Far above what is published meanwhile.
    let lined_up = format!(
        "INSERT INTO postrider.lined_up
            (queue_id, key, position, message_id, wake_at, expires_at, priority)
         SELECT {id}, 'a', n, n, now(), now() + interval '1 day', 0
         FROM generate_series(10000001, 10000000 + {BEHIND}) AS n"
    );
    execute(&app.database, lined_up).await;

    for resting in [0, 1] {
        let before = app.database.entries_read(&LINES).await;
        // The sessions of the one before were ended.
        let gateway = app.another().await;
        if resting == 1 {
            nack(&gateway, "q", &head[0], json!({"delay_seconds": 600})).await;
        }
        others_go_by(&gateway, &format!("{resting}")).await;
        let read = app.database.entries_read(&LINES).await - before;
        assert!(read < 40 * 100, "{read} entries for 40 messages");
        let rests = format!(
            "SELECT count(*) FILTER (WHERE token = 0) FROM postrider.parked
             WHERE queue_id = {id} HAVING count(*) = 1"
        );
        assert_eq!(number(&app.database, rests).await, resting);
    }
    // Had one of them walked along the line once, it would have been seen.
    let walk = format!(
        "SET enable_seqscan = off;
         SELECT count(*) FROM postrider.lined_up WHERE queue_id = {id} AND key = 'a'"
    );
    let before = app.database.entries_read(&LINES).await;
    app.database.execute(&walk).await;
    eventually("it is seen", async || {
        app.database.entries_read(&LINES).await - before > BEHIND
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_extended_while_it_is_acked_holds_up_none_behind_it() {
    let app = Arc::new(App::start().await);
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let run = app.receive("q", json!({"max_messages": 2})).await;
    assert_eq!(bodies(&run), [1, 2]);
    let first = message_id(run[0]["id"].as_str().unwrap());
    // As an extend has it that is not committed yet.
    let mut extending = app.database.connect().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "BEGIN;
         UPDATE postrider.parked SET wake_at = wake_at + interval '1 min'
         WHERE message_id = {first}"
    )))
    .execute(&mut extending)
    .await
    .unwrap();
    let acking = TaskTracker::new().spawn({
        let app = Arc::clone(&app);
        let receipts = [run[0]["receipt"].clone(), run[1]["receipt"].clone()];
        async move {
            let receipts: Vec<&Value> = receipts.iter().collect();
            app.settle("ack", "q", &receipts, json!({})).await
        }
    });
    app.database.until_stuck("-- ack", 1).await;
    sqlx::raw_sql("COMMIT")
        .execute(&mut extending)
        .await
        .unwrap();
    acking.await.unwrap().expect(StatusCode::OK);
    assert_eq!(app.counts("q").await["leased"], 0);
}
