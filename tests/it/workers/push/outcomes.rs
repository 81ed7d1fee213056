//! Each way that a push can end, and what becomes of its message.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, Hook, pushed_id};
use crate::support::{App, Gateway, Reply, config, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_acked_and_listed() {
    let hook = Hook::start(json!({}), json!({})).await;
    hook.receiver.next(Reply::with(202, &[], b"thank you"));
    let id = hook.publish("orders", json!({"body": 1})).await;
    let attempt = &hook.wait_for_attempts("", 1).await[0];
    assert_eq!(attempt["message_id"], id);
    assert_eq!(attempt["attempt"], 1);
    assert_eq!(attempt["outcome"], "delivered");
    assert_eq!(attempt["status"], 202);
    assert_eq!(attempt["answer"], "thank you");
    assert_eq!(attempt["error"], Value::Null);
    hook.drained().await;
    assert_eq!(hook.receiver.requests().len(), 1);
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_wait_for_the_backoff_and_end_as_a_dead_letter() {
    let backoff = json!({"initial_seconds": 0.4, "multiplier": 2, "jitter": 0});
    let queue = json!({"max_attempts": 3, "backoff": backoff});
    let hook = Hook::start(json!({}), queue).await;
    hook.receiver.usually(Reply::with(500, &[], b"no"));
    let id = hook.publish("orders", json!({"body": 1})).await;

    let letter = hook.dead_letter(&id).await;
    assert_eq!(letter["reason"], "max-attempts");
    assert_eq!(letter["attempts"], 3);
    assert_eq!(letter["last_error"], "the endpoint answered 500");
    let requests = hook.receiver.requests();
    assert_eq!(requests.len(), 3);
    for (pair, least) in requests.windows(2).zip([400, 800]) {
        let between = pair[1].at - pair[0].at;
        assert!(between >= Duration::from_millis(least - 5), "{between:?}");
    }
    let attempts = hook.wait_for_attempts("status=failed", 3).await;
    for (attempt, number) in attempts.iter().rev().zip(1..) {
        assert_eq!(attempt["message_id"], id);
        assert_eq!(attempt["attempt"], number);
        assert_eq!(attempt["status"], 500);
        assert_eq!(attempt["answer"], "no");
        assert_eq!(attempt["error"], "the endpoint answered 500");
    }
    assert!(hook.webhook().await["failing_since"].is_string());
    hook.assert_conserved(&hook.database, "orders").await;

    // A success ends it.
    hook.receiver.usually(Reply::status(204));
    hook.publish("orders", json!({"body": 2})).await;
    eventually("it fails no more", async || {
        hook.webhook().await["failing_since"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_disabled_and_its_messages_stay() {
    // Were an attempt used up, the message would be dead.
    let hook = Hook::start(json!({"max_in_flight": 1}), json!({"max_attempts": 1})).await;
    hook.receiver.usually(Reply::status(410));
    let ids = hook.publish_many(3).await;
    eventually("it is disabled", async || {
        hook.webhook().await["status"] == "disabled"
    })
    .await;
    assert_eq!(hook.webhook().await["status_reason"], "gone");
    eventually("all are ready", async || {
        hook.counts("orders").await["ready"] == 3
    })
    .await;
    let attempt = &hook.wait_for_attempts("", 1).await[0];
    assert_eq!(attempt["outcome"], "gone");
    assert_eq!(attempt["message_id"], ids[0]);

    hook.receiver.usually(Reply::status(204));
    hook.post(&format!("{HOOK}/resume"), "{}")
        .await
        .expect(StatusCode::OK);
    hook.drained().await;
    let requests = hook.receiver.requests();
    assert_eq!(requests.len(), 4, "nothing was sent while it was disabled");
    assert!(
        requests
            .iter()
            .all(|r| r.header("postrider-attempt") == Some("1"))
    );
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_be_left_alone_is_and_no_attempt_is_used() {
    let in_two_seconds = || {
        #[expect(
            clippy::disallowed_methods,
            reason = "an endpoint has a clock of its own"
        )]
        let now = chrono::Utc::now();
        (now + chrono::TimeDelta::milliseconds(2500))
            .format("%a, %d %b %Y %H:%M:%S GMT")
            .to_string()
    };
    for status in [429, 503] {
        for by_date in [false, true] {
            let hook = Hook::start(json!({"max_in_flight": 4}), json!({"max_attempts": 1})).await;
            // The lane waits for messages when the first is answered.
            let wait = if by_date {
                in_two_seconds()
            } else {
                "1".to_owned()
            };
            let headers = [("retry-after", wait.as_str())];
            hook.receiver.next(Reply::with(status, &headers, b""));
            let first = hook.publish("orders", json!({"body": 1})).await;
            hook.wait_for_attempts("status=waiting", 1).await;
            let begun = Instant::now();
            let second = hook.publish("orders", json!({"body": 2})).await;
            hook.drained().await;
            let requests = hook.receiver.requests();
            assert_eq!(requests.len(), 3, "{status} {by_date}");
            for request in &requests[1..] {
                let waited = request.at - requests[0].at;
                assert!(waited >= Duration::from_millis(900), "{waited:?}");
                assert_eq!(request.header("postrider-attempt"), Some("1"));
            }
            let again: Vec<&str> = requests[1..].iter().map(pushed_id).collect();
            assert!(again.contains(&&*first) && again.contains(&&*second));
            assert!(begun.elapsed() < Duration::from_secs(20));
            let webhook = hook.webhook().await;
            assert_eq!(webhook["failing_since"], Value::Null);
            assert_eq!(webhook["status"], "active");
            hook.assert_conserved(&hook.database, "orders").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_at_most_the_longest_backoff() {
    let backoff = json!({"initial_seconds": 0.1, "max_seconds": 1});
    let hook = Hook::start(json!({}), json!({"backoff": backoff})).await;
    hook.receiver
        .next(Reply::with(503, &[("retry-after", "86400")], b""));
    hook.publish("orders", json!({"body": 1})).await;
    let requests = hook.receiver.wait_for(2).await;
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(900));
    hook.drained().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_late_and_a_redirect_are_failures() {
    let hook = Hook::start(json!({"timeout_seconds": 0.5}), json!({"max_attempts": 1})).await;
    let elsewhere = hook.receiver.url("/elsewhere");
    for (reply, status, error) in [
        (Reply::hang(), Value::Null, "timed out after 0.5 s"),
        (
            Reply::redirect(307, &elsewhere),
            json!(307),
            "redirects are not followed",
        ),
    ] {
        hook.receiver.next(reply);
        let id = hook.publish("orders", json!({"body": 1})).await;
        let letter = hook.dead_letter(&id).await;
        let last = letter["last_error"].as_str().unwrap();
        assert!(last.contains(error), "{last}");
        let attempt = &hook.wait_for_attempts(&format!("message_id={id}"), 1).await[0];
        assert_eq!(attempt["outcome"], "failed");
        assert_eq!(attempt["status"], status);
        assert_eq!(attempt["error"], last);
    }
    assert_eq!(hook.receiver.requests().len(), 2);
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_may_not_be_reached_any_more_is_a_failure() {
    for host in ["127.0.0.1", "localhost"] {
        let hook = Hook::start(json!({}), json!({"max_attempts": 1})).await;
        hook.post(&format!("{HOOK}/pause"), "{}")
            .await
            .expect(StatusCode::OK);
        let mut config = config(&hook.database.url());
        let url = format!("http://{host}:{}/hook", hook.receiver.address().port());
        if host == "localhost" {
            config.webhook_allow = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        }
        let Hook { app, receiver, .. } = hook;
        let App { database, gateway } = app;
        let permissive = Gateway::start(&config).await;
        permissive
            .patch(HOOK, json!({"url": url}))
            .await
            .expect(StatusCode::OK);
        gateway.app.shut_down().await.unwrap();
        permissive.app.shut_down().await.unwrap();

        config.webhook_allow = Vec::new();
        let strict = Gateway::start(&config).await;
        strict
            .post(&format!("{HOOK}/resume"), "{}")
            .await
            .expect(StatusCode::OK);
        let id = strict.publish("orders", json!({"body": 1})).await;
        let path = format!("/v1/queues/orders/dead-letters/{id}");
        eventually("it is dead", async || {
            strict.get(&path).await.status == StatusCode::OK
        })
        .await;
        let letter = strict.get(&path).await.json();
        let error = letter["last_error"].as_str().unwrap();
        assert!(error.contains("--webhook-allow"), "{error}");
        assert_eq!(receiver.connections(), 0);
        drop(database);
    }
}
