//! `/v1/claims`: a thing is done once.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, App, Database, Gateway, eventually};

async fn take(gateway: &Gateway, key: &str, request: Value) -> Answer {
    gateway.post(&format!("/v1/claims/{key}"), request).await
}

/// Takes a claim that is free; its token.
async fn taken(gateway: &Gateway, key: &str, request: Value) -> String {
    let claim = take(gateway, key, request)
        .await
        .expect(StatusCode::CREATED);
    assert_eq!(claim["state"], "taken");
    claim["token"].as_str().unwrap().to_owned()
}

async fn complete(gateway: &Gateway, key: &str, token: &str) -> Answer {
    let path = format!("/v1/claims/{key}/complete");
    gateway.post(&path, json!({"token": token})).await
}

async fn give_up(gateway: &Gateway, key: &str, token: &str) -> Answer {
    gateway
        .delete(&format!("/v1/claims/{key}?token={token}"))
        .await
}

/// Lets all locks and all keeping end so many seconds ago; a little over an hour at
/// most, as gateways have looked for older ones already.
async fn end_all(database: &Database, seconds: f64) {
    database
        .execute(&format!(
            "UPDATE postrider.claims SET
                done_at = done_at - interval '1 year',
                until = now() - {seconds} * interval '1 s'"
        ))
        .await;
}

