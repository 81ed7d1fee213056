//! Statements, and what must stay zero.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn what_must_stay_zero_is_there_from_the_start() {
    let app = App::start().await;
    let answer = app.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in [
        "# TYPE postrider_watermark_violations_total counter",
        "postrider_watermark_violations_total{table=\"ready\"} 0",
        "postrider_watermark_violations_total{table=\"parked\"} 0",
        "postrider_vacuums_total 0",
        "postrider_batch_rows_count{verb=\"publish\"} 0",
    ] {
        assert!(
            answer.text.lines().any(|l| l == line),
            "{line}: {}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_counted_with_their_rows() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let batch = json!({"messages": [{"body": 1}, {"body": 2}, {"body": 3}]});
    app.post("/v1/queues/work/messages", batch)
        .await
        .expect(StatusCode::CREATED);
    let received = app.receive("work", json!({"max_messages": 2})).await;
    let receipts: Vec<_> = received.iter().map(|m| &m["receipt"]).collect();
    app.post("/v1/queues/work/ack", json!({"receipts": receipts}))
        .await
        .expect(StatusCode::OK);
    let text = app.get("/metrics").await.text;
    for line in [
        "postrider_batch_rows_sum{verb=\"publish\"} 3",
        "postrider_batch_rows_sum{verb=\"claim\"} 2",
        "postrider_batch_rows_sum{verb=\"ack\"} 2",
        "postrider_batch_rows_count{verb=\"ack\"} 1",
        "postrider_batch_duration_seconds_count{verb=\"publish\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_is_counted() {
    let app = App::start().await;
    assert!(app.app.store().vacuum_hot_tables().await.unwrap());
    let text = app.get("/metrics").await.text;
    assert!(text.contains("\npostrider_vacuums_total 1\n"), "{text}");
    assert!(
        text.contains("\npostrider_vacuum_duration_seconds_count 1\n"),
        "{text}"
    );
}
