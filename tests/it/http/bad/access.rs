//! Keys that are none, or not for this.

use std::sync::Arc;

use postrider::config::{Auth, Config};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Database, Gateway, Link, config, eventually};

/// A key or none, what it is used for, and the answer; that while Postgres is
/// away, too, where it is another one.
struct Row {
    authorization: Option<String>,
    path: &'static str,
    up: (u16, &'static str),
    down: (u16, &'static str),
}

/// Whether a key is still good only the database knows: what was known of it is
/// too old after some seconds.
const AWAY: (u16, &str) = (503, "database-unavailable");

async fn ask(gateway: &Gateway, row: &Row) -> Answer {
    let mut request = gateway.request(Method::GET, row.path);
    if let Some(authorization) = &row.authorization {
        request = request.header("authorization", authorization);
    }
    Answer::of(request).await
}

async fn as_admin(
    gateway: &Gateway,
    admin: &str,
    method: Method,
    path: &str,
    json: Value,
) -> Value {
    let request = gateway
        .request(method, path)
        .bearer_auth(admin)
        .header("content-type", "application/json")
        .body(json.to_string());
    let answer = Answer::of(request).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    if answer.text.is_empty() {
        Value::Null
    } else {
        answer.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_or_not_for_this_are_refused() {
    let database = Database::migrated().await;
    let mut link = Link::to(&database).await;
    let settings = Config {
        auth: Auth::Required,
        ..config(link.url())
    };
    let gateway = Arc::new(Gateway::start(&settings).await);
    let admin = gateway.app.admin_key().unwrap().to_owned();
    for queue in ["orders", "secret"] {
        let path = format!("/v1/queues/{queue}");
        as_admin(&gateway, &admin, Method::PUT, &path, json!({})).await;
    }
    let key =
        async |request: Value| as_admin(&gateway, &admin, Method::POST, "/v1/keys", request).await;
    let text = |made: &Value| made["key"].as_str().unwrap().to_owned();
    let consumer = text(&key(json!({"name": "a", "scopes": ["consume:orders"]})).await);
    let revoked = key(json!({"name": "b", "scopes": ["admin"]})).await;
    let path = format!("/v1/keys/{}", revoked["id"].as_str().unwrap());
    as_admin(&gateway, &admin, Method::DELETE, &path, json!({})).await;
    let bearer = |key: &str| Some(format!("Bearer {key}"));

    let queue = "/v1/queues/orders";
    // Of the form that keys have, and of an id that none has.
    let revoked_key = text(&revoked);
    let other = if revoked_key.starts_with("pr_0") {
        "1"
    } else {
        "0"
    };
    let unknown = format!("pr_{other}{}", &revoked_key[4..]);
    let missing = (401, "key-missing");
    let invalid = (401, "key-refused");
    let with_a_key_in_the_url: &'static str = format!("{queue}?key={admin}").leak();
    let rows: Vec<Row> = [
        (None, queue, missing, missing),
        (None, with_a_key_in_the_url, missing, missing),
        (Some("Basic YTpi".to_owned()), queue, invalid, invalid),
        (bearer("garbage"), queue, invalid, invalid),
        (bearer(&admin[..admin.len() - 1]), queue, invalid, invalid),
        (bearer(&unknown), queue, invalid, AWAY),
        (bearer(&revoked_key), queue, invalid, AWAY),
        (bearer(&consumer), "/v1/keys", (403, "scope-missing"), AWAY),
        (
            bearer(&consumer),
            "/v1/queues/secret",
            (404, "queue-not-found"),
            AWAY,
        ),
        (
            bearer(&consumer),
            "/v1/queues/nowhere",
            (404, "queue-not-found"),
            AWAY,
        ),
    ]
    .map(|(authorization, path, up, down)| Row {
        authorization,
        path,
        up,
        down,
    })
    .into();

    for row in &rows {
        let answer = ask(&gateway, row).await;
        answer.expect_problem(row.up.0, row.up.1);
        let has_challenge = answer.headers.contains_key("www-authenticate");
        assert_eq!(has_challenge, row.up.0 == 401, "{answer:?}");
    }
    // What it may not see is like what is not there, but for the name.
    let [hidden, nowhere] = [&rows[8], &rows[9]];
    let hidden = ask(&gateway, hidden).await.json();
    let nowhere = ask(&gateway, nowhere).await.json();
    let detail = hidden["detail"]
        .as_str()
        .unwrap()
        .replace("secret", "nowhere");
    assert_eq!(nowhere["detail"], detail);

    link.cut();
    eventually("what was known of keys is too old", async || {
        ask(&gateway, &rows[7]).await.status == 503
    })
    .await;
    for row in &rows {
        let answer = ask(&gateway, row).await;
        answer.expect_problem(row.down.0, row.down.1);
    }
    link.mend().await;
    let live = gateway.get("/livez").await;
    live.expect(StatusCode::OK);
}
