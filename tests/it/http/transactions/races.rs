//! Many transactions at once.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{part, transact};
use crate::store::number;
use crate::support::App;

/// In which they wait for each other, if they do not all lock in one order.
const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";

#[tokio::test(flavor = "multi_thread")]
async fn of_transactions_with_the_same_receipts_in_any_order_one_is_done_and_none_deadlocks() {
    let app = App::start().await;
    let other = app.another().await;
    let queues = ["b", "a", "c"];
    for queue in queues {
        app.queue(queue, json!({})).await;
    }
    app.queue("out", json!({})).await;
    for round in 0..20 {
        let mut receipts: Vec<Value> = Vec::new();
        for queue in queues {
            for _ in 0..4 {
                app.publish(queue, json!({"body": round})).await;
            }
            let received = app
                .receive(queue, json!({"max_messages": 4, "wait_seconds": 20}))
                .await;
            receipts.extend(
                received
                    .iter()
                    .map(|message| part(queue, &message["receipt"])),
            );
        }
        assert_eq!(receipts.len(), 12);
        let all = (0..12).map(|n| {
            let mut parts = receipts.clone();
            parts.rotate_left(n);
            if n % 2 == 1 {
                parts.reverse();
            }
            // All of them acked, or some given back.
            let nacks = parts.split_off(12 - n % 4);
            let publish = json!({"queue": "out", "message": {"body": round}});
            let steps = json!({"acks": parts, "nacks": nacks, "publishes": [publish]});
            let gateway = if n % 3 == 0 { &other } else { &app.gateway };
            transact(gateway, steps)
        });
        let answers = join_all(all).await;
        let done = answers.iter().filter(|a| a.status == StatusCode::OK);
        assert_eq!(done.count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|a| a.status != StatusCode::OK) {
            answer.expect_problem(409, "lease-lost");
        }
        // What was given back is in nobody's way.
        for queue in queues {
            app.post(&format!("/v1/queues/{queue}/purge"), "")
                .await
                .expect(StatusCode::OK);
        }
    }
    assert_eq!(app.counts("out").await["ready"], 20);
    assert_eq!(number(&app.database, DEADLOCKS).await, 0);
    for queue in ["a", "b", "c", "out"] {
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dedup_ids_in_any_order_do_not_deadlock() {
    let app = App::start().await;
    let other = app.another().await;
    for queue in ["a", "b"] {
        app.queue(queue, json!({})).await;
    }
    app.topic("t", json!({"retention_seconds": 60})).await;
    for round in 0..20 {
        let all = (0..8).map(|n| {
            let mut publishes: Vec<Value> = (0..12)
                .map(|at| {
                    let message = json!({"body": at, "dedup_id": format!("{round}-{}", at / 3)});
                    match at % 3 {
                        0 => json!({"queue": "a", "message": message}),
                        1 => json!({"queue": "b", "message": message}),
                        _ => json!({"topic": "t", "message": message}),
                    }
                })
                .collect();
            publishes.rotate_left(n);
            if n % 2 == 1 {
                publishes.reverse();
            }
            let gateway = if n % 3 == 0 { &other } else { &app.gateway };
            transact(gateway, json!({"publishes": publishes}))
        });
        for answer in join_all(all).await {
            answer.expect(StatusCode::OK);
        }
    }
    assert_eq!(app.counts("a").await["ready"], 80);
    assert_eq!(app.counts("b").await["ready"], 80);
    assert_eq!(number(&app.database, DEADLOCKS).await, 0);
}
