//! Schedules that one gateway cannot deal with, or whose target has just changed.
//! Without a gateway: the test says when it is looked what is due.

use std::time::Duration;

use postrider::domain::{QueueName, QueueSettings};
use postrider::store::{Fired, Store};

use crate::store::{execute, number};
use crate::support::{Database, eventually};

const YEARLY: &str = "0 0 1 1 *";

fn q() -> QueueName {
    QueueName::parse("q", "").unwrap()
}

async fn store_with_a_queue(database: &Database) -> Store {
    let store = database.store(Store::PARTITION_SIZE);
    let made = store.create_queue(&q(), &QueueSettings::default()).await;
    made.unwrap().unwrap();
    store
}

/// A schedule that goes to the queue, with a key of its own name.
async fn schedule(database: &Database, name: &str, zone: &str, due_in_seconds: i32) {
    execute(
        database,
        format!(
            "INSERT INTO postrider.schedules
                (name, cron, timezone, queue, body, priority, key, paused, catch_up, next_run)
             VALUES ('{name}', '{YEARLY}', '{zone}', 'q', '1', 5, '{name}', false, 'one',
                now() + {due_in_seconds} * interval '1 s')"
        ),
    )
    .await;
}

/// Keys of what was published, and what has no message.
fn outcome(fired: &Fired) -> (Vec<&str>, Vec<(&str, &str)>) {
    let publishes = fired.arrived.queues.iter();
    let messages = publishes.flat_map(|(publish, _)| publish.messages.iter());
    let failed = fired.failed.iter();
    (
        messages.filter_map(|m| m.key.as_deref()).collect(),
        failed.map(|f| (&*f.schedule, f.code)).collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_gateway_cannot_read_is_left_to_others_and_looked_at_every_second() {
    let database = Database::migrated().await;
    let store = store_with_a_queue(&database).await;
    schedule(&database, "odd", "Moon/Tycho", -5).await;
    schedule(&database, "good", "UTC", 0).await;
    let due = "SELECT extract(epoch FROM next_run)::bigint FROM postrider.schedules
        WHERE name = 'odd'";
    let before = number(&database, due).await;

    let fired = store.fire_schedules().await.unwrap();
    assert_eq!(outcome(&fired), (vec!["good"], vec![("odd", "invalid")]));
    let again = Duration::from_millis(500)..=Duration::from_secs(1);
    assert!(again.contains(&fired.next_in.unwrap()), "{fired:?}");
    // It is told once, and does not stand in front of others.
    schedule(&database, "next", "UTC", 0).await;
    let fired = store.fire_schedules().await.unwrap();
    assert_eq!(outcome(&fired), (vec!["next"], vec![]));
    assert!(
        fired.next_in.unwrap() <= Duration::from_secs(1),
        "{fired:?}"
    );
    assert!(fired.next_in.unwrap() > Duration::ZERO, "{fired:?}");
    assert_eq!(number(&database, due).await, before, "it keeps its tick");

    // Another gateway's, or somebody mends it.
    execute(
        &database,
        "UPDATE postrider.schedules SET timezone = 'UTC' WHERE name = 'odd'",
    )
    .await;
    let mut got = Vec::new();
    eventually("it is published for", async || {
        let fired = store.fire_schedules().await.unwrap();
        got.extend(outcome(&fired).0.iter().map(ToString::to_string));
        !got.is_empty()
    })
    .await;
    assert_eq!(got, ["odd"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_made_anew_or_became_ordered_just_now_costs_no_tick() {
    let database = Database::migrated().await;
    let store = store_with_a_queue(&database).await;
    let other = database.store(Store::PARTITION_SIZE);
    other.delete_queue(&q(), None, false).await.unwrap();
    let mut settings = QueueSettings::default();
    let made = other.create_queue(&q(), &settings).await.unwrap().unwrap();
    schedule(&database, "anew", "UTC", 0).await;
    let fired = store.fire_schedules().await.unwrap();
    assert_eq!(outcome(&fired), (vec!["anew"], vec![]));

    execute(&database, "DELETE FROM postrider.ready").await;
    settings.ordered = true;
    other
        .update_queue(&q(), &settings, made.version)
        .await
        .unwrap();
    schedule(&database, "ordered", "UTC", 0).await;
    let fired = store.fire_schedules().await.unwrap();
    assert_eq!(outcome(&fired), (vec!["ordered"], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_whose_message_is_not_stored_loses_its_tick_though_another_is_due_before_it() {
    let database = Database::migrated().await;
    let store = store_with_a_queue(&database).await;
    // The second try, which is of this one alone, ends when the test says so.
    database
        .execute(
            "CREATE SEQUENCE tries;
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                IF nextval('tries') = 2 THEN PERFORM pg_advisory_xact_lock(2); END IF;
                RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation';
             END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON postrider.messages
             FOR EACH ROW WHEN (new.key = 'bad') EXECUTE FUNCTION refuse()",
        )
        .await;
    let mut holder = database.connect().await;
    sqlx::raw_sql("SELECT pg_advisory_lock(2)")
        .execute(&mut holder)
        .await
        .unwrap();
    schedule(&database, "bad", "UTC", 0).await;
    let firing = store.fire_schedules();
    let meanwhile = async {
        eventually("it is tried alone", async || {
            let waiting = "SELECT count(*) FROM pg_locks
                WHERE locktype = 'advisory' AND NOT granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            number(&database, waiting).await == 1
        })
        .await;
        schedule(&database, "good", "UTC", -20).await;
        sqlx::raw_sql("SELECT pg_advisory_unlock(2)")
            .execute(&mut holder)
            .await
            .unwrap();
    };
    let (fired, ()) = tokio::join!(firing, meanwhile);
    let fired = fired.unwrap();
    assert_eq!(outcome(&fired), (vec![], vec![("bad", "internal")]));
    let fired = store.fire_schedules().await.unwrap();
    assert_eq!(outcome(&fired), (vec!["good"], vec![]));
}