/// How many rows there are.
async fn rows(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM postrider.claims")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_taken_then_held_then_done() {
    let app = App::start().await;
    let token = taken(&app, "orders:1", json!({"lock_seconds": 60})).await;

    let held = take(&app, "orders:1", json!({})).await;
    held.expect_problem(409, "claim-held");
    let left: u32 = held.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((50..=60).contains(&left), "{left}");

    let done = complete(&app, "orders:1", &token)
        .await
        .expect(StatusCode::OK);
    assert_eq!(done["state"], "done");
    // Whoever asks hears the same.
    let again = take(&app, "orders:1", json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(again, done);
    // A lost answer is asked for again, and nothing changes.
    let repeated = complete(&app, "orders:1", &token).await;
    assert_eq!(repeated.expect(StatusCode::OK), done);
    give_up(&app, "orders:1", &token)
        .await
        .expect_problem(409, "claim-done");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_who_ask_at_two_gateways_one_goes_ahead() {
    let app = App::start().await;
    let gateways = std::sync::Arc::new([app.another().await, app.another().await]);
    for key in ["a", "b", "c"] {
        let mut asking = JoinSet::new();
        for n in 0..50 {
            let gateways = std::sync::Arc::clone(&gateways);
            asking.spawn(async move { take(&gateways[n % 2], key, json!({})).await.status });
        }
        let mut statuses = asking.join_all().await;
        statuses.sort_unstable();
        let mut expected = vec![StatusCode::CREATED];
        expected.extend([StatusCode::CONFLICT; 49]);
        assert_eq!(statuses, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_who_ask_for_one_whose_lock_has_ended_one_goes_ahead_and_the_first_is_refused() {
    let app = App::start().await;
    let gateways = std::sync::Arc::new([app.another().await, app.another().await]);
    let old = taken(&app, "k", json!({})).await;
    end_all(&app.database, 1.0).await;
    let mut asking = JoinSet::new();
    for n in 0..50 {
        let gateways = std::sync::Arc::clone(&gateways);
        asking.spawn(async move { take(&gateways[n % 2], "k", json!({})).await });
    }
    let answers = asking.join_all().await;
    let mut ahead = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::CREATED);
    let new = ahead.next().unwrap().json()["token"].clone();
    assert!(ahead.next().is_none());
    // A fencing number.
    let new = new.as_str().unwrap();
    assert!(new > old.as_str(), "{new} {old}");

    for answer in [
        complete(&app, "k", &old).await,
        give_up(&app, "k", &old).await,
    ] {
        answer.expect_problem(409, "claim-lost");
    }
    complete(&app, "k", new).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_over_takings_of_all_kinds() {
    let app = App::start().await;
    let mut last = String::new();
    let mut next = |token: String| {
        assert!(token > last, "{token} {last}");
        last.clone_from(&token);
        token
    };
    let first = next(taken(&app, "k", json!({})).await);
    give_up(&app, "k", &first)
        .await
        .expect(StatusCode::NO_CONTENT);
    let second = next(taken(&app, "k", json!({})).await);
    complete(&app, "k", &second).await.expect(StatusCode::OK);
    end_all(&app.database, 1.0).await;
    next(taken(&app, "k", json!({})).await);
    end_all(&app.database, 3700.0).await;
    app.gateway.app.store().prune().await.unwrap();
    assert_eq!(rows(&app.database).await, 0);
    next(taken(&app, "k", json!({})).await);
    next(taken(&app, "another", json!({})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_given_up_is_free_at_once() {
    let app = App::start().await;
    let token = taken(&app, "k", json!({})).await;
    let gave_up = give_up(&app, "k", &token).await;
    gave_up.expect(StatusCode::NO_CONTENT);
    // The same again, as after a lost answer.
    give_up(&app, "k", &token)
        .await
        .expect(StatusCode::NO_CONTENT);
    complete(&app, "k", &token)
        .await
        .expect_problem(409, "claim-lost");
    let new = taken(&app, "k", json!({})).await;
    give_up(&app, "k", &token)
        .await
        .expect_problem(409, "claim-lost");
    complete(&app, "k", &new).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_has_ended_still_completes_while_nobody_has_taken_the_claim() {
    let app = App::start().await;
    let token = taken(&app, "k", json!({"keep_seconds": 60})).await;
    end_all(&app.database, 600.0).await;
    app.gateway.app.store().prune().await.unwrap();
    let done = complete(&app, "k", &token).await.expect(StatusCode::OK);
    assert_eq!(
        take(&app, "k", json!({})).await.expect(StatusCode::OK),
        done
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_ends_by_itself_and_what_is_done_is_forgotten_in_time() {
    let app = App::start().await;
    let short = json!({"lock_seconds": 0.05, "keep_seconds": 0.05});
    taken(&app, "k", short.clone()).await;
    let mut token = String::new();
    eventually("the lock has ended", async || {
        let answer = take(&app, "k", short.clone()).await;
        if answer.status == StatusCode::CREATED {
            answer.json()["token"]
                .as_str()
                .unwrap()
                .clone_into(&mut token);
        }
        !token.is_empty()
    })
    .await;
    complete(&app, "k", &token).await.expect(StatusCode::OK);
    eventually("it is forgotten", async || {
        take(&app, "k", json!({})).await.status == StatusCode::CREATED
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_any_text_that_a_path_can_hold() {
    let app = App::start().await;
    for key in [
        "a%2Fb",
        "%20",
        "orders:42",
        "%D0%BA%D0%BB%D1%8E%D1%87",
        &"%C3%A9".repeat(255),
        "..%2F..",
    ] {
        let token = taken(&app, key, json!({})).await;
        complete(&app, key, &token).await.expect(StatusCode::OK);
    }
    let claim = take(&app, "a%2Fb", json!({})).await.expect(StatusCode::OK);
    assert_eq!(claim["key"], "a/b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_may_be_taken_without_a_body() {
    let app = App::start().await;
    let answer = Answer::of(app.request(Method::POST, "/v1/claims/k")).await;
    answer.expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_over_are_removed_an_hour_later_and_others_stay() {
    let app = App::start().await;
    let store = app.gateway.app.store();
    app.database
        .execute(
            "INSERT INTO postrider.claims (key, token, keep_ms, until)
             SELECT 'old ' || n, n, 1, now() - interval '1 hour' - n * interval '0.1 s'
             FROM generate_series(1, 2500) AS n
             UNION ALL VALUES
                ('over', 3000, 1, now() - interval '59 min'),
                ('held', 3001, 1, now() + interval '1 s')",
        )
        .await;
    while store.prune().await.unwrap() {}
    assert_eq!(rows(&app.database).await, 2);
    // From where the last round came to: what ends now is found later, too.
    app.database
        .execute("UPDATE postrider.claims SET until = now() - interval '61 min'")
        .await;
    store.prune().await.unwrap();
    assert_eq!(rows(&app.database).await, 0);
}
