//! The scheduled retry of dead letters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::store::{execute, number};
use crate::support::{App, Gateway, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_always_fails_has_all_its_rounds_and_no_more() {
    const ATTEMPTS: usize = 2;
    const ROUNDS: usize = 2;
    let app = App::start().await;
    let other = app.another().await;
    app.queue(
        "work",
        json!({
            "max_attempts": ATTEMPTS,
            "dead_letter": {"retry": {"every_seconds": 1, "max_rounds": ROUNDS}},
        }),
    )
    .await;
    let id = app.publish("work", json!({"body": 1})).await;
    let deliveries = AtomicUsize::new(0);
    let consume = async |gateway: &Gateway| {
        while deliveries.load(Ordering::SeqCst) < (ROUNDS + 1) * ATTEMPTS {
            let request = json!({"wait_seconds": 0.5, "max_messages": 10});
            for message in gateway.receive("work", request).await {
                assert_eq!(message["id"], id.as_str());
                let before = deliveries.fetch_add(1, Ordering::SeqCst);
                // Counted anew in each round.
                assert_eq!(message["attempt"], before % ATTEMPTS + 1);
                let more = json!({"delay_seconds": 0, "reason": "as always"});
                gateway
                    .settle("nack", "work", &[&message["receipt"]], more)
                    .await
                    .expect(StatusCode::OK);
            }
        }
    };
    let both = async { tokio::join!(consume(&app), consume(&other)) };
    tokio::time::timeout(Duration::from_mins(1), both)
        .await
        .unwrap();

    let letter = app
        .get(&format!("/v1/queues/work/dead-letters/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(letter["retry_rounds"], ROUNDS);
    assert_eq!(letter["attempts"], ATTEMPTS);
    assert_eq!(letter["last_error"], "as always");
    // However long it waits, it is not taken again.
    execute(
        &app.database,
        "UPDATE postrider.dead_letters SET dead_at = now() - interval '1 day'",
    )
    .await;
    let candidates = app.app.store().retry_candidates(1000).await.unwrap();
    assert_eq!(candidates, []);
    app.assert_conserved(&app.database, "work").await;

    // By hand it begins anew.
    app.post("/v1/queues/work/dead-letters/redrive", json!({"ids": [id]}))
        .await
        .expect(StatusCode::OK);
    let message = app.receive_one("work").await;
    let more = json!({"dead_letter": true});
    app.settle("nack", "work", &[&message["receipt"]], more)
        .await
        .expect(StatusCode::OK);
    let letter = app
        .get(&format!("/v1/queues/work/dead-letters/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(letter["retry_rounds"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_due_and_may_be_retried_is_a_candidate() {
    let app = App::start().await;
    let retry = json!({"every_seconds": 3600, "max_rounds": 1});
    app.queue(
        "work",
        json!({"dead_letter": {"keep_expired": true, "retry": retry}}),
    )
    .await;
    app.queue("never", json!({})).await;
    let mut due = String::new();
    for (queue, reason, ago) in [
        ("work", "rejected", 0),
        ("work", "expired", 2),
        ("never", "rejected", 2),
        ("work", "rejected", 2),
    ] {
        let id = app.publish(queue, json!({"body": 1})).await;
        let message = app.receive_one(queue).await;
        let more = json!({"dead_letter": true});
        app.settle("nack", queue, &[&message["receipt"]], more)
            .await
            .expect(StatusCode::OK);
        execute(
            &app.database,
            format!(
                "UPDATE postrider.dead_letters
                 SET reason = '{reason}', dead_at = now() - interval '{ago} hours'
                 WHERE message_id = (SELECT max(message_id) FROM postrider.dead_letters)"
            ),
        )
        .await;
        due = id;
    }
    let message = app.receive_one("work").await;
    assert_eq!(message["id"], due.as_str());
    assert_eq!(message["attempt"], 1);
    assert_eq!(app.app.store().retry_candidates(1000).await.unwrap(), []);
    assert_eq!(app.counts("work").await["dead"], 2);
    assert_eq!(app.counts("never").await["dead"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_removed_when_their_retention_is_over() {
    let app = App::start().await;
    app.queue(
        "work",
        json!({"max_attempts": 1, "dead_letter": {"retention_seconds": 600}}),
    )
    .await;
    for body in 0..2 {
        app.publish("work", json!({"body": body})).await;
        let message = app.receive_one("work").await;
        app.settle("nack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    let kept = "SELECT count(*) FROM postrider.dead_letters
        WHERE expires_at = dead_at + interval '600 s'";
    assert_eq!(number(&app.database, kept).await, 2);
    execute(
        &app.database,
        "UPDATE postrider.dead_letters SET expires_at = now()
         WHERE message_id = (SELECT min(message_id) FROM postrider.dead_letters)",
    )
    .await;
    while app.app.store().prune().await.unwrap() {}
    eventually("the other stays", async || {
        app.counts("work").await["dead"] == 1
    })
    .await;
    let list = app.get("/v1/queues/work/dead-letters").await.json();
    assert_eq!(list["dead_letters"][0]["body"], 1);
    app.assert_conserved(&app.database, "work").await;
}
