//! Requests by operation.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{scrape, shows, value};
use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_operation_and_status() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    app.publish("work", json!({"body": 2})).await;
    app.post("/v1/queues/work/messages", json!({"bodi": 1}))
        .await
        .expect_problem(422, "invalid");
    app.get("/nowhere").await.expect_problem(404, "not-found");
    app.get("/v1/queues/absent")
        .await
        .expect_problem(404, "queue-not-found");
    let text = scrape(&app).await;
    for (operation, status, count) in [
        ("publish", 201, 2.0),
        ("publish", 422, 1.0),
        ("put_queue", 201, 1.0),
        ("get_queue", 404, 1.0),
        ("none", 404, 1.0),
    ] {
        let labels = format!("{{operation=\"{operation}\",status=\"{status}\"}}");
        let series = format!("postrider_http_requests_total{labels}");
        assert_eq!(value(&text, &series), Some(count), "{series}: {text}");
    }
    let timed = "postrider_http_request_duration_seconds_count{operation=\"publish\"}";
    assert_eq!(value(&text, timed), Some(3.0), "{text}");
    assert!(
        !text.contains("absent"),
        "names of users are no labels here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_is_in_hand_while_it_waits_and_its_time_is_without_the_wait() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let began = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for wait in [0.5, 30.0, 60.0] {
        let request = app
            .request(Method::POST, "/v1/queues/work/receive")
            .header("content-type", "application/json")
            .body(json!({"wait_seconds": wait, "lease_seconds": 600}).to_string());
        waiting.spawn(async move { request.send().await.unwrap() });
    }
    let in_hand = |n| format!("postrider_http_requests_in_flight{{operation=\"receive\"}} {n}");
    shows(&app, &[&in_hand(3)]).await;
    // One has waited in vain.
    waiting.join_next().await.unwrap().unwrap();
    shows(&app, &[&in_hand(2)]).await;
    tokio::time::sleep(Duration::from_millis(500).saturating_sub(began.elapsed())).await;
    app.publish("work", json!({"body": 1})).await;
    waiting.join_next().await.unwrap().unwrap();
    // And the third goes away.
    waiting.abort_all();
    shows(&app, &[&in_hand(0)]).await;

    let text = scrape(&app).await;
    let series = |name: &str| value(&text, name).unwrap();
    let labels = "{operation=\"receive\"}";
    let took = series(&format!(
        "postrider_http_request_duration_seconds_sum{labels}"
    ));
    let waited = series("postrider_receive_wait_seconds_sum");
    assert!(waited >= 0.9, "{waited} s");
    assert!(took < waited / 2.0, "{took} s of {waited} s");
    assert!((series("postrider_receive_wait_seconds_count") - 2.0).abs() < 0.1);
    let answered = format!(
        "postrider_http_requests_total{{operation=\"receive\",status=\"{}\"}}",
        StatusCode::OK.as_u16()
    );
    assert!((series(&answered) - 2.0).abs() < 0.1, "{text}");
}
