//! How long a key lives, and what is there while its first request runs.

use reqwest::StatusCode;
use serde_json::json;
use sqlx::Executor as _;

use super::{assert_replays, keyed};
use crate::store::{execute, number};
use crate::support::{App, Held, eventually};

const MESSAGES: &str = "/v1/queues/work/messages";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_first_request_runs_the_second_is_told_so_at_once() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1});
    // Answers cannot be kept, so the first request stays where it is.
    let held = Held::table(&app.database, "idempotency", "EXCLUSIVE").await;
    let racing = async {
        app.database.until_stuck("-- keep_answers", 1).await;
        for payload in [&body, &json!({"body": 2})] {
            let second = keyed(&other, MESSAGES, "a", payload).await;
            second.expect_problem(409, "idempotency-key-in-use");
            assert_eq!(second.headers["retry-after"], "1");
        }
        // Of two with one key at one gateway one is later, too.
        assert_eq!(app.counts("work").await["ready"], 0);
        held.let_go().await;
    };
    let (first, ()) = tokio::join!(keyed(&app, MESSAGES, "a", &body), racing);
    first.expect(StatusCode::CREATED);
    assert_replays(&keyed(&other, MESSAGES, "a", &body).await, &first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_with_one_key_store_one_message() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1});
    let all = (0..100).map(|n| {
        let gateway = if n % 2 == 0 { &app.gateway } else { &other };
        keyed(gateway, MESSAGES, "a", &body)
    });
    let answers = futures_util::future::join_all(all).await;
    let stored: Vec<&str> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED)
        .map(|answer| answer.text.as_str())
        .collect();
    assert!(!stored.is_empty());
    assert!(stored.iter().all(|text| *text == stored[0]));
    for answer in answers.iter().filter(|a| a.status != StatusCode::CREATED) {
        answer.expect_problem(409, "idempotency-key-in-use");
    }
    assert_eq!(app.counts("work").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_before_midnight_is_the_same_after_it() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1});
    let first = keyed(&app, MESSAGES, "a", &body).await;
    let yesterday = "UPDATE postrider.idempotency SET day = day - 1";
    assert_eq!(execute(&app.database, yesterday).await, 1);
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    keyed(&app, MESSAGES, "a", json!({"body": 2}))
        .await
        .expect_problem(422, "idempotency-key-reused");
    assert_eq!(app.counts("work").await["ready"], 1);
}

