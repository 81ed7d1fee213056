//! Requests and their replies.

mod deadlines;
mod gateways;
mod replying;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Answer, App, Gateway, eventually};

/// A request, with what is preferred.
async fn request(gateway: &Gateway, prefer: Option<&str>, message: Value) -> Answer {
    Answer::of(asking(gateway, prefer, &message)).await
}

fn asking(gateway: &Gateway, prefer: Option<&str>, message: &Value) -> reqwest::RequestBuilder {
    let mut request = gateway
        .request(Method::POST, "/v1/queues/work/requests")
        .header("content-type", "application/json")
        .body(message.to_string());
    if let Some(prefer) = prefer {
        request = request.header("prefer", prefer);
    }
    request
}

/// A request that somebody waits for the reply to.
async fn waiting(gateway: &Gateway, message: Value) -> JoinHandle<Answer> {
    let before = gateway.app.broker().replies().waiting();
    let request = asking(gateway, Some("wait=30"), &message);
    #[expect(clippy::disallowed_methods, reason = "a client of its own")]
    let asking = tokio::spawn(Answer::of(request));
    eventually("it waits", async || {
        gateway.app.broker().replies().waiting() == before + 1
    })
    .await;
    asking
}

/// A request that nobody waits for; its correlation id.
async fn pending(gateway: &Gateway, message: Value) -> String {
    let answer = request(gateway, None, message).await;
    let body = answer.expect(StatusCode::ACCEPTED);
    let id = body["correlation_id"].as_str().unwrap().to_owned();
    let location = answer.headers["location"].to_str().unwrap();
    assert_eq!(location, format!("/v1/replies/{id}"));
    id
}

async fn reply(gateway: &Gateway, receipt: &Value, body: Value) -> Answer {
    let request = json!({"receipt": receipt, "body": body});
    gateway.post("/v1/queues/work/reply", request).await
}

async fn read(gateway: &Gateway, id: &str) -> Answer {
    gateway.get(&format!("/v1/replies/{id}")).await
}

