//! `POST /v1/queues/{queue}/nack`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, number, seconds_between};
use crate::support::{App, eventually};

async fn message(app: &App, id: &str) -> Value {
    app.get(&format!("/v1/queues/work/messages/{id}"))
        .await
        .expect(StatusCode::OK)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nacked_message_waits_as_long_as_its_consumer_says() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let first = app.receive_one("work").await;
    let answer = app
        .settle(
            "nack",
            "work",
            &[&first["receipt"]],
            json!({"delay_seconds": 0.4}),
        )
        .await;
    assert_eq!(
        answer.expect(StatusCode::OK),
        json!({"results": [{"ok": true}]})
    );
    let waiting = message(&app, &id).await;
    if waiting["state"] == "delayed" {
        let ended = &waiting["history"][0]["ended_at"];
        assert!((seconds_between(ended, &waiting["ready_at"]) - 0.4).abs() < 1e-4);
    }
    let second = app.receive_one("work").await;
    assert_eq!((&second["id"], &second["attempt"]), (&json!(id), &json!(2)));
    let history = message(&app, &id).await["history"].clone();
    assert!(seconds_between(&history[0]["ended_at"], &history[1]["leased_at"]) >= 0.4);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_delay_it_is_ready_at_once_behind_the_others() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let first = app.publish("work", json!({"body": 1})).await;
    let second = app.publish("work", json!({"body": 2})).await;
    let nacked = app.receive_one("work").await;
    app.settle(
        "nack",
        "work",
        &[&nacked["receipt"]],
        json!({"delay_seconds": 0}),
    )
    .await
    .expect(StatusCode::OK);
    let order: Vec<(Value, Value)> = app
        .receive("work", json!({"max_messages": 5}))
        .await
        .iter()
        .map(|m| (m["id"].clone(), m["attempt"].clone()))
        .collect();
    assert_eq!(order, [(json!(second), json!(1)), (json!(first), json!(2))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_the_queues_backoff_says_when_it_comes_back() {
    let app = App::start().await;
    let backoff = json!({"initial_seconds": 60, "multiplier": 3, "max_seconds": 300, "jitter": 0});
    app.queue("work", json!({"backoff": backoff, "max_attempts": 10}))
        .await;
    let id = app.publish("work", json!({"body": 1})).await;
    for (attempt, wait) in [(1, 60.0), (2, 180.0), (3, 300.0), (4, 300.0)] {
        let received = app.receive_one("work").await;
        assert_eq!(received["attempt"], attempt);
        app.settle("nack", "work", &[&received["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        let waiting = message(&app, &id).await;
        let ended = &waiting["history"][attempt - 1]["ended_at"];
        let waits = seconds_between(ended, &waiting["ready_at"]);
        assert!((waits - wait).abs() < 1e-4, "{waits} s after {attempt}");
        execute(&app.database, "UPDATE postrider.parked SET wake_at = now()").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_only_shortens_the_backoff() {
    let app = App::start().await;
    let backoff = json!({"initial_seconds": 100, "jitter": 0.5});
    app.queue("work", json!({"backoff": backoff})).await;
    let messages: Vec<Value> = (0..50).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let messages = app.receive("work", json!({"max_messages": 50})).await;
    let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
    app.settle("nack", "work", &receipts, json!({}))
        .await
        .expect(StatusCode::OK);
    // All were nacked in one statement, so the waits differ by chance alone.
    let (shortest, longest, different): (f64, f64, i64) = sqlx::query_as(
        "SELECT extract(epoch FROM min(p.wake_at - a.ended_at))::float8,
            extract(epoch FROM max(p.wake_at - a.ended_at))::float8, count(DISTINCT p.wake_at)
         FROM postrider.parked p JOIN postrider.attempts a USING (message_id)",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    assert!(shortest >= 50.0, "{shortest}");
    assert!(longest <= 100.0, "{longest}");
    assert!(different > 40, "{different}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_and_its_reason_are_in_the_history() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    for reason in [json!("shop is closed: \u{1F6D2}"), Value::Null] {
        let received = app.receive_one("work").await;
        let more = json!({"delay_seconds": 0, "reason": reason});
        app.settle("nack", "work", &[&received["receipt"]], more)
            .await
            .expect(StatusCode::OK);
    }
    app.receive_one("work").await;
    let message = message(&app, &id).await;
    let history: Vec<_> = message["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            assert_eq!(a["ended_at"].is_null(), a["outcome"] == "running");
            (
                a["attempt"].as_i64().unwrap(),
                a["outcome"].as_str().unwrap(),
                a["error"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        history,
        [
            (1, "nacked", Some("shop is closed: \u{1F6D2}")),
            (2, "nacked", None),
            (3, "running", None),
        ]
    );
    assert_eq!(message["attempts"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_a_dead_letter_at_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    let more = json!({"dead_letter": true, "reason": "no such order"});
    app.settle("nack", "work", &[&received["receipt"]], more)
        .await
        .expect(StatusCode::OK);
    let letter = app
        .get(&format!("/v1/queues/work/dead-letters/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(letter["reason"], "rejected");
    assert_eq!(letter["attempts"], 1);
    assert_eq!(letter["last_error"], "no such order");
    let message = message(&app, &id).await;
    assert_eq!(message["state"], "dead");
    assert_eq!(message["history"][0]["outcome"], "rejected");
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_attempts_nack_makes_a_dead_letter() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 2})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    for reason in ["first", "second"] {
        let received = app.receive_one("work").await;
        let more = json!({"delay_seconds": 0, "reason": reason});
        app.settle("nack", "work", &[&received["receipt"]], more)
            .await
            .expect(StatusCode::OK);
    }
    let letter = app
        .get(&format!("/v1/queues/work/dead-letters/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(letter["reason"], "max-attempts");
    assert_eq!(letter["attempts"], 2);
    assert_eq!(letter["last_error"], "second");
    assert_eq!(app.receive("work", json!({})).await, Vec::<Value>::new());
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_dead_letters_drops_what_has_failed() {
    let app = App::start().await;
    let settings = json!({"max_attempts": 1, "dead_letter": {"enabled": false}});
    app.queue("work", settings).await;
    for more in [json!({}), json!({"dead_letter": true})] {
        let id = app.publish("work", json!({"body": 1})).await;
        let received = app.receive_one("work").await;
        app.settle("nack", "work", &[&received["receipt"]], more)
            .await
            .expect(StatusCode::OK);
        app.get(&format!("/v1/queues/work/messages/{id}"))
            .await
            .expect_problem(404, "message-not-found");
    }
    app.assert_conserved(&app.database, "work").await;
    let removed = "SELECT removed FROM postrider.queue_counts";
    assert_eq!(number(&app.database, removed).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_of_two_nacks_finds_the_lease_lost() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    let nack = async |receipts: &[&Value]| {
        app.settle("nack", "work", receipts, json!({"delay_seconds": 3600}))
            .await
    };
    let receipt = &received["receipt"];
    // Twice in one request counts as one after the other.
    let results = nack(&[receipt, receipt]).await.expect(StatusCode::OK);
    assert_eq!(results["results"][0]["ok"], true, "{results}");
    assert_eq!(results["results"][1]["code"], "lease-lost", "{results}");
    nack(&[receipt]).await.expect_problem(409, "lease-lost");
    assert_eq!(message(&app, &id).await["attempts"], 1);
    app.assert_conserved(&app.database, "work").await;
}

/// The two may meet in one statement, of one request or of several.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_receipt_beside_the_new_one_does_not_spoil_it() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 100})).await;
    app.publish("work", json!({"body": 1})).await;
    for old_first in [true, false] {
        let old = app
            .receive("work", json!({"lease_seconds": 0.05, "wait_seconds": 20}))
            .await;
        let new = app.receive_one("work").await;
        let (old, new) = (&old[0]["receipt"], &new["receipt"]);
        let receipts = if old_first { [old, new] } else { [new, old] };
        let answer = app
            .settle("nack", "work", &receipts, json!({"delay_seconds": 0}))
            .await;
        let results = answer.expect(StatusCode::OK)["results"].clone();
        let (of_old, of_new) = if old_first {
            (&results[0], &results[1])
        } else {
            (&results[1], &results[0])
        };
        assert_eq!(of_new["ok"], true, "{results}");
        assert_eq!(of_old["code"], "lease-lost", "{results}");
    }
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_after_the_message_went_back_changes_nothing() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let id = app.publish("work", json!({"body": 1})).await;
    let received = app.receive("work", json!({"lease_seconds": 0.02})).await;
    eventually("it is back", async || {
        message(&app, &id).await["state"] == "ready"
    })
    .await;
    app.settle(
        "nack",
        "work",
        &[&received[0]["receipt"]],
        json!({"dead_letter": true}),
    )
    .await
    .expect_problem(409, "lease-expired");
    assert_eq!(message(&app, &id).await["state"], "ready");
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_ack_and_a_nack_at_the_same_time_exactly_one_wins() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({"max_attempts": 1000})).await;
    let (mut acks, mut nacks) = (0, 0);
    for round in 0..120 {
        let id = app.publish("work", json!({"body": round})).await;
        let received = app.receive_one("work").await;
        let receipts = [&received["receipt"]];
        let delay = json!({"delay_seconds": 3600});
        let (nacking, acking) = if round % 2 == 0 {
            (&app.gateway, &other)
        } else {
            (&other, &app.gateway)
        };
        // Either may be a little ahead.
        let head_start = async |most: u64| {
            let micros = rand::random_range(0..=most);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        };
        let ack = async {
            head_start(2000).await;
            acking.settle("ack", "work", &receipts, json!({})).await
        };
        let nack = async {
            head_start(2000).await;
            nacking.settle("nack", "work", &receipts, delay).await
        };
        let (ack, nack) = tokio::join!(ack, nack);
        let left = app.get(&format!("/v1/queues/work/messages/{id}")).await;
        if ack.status == StatusCode::OK {
            acks += 1;
            nack.expect_problem(409, "lease-lost");
            left.expect_problem(404, "message-not-found");
        } else {
            nacks += 1;
            ack.expect_problem(409, "lease-lost");
            nack.expect(StatusCode::OK);
            assert_eq!(left.expect(StatusCode::OK)["state"], "delayed");
        }
    }
    // Otherwise there was no race.
    assert!(acks > 0 && nacks > 0, "{acks} acks, {nacks} nacks");
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_and_dead_letter_exclude_each_other() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    for more in [
        json!({"delay_seconds": 1, "dead_letter": true}),
        json!({"delay_seconds": -1}),
        json!({"reason": "x".repeat(1001)}),
        json!({"reason": "\0"}),
    ] {
        app.settle("nack", "work", &[&received["receipt"]], more)
            .await
            .expect_problem(422, "invalid");
    }
    assert_eq!(app.counts("work").await["leased"], 1);
}
