//! What is left of a queue that is deleted.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{A_MINUTE_LATER, execute, number, queue_id};
use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_leaves_nothing_behind() {
    let app = App::start().await;
    for queue in ["gone", "stays"] {
        app.queue(queue, json!({"max_attempts": 1})).await;
        let messages: Vec<Value> = (0..1500)
            .map(|n| json!({"body": n, "delay_seconds": if n % 4 == 0 { 600 } else { 0 }}))
            .collect();
        for part in messages.chunks(1000) {
            app.post(
                &format!("/v1/queues/{queue}/messages"),
                json!({"messages": part}),
            )
            .await
            .expect(StatusCode::CREATED);
        }
        // Some leased, some dead, some put back.
        let leased = app.receive(queue, json!({"max_messages": 200})).await;
        let receipts: Vec<&Value> = leased[..100].iter().map(|m| &m["receipt"]).collect();
        app.settle("nack", queue, &receipts, json!({}))
            .await
            .expect(StatusCode::OK);
        let path = format!("/v1/queues/{queue}/dead-letters/redrive");
        app.post(&path, json!({"filter": {}, "limit": 50}))
            .await
            .expect(StatusCode::OK);
    }
    let id = queue_id(&app.database, "gone").await;
    app.delete("/v1/queues/gone")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.get("/v1/queues/gone")
        .await
        .expect_problem(404, "queue-not-found");

    let store = app.app.store();
    // Twice: the first pass makes orphans of the bodies that were moved out.
    for _ in 0..2 {
        execute(&app.database, A_MINUTE_LATER).await;
        while store.prune().await.unwrap() {}
        while store.fold().await.unwrap() {}
    }
    for table in [
        "ready",
        "parked",
        "dead_letters",
        "stragglers",
        "queue_counts",
        "tallies",
    ] {
        let left = format!("SELECT count(*) FROM postrider.{table} WHERE queue_id = {id}");
        assert_eq!(number(&app.database, left).await, 0, "{table}");
    }
    // The other one is as it was.
    let counts = app.counts("stays").await;
    assert_eq!(
        [
            &counts["ready"],
            &counts["leased"],
            &counts["delayed"],
            &counts["dead"]
        ],
        [975, 100, 375, 50],
        "{counts}"
    );
    app.assert_conserved(&app.database, "stays").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_made_anew_under_the_name_begins_empty() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": "old", "dedup_id": "x"}))
        .await;
    let old = app.receive_one("work").await;
    app.publish("work", json!({"body": "older"})).await;
    app.delete("/v1/queues/work")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.queue("work", json!({})).await;
    assert_eq!(app.receive("work", json!({})).await, Vec::<Value>::new());
    // The old one's receipts are those of another queue.
    app.settle("ack", "work", &[&old["receipt"]], json!({}))
        .await
        .expect_problem(404, "receipt-not-found");
    app.publish("work", json!({"body": "new", "dedup_id": "x"}))
        .await;
    while app.app.store().prune().await.unwrap() {}
    assert_eq!(app.receive_one("work").await["body"], "new");
    app.assert_conserved(&app.database, "work").await;
}
