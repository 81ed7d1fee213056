//! Claims that a transaction completes.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{PATH, assert_refused, lease, part, transact};
use crate::http::keys::{Guarded, with_key};
use crate::store::execute;
use crate::support::App;

async fn take(app: &App, key: &str) -> Value {
    let taken = app.post(&format!("/v1/claims/{key}"), "{}").await;
    taken.expect(StatusCode::CREATED)["token"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_completed_with_the_rest_or_not_at_all() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("invoices", json!({})).await;
    let receipt = lease(&app, "orders").await;
    let token = take(&app, "orders:42").await;
    let steps = |token: &Value, receipt: &Value| {
        json!({
            "acks": [part("orders", receipt)],
            "publishes": [{"queue": "invoices", "message": {"body": 1}}],
            "claims": [{"key": "orders:42", "token": token}],
        })
    };
    // Somebody else has taken it meanwhile.
    let over = "UPDATE postrider.claims SET until = now()";
    execute(&app.database, over).await;
    let newer = take(&app, "orders:42").await;
    let late = transact(&app, steps(&token, &receipt)).await;
    assert_refused(&late, 409, "claim-lost", "/claims/0");
    assert_eq!(app.counts("orders").await["leased"], 1);
    let held = app.post("/v1/claims/orders:42", "{}").await;
    held.expect_problem(409, "claim-held");

    let done = transact(&app, steps(&newer, &receipt)).await;
    assert_eq!(done.expect(StatusCode::OK)["claims"], 1);
    let seen = app.post("/v1/claims/orders:42", "{}").await;
    assert_eq!(seen.expect(StatusCode::OK)["state"], "done");
    assert_eq!(app.counts("invoices").await["ready"], 1);
    assert_eq!(app.counts("orders").await["leased"], 0);

    // What was done before is not done again for the sake of another lease.
    let again = lease(&app, "orders").await;
    let twice = transact(&app, steps(&newer, &again)).await;
    assert_refused(&twice, 409, "claim-done", "/claims/0");
    let missing = json!({"claims": [{"key": "orders:43", "token": newer}]});
    assert_refused(
        &transact(&app, missing).await,
        409,
        "claim-lost",
        "/claims/0",
    );
    assert_eq!(app.counts("invoices").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_complete_claims_in_any_order_none_deadlocks() {
    let app = App::start().await;
    app.queue("out", json!({})).await;
    for round in 0..10 {
        let mut claims = Vec::new();
        for n in 0..6 {
            let key = format!("work:{round}-{n}");
            claims.push(json!({"key": key, "token": take(&app, &key).await}));
        }
        let all = (0..6).map(|n| {
            let mut claims = claims.clone();
            claims.rotate_left(n);
            let publish = json!({"queue": "out", "message": {"body": round}});
            transact(&app, json!({"claims": claims, "publishes": [publish]}))
        });
        let answers = futures_util::future::join_all(all).await;
        let done = answers.iter().filter(|a| a.status == StatusCode::OK);
        assert_eq!(done.count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|a| a.status != StatusCode::OK) {
            answer.expect_problem(409, "claim-done");
        }
    }
    assert_eq!(app.counts("out").await["ready"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_not_valid_or_not_the_callers_are_named() {
    let app = Guarded::start().await;
    let key = app.key(&["consume:orders"]).await;
    let send = async |claims: Value| {
        let steps = json!({ "claims": claims });
        with_key(&app.gateway, &key, Method::POST, PATH, Some(steps)).await
    };
    let token = "clm_0000000000001";
    for (claims, status, code, pointer) in [
        (
            json!([{"key": "", "token": token}]),
            422,
            "invalid",
            "/claims/0/key",
        ),
        (
            json!([{"key": "orders", "token": "x"}]),
            422,
            "invalid",
            "/claims/0/token",
        ),
        (
            json!([{"key": "orders", "token": token}, {"key": "orders", "token": token}]),
            422,
            "invalid",
            "/claims/1/key",
        ),
        (
            json!([{"key": "other:1", "token": token}]),
            403,
            "scope-missing",
            "/claims/0/key",
        ),
        (
            json!([{"key": "orders:1", "token": token}]),
            409,
            "claim-lost",
            "/claims/0",
        ),
    ] {
        assert_refused(&send(claims).await, status, code, pointer);
    }
}