/// The one before midnight has not committed when the other begins after it, whose
/// row would be of another day and not in the way.
#[tokio::test(flavor = "multi_thread")]
async fn requests_on_either_side_of_midnight_have_one_effect() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1});
    let first = keyed(&app, MESSAGES, "a", &body).await;
    // As it was before the first has committed: its lock is had, its row not seen.
    let mut before = app.database.connect().await;
    before.execute("BEGIN").await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock(
            ('x' || encode(substr(digest, 1, 8), 'hex'))::bit(64)::bigint)
        FROM postrider.idempotency";
    before.execute(lock).await.unwrap();
    before
        .execute("CREATE TABLE aside AS SELECT * FROM postrider.idempotency")
        .await
        .unwrap();
    execute(&app.database, "DELETE FROM postrider.idempotency").await;
    let put_back = "INSERT INTO postrider.idempotency
        (digest, day, fingerprint, status, answer, expires_at)
        SELECT digest, day - 1, fingerprint, status, answer, expires_at FROM aside";
    before.execute(put_back).await.unwrap();
    keyed(&app, MESSAGES, "a", &body)
        .await
        .expect_problem(409, "idempotency-key-in-use");
    before.execute("COMMIT").await.unwrap();
    assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &first);
    assert_eq!(app.counts("work").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_again_after_24_hours() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let body = json!({"body": 1});
    let first = keyed(&app, MESSAGES, "a", &body).await;
    let hours = "SELECT round(extract(epoch FROM expires_at - now()) / 3600)::bigint
        FROM postrider.idempotency";
    assert_eq!(number(&app.database, hours).await, 24);
    for over in [
        "UPDATE postrider.idempotency SET expires_at = now(), day = day - 1",
        // Of the same day, if clocks were set back.
        "UPDATE postrider.idempotency SET expires_at = now() WHERE expires_at > now()",
    ] {
        assert_eq!(execute(&app.database, over).await, 1);
        let another = keyed(&app, MESSAGES, "a", &body).await;
        another.expect(StatusCode::CREATED);
        assert_ne!(another.text, first.text);
        assert_replays(&keyed(&app, MESSAGES, "a", &body).await, &another);
    }
    assert_eq!(app.counts("work").await["ready"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_over_are_dropped_whole_and_days_to_come_are_made() {
    let app = App::start().await;
    let days = "SELECT count(*) FROM pg_inherits
        WHERE inhparent = 'postrider.idempotency'::regclass";
    let made = number(&app.database, days).await;
    assert_eq!(made, 6);
    let past = |ago: i64| {
        format!(
            "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {ago}; BEGIN
                EXECUTE format('CREATE TABLE postrider.idempotency_%s
                    PARTITION OF postrider.idempotency FOR VALUES FROM (%L) TO (%L)',
                    to_char(day, 'YYYYMMDD'), day, day + 1); END $$"
        )
    };
    for ago in [2, 3, 4] {
        execute(&app.database, past(ago)).await;
    }
    eventually("they are dropped", async || {
        // A lock may not be had in time.
        app.app.store().drop_days(30).await.is_ok()
    })
    .await;
    assert_eq!(number(&app.database, days).await, made + 1);
    // A day that nobody made is made when it is needed.
    app.queue("work", json!({})).await;
    let today = "DO $$ BEGIN EXECUTE format('DROP TABLE postrider.idempotency_%s',
        to_char((now() AT TIME ZONE 'UTC')::date, 'YYYYMMDD')); END $$";
    execute(&app.database, today).await;
    keyed(&app, MESSAGES, "a", json!({"body": 1}))
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(app.counts("work").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_resent_to_a_webhook_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let hook = json!({"url": "http://127.0.0.1:8080/"});
    app.put("/v1/queues/work/webhook", hook)
        .await
        .expect(StatusCode::CREATED);
    app.post("/v1/queues/work/webhook/pause", "")
        .await
        .expect(StatusCode::OK);
    let id = app.publish("work", json!({"body": 1})).await;
    let bury = async || {
        let message = app.receive_one("work").await;
        let hopeless = json!({"dead_letter": true});
        app.settle("nack", "work", &[&message["receipt"]], hopeless)
            .await
            .expect(StatusCode::OK);
    };
    bury().await;
    let path = "/v1/queues/work/webhook/resend";
    let request = json!({"message_ids": [id, "no id"]});
    let first = keyed(&app, path, "a", &request).await;
    let results = first.expect(StatusCode::OK)["results"].clone();
    assert_eq!(results[0], json!({"ok": true, "was_dead": true}));
    assert_eq!(results[1]["code"], "message-gone");
    bury().await;
    assert_replays(&keyed(&app, path, "a", &request).await, &first);
    assert_eq!(app.counts("work").await["dead"], 1);
    let another = keyed(&app, path, "b", &request).await;
    assert_eq!(another.expect(StatusCode::OK)["results"], results);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_put_back_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let path = "/v1/queues/work/dead-letters/redrive";
    let request = json!({"filter": {}});
    let bury = async || {
        app.publish("work", json!({"body": 1})).await;
        let message = app.receive_one("work").await;
        app.settle(
            "nack",
            "work",
            &[&message["receipt"]],
            json!({"dead_letter": true}),
        )
        .await
        .expect(StatusCode::OK);
    };
    keyed(&app, path, "b", json!({"ids": ["msg_0000000000001"]}))
        .await
        .expect_problem(404, "dead-letter-not-found");
    bury().await;
    let first = keyed(&app, path, "a", &request).await;
    assert_eq!(first.expect(StatusCode::OK)["count"], 1);
    let message = app.receive_one("work").await;
    app.settle("ack", "work", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    bury().await;
    assert_replays(&keyed(&app, path, "a", &request).await, &first);
    assert_eq!(app.counts("work").await["dead"], 1);
    let another = keyed(&app, path, "b", &request).await;
    assert_eq!(another.expect(StatusCode::OK)["count"], 1);
    app.assert_conserved(&app.database, "work").await;
}
