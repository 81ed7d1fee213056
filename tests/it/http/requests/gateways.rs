//! Several gateways, and their ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::domain::{Content, Headers, ReceiptKey, RequestKey};
use postrider::store::{Answer as Given, Answered};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{pending, read, reply, waiting, with_work};
use crate::support::{App, Gateway};

/// Another gateway; both know of each other.
async fn another(app: &App) -> Gateway {
    let other = app.another().await;
    app.until_acquainted(&other).await;
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_at_another_gateway_wakes_who_waits_at_once() {
    let app = with_work().await;
    let other = another(&app).await;
    let mut times = Vec::new();
    for n in 0..5 {
        let asking = waiting(&app, json!({"body": n})).await;
        let message = other.receive_one("work").await;
        let began = Instant::now();
        reply(&other, &message["receipt"], json!(n))
            .await
            .expect(StatusCode::OK);
        let got = asking.await.unwrap().expect(StatusCode::OK);
        times.push(began.elapsed());
        assert_eq!(got["body"], n);
    }
    // The poll is every two seconds: of five one would have been that lucky at most.
    times.sort_unstable();
    assert!(times[2] < Duration::from_secs(1), "{times:?}");
}

/// Answers past the gateway's waiters and hints, as one does whose hint is lost.
async fn answer_unheard(gateway: &Gateway, message: &Value) {
    let store = gateway.app.store();
    let secret = store.secret().await.unwrap();
    let receipt = message["receipt"].as_str().unwrap();
    let answer = Given {
        lease: ReceiptKey::new(&secret).open(receipt).unwrap(),
        content: Content {
            body: Bytes::from("1"),
            content_type: None,
        },
        headers: Headers::new(),
        key: Arc::new(RequestKey::new(&secret)),
    };
    let answered = store.reply(&[answer]).await.unwrap();
    assert!(
        matches!(answered[0], Answered::Stored { .. }),
        "{answered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_not_heard_of_is_found_within_seconds() {
    let app = with_work().await;
    let asking = waiting(&app, json!({"body": 1})).await;
    let message = app.receive_one("work").await;
    let began = Instant::now();
    answer_unheard(&app, &message).await;
    asking.await.unwrap().expect(StatusCode::OK);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_again_because_the_first_answer_was_lost_wakes_who_waits() {
    let app = with_work().await;
    let other = another(&app).await;
    let mut times = Vec::new();
    for _ in 0..5 {
        let asking = waiting(&app, json!({"body": 1})).await;
        let message = other.receive_one("work").await;
        answer_unheard(&other, &message).await;
        let began = Instant::now();
        reply(&other, &message["receipt"], json!(1))
            .await
            .expect(StatusCode::OK);
        asking.await.unwrap().expect(StatusCode::OK);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    assert!(times[2] < Duration::from_secs(1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_that_took_a_request_may_be_gone_when_it_is_answered() {
    let app = with_work().await;
    let first = app.another().await;
    let id = pending(&first, json!({"body": 1})).await;
    first.app.shut_down().await.unwrap();
    let message = app.receive_one("work").await;
    reply(&app, &message["receipt"], json!("here"))
        .await
        .expect(StatusCode::OK);
    let got = read(&app, &id).await.expect(StatusCode::OK);
    assert_eq!(got["body"], "here");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_a_gateway_ends_is_told_where_the_reply_will_be() {
    let app = with_work().await;
    let ending = app.another().await;
    let asking = waiting(&ending, json!({"body": 1})).await;
    let began = Instant::now();
    ending.app.shut_down().await.unwrap();
    let answer = asking.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let id = answer.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
    assert!(answer.headers.contains_key("location"));
    let message = app.receive_one("work").await;
    reply(&app, &message["receipt"], json!(1))
        .await
        .expect(StatusCode::OK);
    read(&app, id.as_str().unwrap())
        .await
        .expect(StatusCode::OK);
}
