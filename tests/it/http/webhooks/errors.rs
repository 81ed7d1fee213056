//! Every documented refusal.

use postrider::config::Config;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook};
use crate::support::{App, Gateway, config};

fn with(field: &str, value: Value) -> Value {
    let mut config = json!({"url": "http://127.0.0.1:9/hook"});
    config[field] = value;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_queue_or_a_webhook_every_call_says_which_is_missing() {
    let app = App::start().await;
    let url = json!({"url": "http://127.0.0.1:9/hook"});
    app.put(HOOK, &url)
        .await
        .expect_problem(404, "queue-not-found");
    for code in ["queue-not-found", "webhook-not-found"] {
        app.get(HOOK).await.expect_problem(404, code);
        app.patch(HOOK, "{}").await.expect_problem(404, code);
        app.delete(HOOK).await.expect_problem(404, code);
        for (call, body) in [
            ("rotate-secret", ""),
            ("test", ""),
            ("pause", ""),
            ("resume", ""),
            ("resend", r#"{"message_ids":["msg_000000000001a"]}"#),
        ] {
            app.post(&format!("{HOOK}/{call}"), body)
                .await
                .expect_problem(404, code);
        }
        app.get(&format!("{HOOK}/attempts"))
            .await
            .expect_problem(404, code);
        if code == "queue-not-found" {
            app.queue("orders", json!({})).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_out_of_their_range_are_named_by_pointer() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for (pointer, config) in [
        ("/timeout_seconds", with("timeout_seconds", json!(0.099))),
        ("/timeout_seconds", with("timeout_seconds", json!(301))),
        ("/max_in_flight", with("max_in_flight", json!(0))),
        ("/max_in_flight", with("max_in_flight", json!(-1))),
        ("/max_in_flight", with("max_in_flight", json!(1001))),
        ("/max_in_flight", with("max_in_flight", json!(1.5))),
        (
            "/rate_limit_per_second",
            with("rate_limit_per_second", json!(0)),
        ),
        (
            "/rate_limit_per_second",
            with("rate_limit_per_second", json!(1e6)),
        ),
        (
            "/disable_after_seconds",
            with("disable_after_seconds", json!(59)),
        ),
        (
            "/circuit_breaker/failure_rate",
            with("circuit_breaker", json!({"failure_rate": 0})),
        ),
        (
            "/circuit_breaker/window",
            with("circuit_breaker", json!({"window": 1001})),
        ),
        (
            "/circuit_breaker/min_calls",
            with("circuit_breaker", json!({"min_calls": 21})),
        ),
        (
            "/circuit_breaker/open_seconds",
            with("circuit_breaker", json!({"open_seconds": 86_401})),
        ),
        (
            "/circuit_breaker/window",
            with("circuit_breaker", json!({"window": "20"})),
        ),
        ("/circuit_breaker", with("circuit_breaker", json!([]))),
        ("/secret", with("secret", json!("whsec_MDEy"))),
        ("/url", with("url", json!(1))),
        ("/headers/X-A", with("headers", json!({"X-A": 1}))),
        ("/headers/X-A", with("headers", json!({"X-A": "a\r\nb: c"}))),
        ("/headers/Host", with("headers", json!({"Host": "x"}))),
        (
            "/headers/webhook-id",
            with("headers", json!({"webhook-id": "x"})),
        ),
        (
            "/headers/Proxy-Authorization",
            with("headers", json!({"Proxy-Authorization": "x"})),
        ),
        (
            "/headers/transfer-encoding",
            with("headers", json!({"transfer-encoding": "x"})),
        ),
        ("", json!({"max_in_flight": 1})),
    ] {
        let problem = app.put(HOOK, &config).await.expect_problem(422, "invalid");
        let part = &problem["errors"][0];
        assert_eq!(part["pointer"], pointer, "{config} {problem}");
    }
    app.get(HOOK).await.expect_problem(404, "webhook-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_may_not_be_pushed_to_is_refused_and_names_the_option() {
    let (app, _) = app_with_webhook(json!({})).await;
    for url in [
        "http://10.0.0.1/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/hook",
        "http://0xa000001/hook",
        "ftp://127.0.0.1/hook",
        "http://me:secret@127.0.0.1/hook",
        "http://127.0.0.1/hook#part",
        "hook",
        "",
    ] {
        for problem in [
            app.put(HOOK, with("url", json!(url))).await,
            app.patch(HOOK, json!({"url": url})).await,
        ] {
            let problem = problem.expect_problem(422, "url-forbidden");
            assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}");
        }
    }
    let problem = app
        .put(HOOK, with("url", json!("http://10.0.0.1/hook")))
        .await;
    assert!(problem.text.contains("--webhook-allow"), "{problem:?}");
    // Names under .invalid resolve nowhere (RFC 6761).
    let nowhere = with("url", json!("http://nowhere.invalid/hook"));
    let problem = app.put(HOOK, nowhere).await;
    let problem = problem.expect_problem(422, "url-unresolvable");
    assert_eq!(problem["errors"][0]["pointer"], "/url");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_secret_is_made_or_used_and_the_rest_works() {
    let (app, _) = app_with_webhook(json!({})).await;
    let keyless = Gateway::start(&Config {
        secret_key_file: None,
        ..config(&app.database.url())
    })
    .await;
    app.queue("bare", json!({})).await;
    let url = json!({"url": "http://127.0.0.1:9/hook"});
    let missing = keyless.put("/v1/queues/bare/webhook", &url).await;
    let problem = missing.expect_problem(409, "secret-key-missing");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("--secret-key-file")
    );
    for call in ["rotate-secret", "test"] {
        keyless
            .post(&format!("{HOOK}/{call}"), "")
            .await
            .expect_problem(409, "secret-key-missing");
    }
    keyless.get(HOOK).await.expect(StatusCode::OK);
    keyless.put(HOOK, &url).await.expect(StatusCode::OK);
    keyless
        .post(&format!("{HOOK}/pause"), "")
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_another_key_has_sealed_is_said_to_be_so() {
    let (app, _) = app_with_webhook(json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.key");
    std::fs::write(&file, "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVybyE=\n").unwrap();
    let other = Gateway::start(&Config {
        secret_key_file: Some(file),
        ..config(&app.database.url())
    })
    .await;
    other
        .post(&format!("{HOOK}/test"), "")
        .await
        .expect_problem(409, "secret-key-wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let (app, _) = app_with_webhook(json!({})).await;
    let bare = app.request(reqwest::Method::PUT, HOOK).body("{}");
    crate::support::Answer::of(bare)
        .await
        .expect_problem(415, "unsupported-media-type");
    app.put(HOOK, "{")
        .await
        .expect_problem(400, "malformed-json");
    app.put(HOOK, "[]").await.expect_problem(422, "invalid");
    app.get(&format!("{HOOK}?x=1"))
        .await
        .expect_problem(400, "invalid-query");
    app.post(&format!("{HOOK}/test"), r#"{"boody":1}"#)
        .await
        .expect_problem(422, "invalid");
    for ids in [
        json!([]),
        json!(vec!["msg_000000000001a"; 1001]),
        json!("x"),
    ] {
        app.post(&format!("{HOOK}/resend"), json!({"message_ids": ids}))
            .await
            .expect_problem(422, "invalid");
    }
    for query in [
        "status=99",
        "status=1000",
        "status=nonsense",
        "message_id=x",
        "limit=0",
        "limit=1001",
        "since=1",
    ] {
        app.get(&format!("{HOOK}/attempts?{query}"))
            .await
            .expect_problem(400, "invalid-query");
    }
    app.get(&format!("{HOOK}/attempts?cursor=x"))
        .await
        .expect_problem(400, "invalid-cursor");
}
