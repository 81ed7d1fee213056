//! What is not answered in time, and how long replies are kept.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{pending, read, reply, request, with_work};
use crate::support::{App, Database, Held, eventually};

/// Lets the deadlines of all requests pass: their messages were stored long ago.
async fn let_deadlines_pass(database: &Database) {
    database
        .execute(
            "UPDATE postrider.messages SET enqueued_at = enqueued_at - interval '1 hour';
             UPDATE postrider.parked SET expires_at = now() - interval '1 s';
             UPDATE postrider.ready SET expires_at = now() - interval '1 s'",
        )
        .await;
}

/// How many replies there are.
async fn replies(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM postrider.replies")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_received_by_its_deadline_never_is_received() {
    let app = with_work().await;
    let message = json!({"body": 1, "timeout_seconds": 0.1});
    let answer = request(&app, Some("wait=20"), message).await;
    answer.expect_problem(504, "request-expired");
    assert_eq!(answer.headers["preference-applied"], "wait=20");
    let received = app.receive("work", json!({})).await;
    assert_eq!(received, Vec::<Value>::new());
    // Where it would have been there is nothing before long.
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    eventually("it is over", async || {
        let read = app.get(&location).await;
        let is_over = read.status != StatusCode::NO_CONTENT;
        if is_over {
            read.expect_problem(404, "reply-not-found");
        }
        is_over
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_took_long_to_be_stored_has_all_of_its_time_from_then_on() {
    let app = with_work().await;
    app.queue("other", json!({})).await;
    let held = Held::table(&app.database, "messages", "SHARE").await;
    let other = app.publish("other", json!({"body": 0}));
    // It waits behind that one for its turn to be stored.
    let message = json!({"body": 1, "timeout_seconds": 0.4});
    let asking = async {
        app.database.until_stuck("-- publish", 1).await;
        let storing = async {
            // Longer than its time.
            tokio::time::sleep(Duration::from_millis(800)).await;
            held.let_go().await;
        };
        tokio::join!(request(&app, Some("wait=20"), message), storing).0
    };
    let (_, answer) = tokio::join!(other, asking);
    answer.expect_problem(504, "request-expired");
    let received = app.receive("work", json!({})).await;
    assert_eq!(received, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_after_the_deadline_is_refused_and_the_request_does_not_come_back() {
    let app = App::start().await;
    let backoff = json!({"initial_seconds": 0, "max_seconds": 0});
    app.queue("work", json!({"backoff": backoff})).await;
    let id = pending(&app, json!({"body": 1})).await;
    let message = app.receive("work", json!({"lease_seconds": 3})).await;
    let_deadlines_pass(&app.database).await;
    let late = reply(&app, &message[0]["receipt"], json!(1)).await;
    late.expect_problem(409, "reply-late");
    assert_eq!(replies(&app.database).await, 0);
    read(&app, &id).await.expect(StatusCode::NO_CONTENT);
    eventually("it is gone", async || {
        let counts = app.counts("work").await;
        ["leased", "delayed", "ready"]
            .iter()
            .all(|state| counts[state] == 0)
    })
    .await;
    let received = app.receive("work", json!({})).await;
    assert_eq!(received, Vec::<Value>::new());
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answered_in_time_may_say_so_again_later() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    reply(&app, &receipt, json!(1)).await.expect(StatusCode::OK);
    let_deadlines_pass(&app.database).await;
    reply(&app, &receipt, json!(1)).await.expect(StatusCode::OK);
    read(&app, &id).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_not_there_any_more_when_its_time_is_over() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1, "timeout_seconds": 0.5})).await;
    let unanswered = pending(&app, json!({"body": 2, "timeout_seconds": 0.5})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    reply(&app, &receipt, json!(1)).await.expect(StatusCode::OK);
    // That its request is over is not the end of its own time.
    eventually("one that was made later is over", async || {
        read(&app, &unanswered).await.status == StatusCode::NOT_FOUND
    })
    .await;
    read(&app, &id).await.expect(StatusCode::OK);
    app.database
        .execute("UPDATE postrider.replies SET expires_at = now()")
        .await;
    read(&app, &id).await.expect_problem(404, "reply-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_have_gone_by_are_emptied_and_no_others() {
    let app = with_work().await;
    // One for each slot: five of now and later, one between, two that have gone by.
    app.database
        .execute(
            "INSERT INTO postrider.replies
                (slot, id, queue_id, message_id, token, expires_at, body)
             SELECT
                (floor(extract(epoch FROM now()) / 1200)::bigint + n) % 8,
                uuid_send(gen_random_uuid()), 1, 1, 1, now() + n * interval '20 min', '1'
             FROM generate_series(-2, 5) AS n",
        )
        .await;
    app.app.store().drop_days(30).await.unwrap();
    let left: Vec<(i64,)> = sqlx::query_as(
        "SELECT round(extract(epoch FROM expires_at - now()) / 1200)::bigint
         FROM postrider.replies ORDER BY expires_at",
    )
    .fetch_all(&mut app.database.connect().await)
    .await
    .unwrap();
    let left: Vec<i64> = left.into_iter().map(|(n,)| n).collect();
    assert_eq!(left, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_reads_is_emptied_later() {
    let app = with_work().await;
    app.database
        .execute(
            "INSERT INTO postrider.replies
                (slot, id, queue_id, message_id, token, expires_at, body)
             SELECT
                (floor(extract(epoch FROM now()) / 1200)::bigint + 7) % 8,
                uuid_send(gen_random_uuid()), 1, 1, 1, now() - interval '20 min', '1'",
        )
        .await;
    let mut dump = app.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM postrider.replies")
        .execute(&mut dump)
        .await
        .unwrap();
    assert!(app.app.store().drop_days(30).await.is_err());
    // Those who come after are not kept.
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    reply(&app, &receipt, json!(1)).await.expect(StatusCode::OK);
    sqlx::raw_sql("COMMIT").execute(&mut dump).await.unwrap();
    app.app.store().drop_days(30).await.unwrap();
    assert_eq!(replies(&app.database).await, 1);
    read(&app, &id).await.expect(StatusCode::OK);
}
