//! The life of a key: made, shown once, rotated, expired, revoked.

use std::time::{Duration, Instant};

use postrider::app::{self, App};
use postrider::config::Auth;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Guarded, ask, guarded, with_key};
use crate::support::{Answer, Database, Gateway, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_only_its_hash_is_stored() {
    let app = Guarded::start().await;
    let made = app
        .make(json!({"name": "billing", "scopes": ["publish:orders.*", "monitor"]}))
        .await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(key.len(), "pr_".len() + 12 + 1 + 48, "{key}");
    assert!(key.starts_with(&format!("pr_{id}_")), "{key}");
    assert_eq!(made["scopes"], json!(["publish:orders.*", "monitor"]));
    assert_eq!(ask(&app.gateway, key).await.status, StatusCode::OK);

    let path = format!("/v1/keys/{id}");
    let read = app.as_admin(Method::GET, &path, json!({})).await;
    let read = read.expect(StatusCode::OK);
    assert_eq!(read.get("key"), None);
    assert_eq!(read["name"], "billing");
    let list = app.as_admin(Method::GET, "/v1/keys", json!({})).await;
    assert!(list.text.contains(id));
    let secret = &key[16..];
    assert!(!list.text.contains(secret));

    let stored: Vec<String> = sqlx::query_scalar("SELECT k::text FROM postrider.api_keys AS k")
        .fetch_all(&mut app.database.connect().await)
        .await
        .unwrap();
    assert!(!stored.concat().contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_keys_come_in_pages() {
    let app = Guarded::start().await;
    for _ in 0..4 {
        app.key(&["monitor"]).await;
    }
    let mut found = Vec::new();
    let mut path = "/v1/keys?limit=2".to_owned();
    loop {
        let answer = app.as_admin(Method::GET, &path, json!({})).await;
        let page = answer.expect(StatusCode::OK);
        found.extend(page["keys"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        assert!(answer.headers["link"].to_str().unwrap().contains(cursor));
        path = format!("/v1/keys?limit=2&cursor={cursor}");
    }
    assert_eq!(found.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_here_at_once_and_elsewhere_within_five_seconds() {
    let app = Guarded::start().await;
    let other = app.another().await;
    let made = app.make(json!({"name": "x", "scopes": ["monitor"]})).await;
    let key = made["key"].as_str().unwrap();
    for gateway in [&app.gateway, &other] {
        assert_eq!(ask(gateway, key).await.status, StatusCode::OK);
    }
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    let revoked = app.as_admin(Method::DELETE, &path, json!({})).await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    let when = Instant::now();
    ask(&app.gateway, key)
        .await
        .expect_problem(401, "key-refused");
    eventually("the other gateway refuses it", async || {
        ask(&other, key).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert!(when.elapsed() < Duration::from_secs(5), "{when:?}");
    app.as_admin(Method::DELETE, &path, json!({}))
        .await
        .expect_problem(404, "key-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_rotated_key_both_are_good_until_the_overlap_ends() {
    let app = Guarded::start().await;
    let made = app.make(json!({"name": "x", "scopes": ["monitor"]})).await;
    let first = made["key"].as_str().unwrap();
    let path = format!("/v1/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotate = async |body| {
        let rotated = app.as_admin(Method::POST, &path, body).await;
        let rotated = rotated.expect(StatusCode::OK);
        assert_eq!(rotated["id"], made["id"]);
        rotated["key"].as_str().unwrap().to_owned()
    };
    let second = rotate(json!({})).await;
    assert_ne!(first, second);
    for key in [first, &second] {
        assert_eq!(ask(&app.gateway, key).await.status, StatusCode::OK);
    }
    // The overlap is over.
    let past = "UPDATE postrider.api_keys SET previous_expires_at = now() - interval '1 s'
        WHERE previous_hash IS NOT NULL;
        UPDATE postrider.cluster SET keys_version = keys_version + 1";
    app.database.execute(past).await;
    eventually("the old key is refused", async || {
        ask(&app.gateway, first).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    assert_eq!(ask(&app.gateway, &second).await.status, StatusCode::OK);

    // Without an overlap the old one is refused at once.
    let third = rotate(json!({"overlap_seconds": 0})).await;
    ask(&app.gateway, &second)
        .await
        .expect_problem(401, "key-refused");
    assert_eq!(ask(&app.gateway, &third).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_it_expires() {
    let app = Guarded::start().await;
    let made = app
        .make(json!({"name": "x", "scopes": ["monitor"], "expires_in_seconds": 2}))
        .await;
    let key = made["key"].as_str().unwrap();
    assert_eq!(ask(&app.gateway, key).await.status, StatusCode::OK);
    eventually("it has expired", async || {
        ask(&app.gateway, key).await.status == StatusCode::UNAUTHORIZED
    })
    .await;
    let expired: bool =
        sqlx::query_scalar("SELECT expires_at <= now() FROM postrider.api_keys WHERE name = 'x'")
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
    assert!(expired, "it was refused too early");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_key_stays() {
    let app = Guarded::start().await;
    let path = |key: &str| format!("/v1/keys/{}", &key[3..15]);
    let delete = async |key: &str| app.as_admin(Method::DELETE, &path(key), json!({})).await;
    delete(&app.admin)
        .await
        .expect_problem(409, "last-admin-key");
    let second = app.key(&["admin"]).await;
    assert_eq!(delete(&second).await.status, StatusCode::NO_CONTENT);
    delete(&app.admin)
        .await
        .expect_problem(409, "last-admin-key");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_gateways_that_start_together_one_makes_the_admin_key() {
    let database = Database::migrated().await;
    let config = guarded(&database);
    let starts = (0..4).map(|_| Gateway::start(&config));
    let gateways = futures_util::future::join_all(starts).await;
    let keys: Vec<_> = gateways.iter().filter_map(|g| g.app.admin_key()).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    for gateway in &gateways {
        assert_eq!(ask(gateway, keys[0]).await.status, StatusCode::OK);
    }
    // A lost one is made good by `postrider admin-key`.
    let another = app::another_admin_key(gateways[0].app.store())
        .await
        .unwrap();
    assert_eq!(ask(&gateways[0], &another).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_only_a_loopback_address_is_served() {
    let database = Database::migrated().await;
    let mut config = guarded(&database);
    config.auth = Auth::Off;
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = App::start(&config).await.unwrap_err().to_string();
    assert!(error.contains("--auth off"), "{error}");
    config.auth = Auth::Required;
    let gateway = Gateway::start(&config).await;
    assert!(gateway.app.admin_key().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_for_keys_are_refused_by_field() {
    let app = Guarded::start().await;
    for (request, pointer) in [
        (json!({"name": "", "scopes": ["admin"]}), "/name"),
        (json!({"name": "a\u{7}", "scopes": ["admin"]}), "/name"),
        (
            json!({"name": "x".repeat(201), "scopes": ["admin"]}),
            "/name",
        ),
        (json!({"name": "x", "scopes": []}), "/scopes"),
        (
            json!({"name": "x", "scopes": ["admin", "root"]}),
            "/scopes/1",
        ),
        (json!({"name": "x", "scopes": ["publish:a/b"]}), "/scopes/0"),
        (
            json!({"name": "x", "scopes": ["admin"], "expires_in_seconds": 0}),
            "/expires_in_seconds",
        ),
        (
            json!({"name": "x", "scopes": ["admin"], "expires_in_seconds": 1e9}),
            "/expires_in_seconds",
        ),
        (
            json!({"name": "x", "scopes": ["admin"], "rate_limit": {"requests_per_second": 0}}),
            "/rate_limit/requests_per_second",
        ),
        (
            json!({"name": "x", "scopes": ["admin"],
                "rate_limit": {"requests_per_second": 1, "burst": 0}}),
            "/rate_limit/burst",
        ),
    ] {
        let answer = app
            .as_admin(Method::POST, "/v1/keys", request.clone())
            .await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_limited_and_good_keys_are_not() {
    let mut app = Guarded::start().await;
    let mut config = guarded(&app.database);
    config.failed_logins_per_minute = 120.try_into().unwrap();
    app.gateway = Gateway::start(&config).await;
    assert_eq!(ask(&app.gateway, &app.admin).await.status, StatusCode::OK);
    let unknown = format!("pr_{}_{}", "0".repeat(12), "0".repeat(48));
    let mut refused = None;
    for _ in 0..300 {
        let answer = ask(&app.gateway, &unknown).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        answer.expect_problem(401, "key-refused");
    }
    let refused = refused.expect("never limited");
    refused.expect_problem(429, "rate-limited");
    // From the same address.
    assert_eq!(ask(&app.gateway, &app.admin).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_that_are_not_good_are_answered_alike() {
    let app = Guarded::start().await;
    let good = app.key(&["monitor"]).await;
    let revoked = app.key(&["monitor"]).await;
    let path = format!("/v1/keys/{}", &revoked[3..15]);
    app.as_admin(Method::DELETE, &path, json!({})).await;
    let expired = app.key(&["monitor"]).await;
    let past = format!(
        "UPDATE postrider.api_keys SET expires_at = now() - interval '1 s' WHERE id = '{}'",
        &expired[3..15]
    );
    app.database.execute(&past).await;
    let wrong_secret = format!(
        "{}{}",
        &good[..63],
        if good.ends_with('0') { '1' } else { '0' }
    );
    let mut answers = Vec::new();
    for key in [
        &format!("pr_{}_{}", "0".repeat(12), "0".repeat(48)),
        &revoked,
        &expired,
        &wrong_secret,
        "garbage",
        "pr_x",
    ] {
        let answer = ask(&app.gateway, key).await;
        answer.expect_problem(401, "key-refused");
        answers.push(alike(&answer));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(ask(&app.gateway, &good).await.status, StatusCode::OK);
}

/// All of an answer that does not differ from request to request.
pub(in crate::http) fn alike(answer: &Answer) -> String {
    let mut headers = answer.headers.clone();
    headers.remove("x-request-id");
    headers.remove("date");
    let id = answer.headers["x-request-id"].to_str().unwrap();
    format!(
        "{} {headers:?} {}",
        answer.status,
        answer.text.replace(id, "ID")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_taken_from_one_header_only() {
    let app = Guarded::start().await;
    let get = |path: String| app.gateway.request(Method::GET, &path);
    let path = || "/v1/queues".to_owned();
    for request in [
        get(path()),
        get(format!("/v1/queues?access_token={}", app.admin)),
        get(format!("/v1/queues?key={}", app.admin)),
        get(path()).header("x-api-key", &app.admin),
        get(path()).header("cookie", format!("key={}", app.admin)),
    ] {
        let answer = Answer::of(request).await;
        answer.expect_problem(401, "key-missing");
        assert_eq!(
            answer.headers["www-authenticate"],
            "Bearer realm=\"postrider\""
        );
    }
    for request in [
        get(path()).basic_auth("pr", Some(&app.admin)),
        get(path()).header("authorization", &app.admin),
        get(path()).bearer_auth(&app.admin).bearer_auth(&app.admin),
        get(path()).bearer_auth(""),
    ] {
        let answer = Answer::of(request).await;
        answer.expect_problem(401, "key-refused");
        assert!(
            answer.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .contains("invalid_token")
        );
    }
    let lower = get(path()).header("authorization", format!("bearer {}", app.admin));
    assert_eq!(Answer::of(lower).await.status, StatusCode::OK);
    // Nothing under /v1 answers without one, not even that it is not there.
    let answer = Answer::of(get("/v1/nothing".to_owned())).await;
    answer.expect_problem(401, "key-missing");
    let answer = with_key(&app.gateway, &app.admin, Method::GET, "/v1/nothing", None).await;
    answer.expect_problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_are_noted_at_the_latest_when_the_gateway_stops() {
    let app = Guarded::start().await;
    let other = app.another().await;
    let key = app.key(&["monitor"]).await;
    assert_eq!(ask(&other, &key).await.status, StatusCode::OK);
    other.app.shut_down().await.unwrap();
    let path = format!("/v1/keys/{}", &key[3..15]);
    let read = app.as_admin(Method::GET, &path, json!({})).await;
    assert!(read.expect(StatusCode::OK)["last_used_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_used_as_often_as_its_rate_limit_says() {
    let app = Guarded::start().await;
    let limit = json!({"requests_per_second": 0.1, "burst": 3});
    let made = app
        .make(json!({"name": "x", "scopes": ["monitor"], "rate_limit": limit}))
        .await;
    assert_eq!(made["rate_limit"], limit);
    let key = made["key"].as_str().unwrap();
    for left in [2, 1, 0] {
        let answer = ask(&app.gateway, key).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["ratelimit-policy"], "\"key\";q=3;w=30");
        let told = answer.headers["ratelimit"].to_str().unwrap();
        assert!(told.starts_with(&format!("\"key\";r={left};t=")), "{told}");
    }
    let refused = ask(&app.gateway, key).await;
    refused.expect_problem(429, "rate-limited");
    assert_eq!(refused.headers["retry-after"], "10");
    assert!(
        refused.headers["ratelimit"]
            .to_str()
            .unwrap()
            .starts_with("\"key\";r=0")
    );
    // Others have their own, and so has each gateway.
    assert_eq!(ask(&app.gateway, &app.admin).await.status, StatusCode::OK);
    let other = app.another().await;
    assert_eq!(ask(&other, key).await.status, StatusCode::OK);
}