async fn with_work() -> App {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_reaches_who_waits_for_it_as_it_was_given() {
    let app = with_work().await;
    let asking = waiting(
        &app,
        json!({"body": {"add": [1, 2]}, "headers": {"a": "b"}}),
    )
    .await;
    let message = app.receive_one("work").await;
    assert_eq!(message["body"], json!({"add": [1, 2]}));
    assert_eq!(message["headers"], json!({"a": "b"}));
    let given = r#"{"sum":3.10,  "\u0000": 9007199254740993}"#;
    let json = format!(
        r#"{{"receipt": {}, "body": {given}, "headers": {{"by": "me"}}}}"#,
        message["receipt"]
    );
    let replied = app.post("/v1/queues/work/reply", json).await;
    let id = message["correlation_id"].clone();
    assert_eq!(
        replied.expect(StatusCode::OK),
        json!({"correlation_id": id})
    );

    let answer = asking.await.unwrap();
    assert_eq!(answer.headers["preference-applied"], "wait=30");
    let got = answer.expect(StatusCode::OK);
    assert_eq!(got["correlation_id"], id);
    assert_eq!(got["content_type"], "application/json");
    assert_eq!(got["headers"], json!({"by": "me"}));
    assert!(got["replied_at"].is_string());
    // Byte for byte, there and wherever it is read.
    assert!(answer.text.contains(given), "{}", answer.text);
    let read = read(&app, id.as_str().unwrap()).await;
    assert!(read.text.contains(given), "{}", read.text);
    // Nothing is left of it in the queue.
    let counts = app.counts("work").await;
    assert_eq!(
        (&counts["ready"], &counts["leased"]),
        (&json!(0), &json!(0))
    );
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_json_are_asked_and_answered() {
    let app = with_work().await;
    let ask = app
        .request(Method::POST, "/v1/queues/work/requests")
        .header("content-type", "text/plain")
        .header("postrider-timeout-seconds", "60")
        .header("postrider-key", "k")
        .body("ping");
    let asked = Answer::of(ask).await.expect(StatusCode::ACCEPTED);
    let message = app.receive_one("work").await;
    assert_eq!(message["body_base64"], "cGluZw==");
    assert_eq!(message["key"], "k");
    let json = json!({
        "receipt": message["receipt"], "body_base64": "cG9uZw==", "content_type": "text/plain",
    });
    app.post("/v1/queues/work/reply", json)
        .await
        .expect(StatusCode::OK);
    let got = read(&app, asked["correlation_id"].as_str().unwrap()).await;
    let got = got.expect(StatusCode::OK);
    assert_eq!(got["body_base64"], "cG9uZw==");
    assert_eq!(got["content_type"], "text/plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_preference_the_answer_is_where_the_reply_will_be() {
    let app = with_work().await;
    let answer = request(&app, None, json!({"body": 1})).await;
    assert!(!answer.headers.contains_key("preference-applied"));
    let id = answer.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
    let id = id.as_str().unwrap();
    for _ in 0..2 {
        read(&app, id).await.expect(StatusCode::NO_CONTENT);
    }
    let message = app.receive_one("work").await;
    assert_eq!(message["correlation_id"], id);
    reply(&app, &message["receipt"], json!("done"))
        .await
        .expect(StatusCode::OK);
    // As often as it is asked for: answers get lost.
    for _ in 0..3 {
        let got = read(&app, id).await.expect(StatusCode::OK);
        assert_eq!(got["body"], "done");
    }
    assert_eq!(app.app.broker().replies().waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_long_enough_is_told_where_the_reply_will_be() {
    let app = with_work().await;
    let answer = request(&app, Some("respond-async, wait=1"), json!({"body": 1})).await;
    assert_eq!(answer.headers["preference-applied"], "wait=1");
    let id = answer.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
    assert_eq!(app.app.broker().replies().waiting(), 0);
    let path = format!("/v1/replies/{}?wait_seconds=0.05", id.as_str().unwrap());
    app.get(&path).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_reply_may_wait_for_it_and_several_may() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let path = format!("/v1/replies/{id}?wait_seconds=30");
    let mut asking = Vec::new();
    for _ in 0..3 {
        let request = app.request(Method::GET, &path);
        #[expect(clippy::disallowed_methods, reason = "a client of its own")]
        asking.push(tokio::spawn(Answer::of(request)));
    }
    eventually("they wait", async || {
        app.app.broker().replies().waiting() == 3
    })
    .await;
    let message = app.receive_one("work").await;
    reply(&app, &message["receipt"], json!(7))
        .await
        .expect(StatusCode::OK);
    for asking in asking {
        let got = asking.await.unwrap().expect(StatusCode::OK);
        assert_eq!(got["body"], 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_delivered_at_once_whatever_the_queues_delay() {
    let app = App::start().await;
    app.queue("work", json!({"delay_seconds": 600})).await;
    pending(&app, json!({"body": 1})).await;
    app.receive_one("work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_request_has_a_deadline_for_its_reply() {
    let app = with_work().await;
    app.publish("work", json!({"body": 1, "correlation_id": "req_mine"}))
        .await;
    let plain = app.receive_one("work").await;
    assert!(plain.get("reply_deadline").is_none(), "{plain}");
    pending(&app, json!({"body": 1, "timeout_seconds": 60})).await;
    let asked = app.receive_one("work").await;
    let time = |field: &str| {
        let text = asked[field].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(text).unwrap()
    };
    let left = time("reply_deadline") - time("enqueued_at");
    assert_eq!(left, chrono::TimeDelta::seconds(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_nothing() {
    let app = with_work().await;
    let asking = waiting(&app, json!({"body": 1})).await;
    asking.abort();
    eventually("it has left", async || {
        app.app.broker().replies().waiting() == 0
    })
    .await;
    let message = app.receive_one("work").await;
    reply(&app, &message["receipt"], json!(1))
        .await
        .expect(StatusCode::OK);
    let got = read(&app, message["correlation_id"].as_str().unwrap()).await;
    assert_eq!(got.expect(StatusCode::OK)["body"], 1);
}
