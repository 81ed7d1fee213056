//! Which versions there are, and which one is in force.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{MESSAGES, SCHEMA, amounts, app, pointers};
use crate::http::counts::expect_counts;
use crate::support::{Answer, Gateway, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_compared_counted_and_kept() {
    let app = app().await;
    let etag = app.get(SCHEMA).await.headers["etag"].clone();
    // The same again, written otherwise.
    let same = r#"{"compatibility": "full", "schema": {"type":"object","additionalProperties":false,
        "required":["amount"],"properties":{"amount":{"type":"integer"}}}}"#;
    assert_eq!(
        app.put(SCHEMA, same).await.expect(StatusCode::OK)["version"],
        1
    );

    let narrower = amounts(&json!({"type": "integer", "minimum": 1}));
    let problem = app.put(SCHEMA, narrower.clone()).await;
    let problem = problem.expect_problem(409, "schema-incompatible");
    assert_eq!(pointers(&problem), ["/schema/properties/amount/minimum"]);
    assert!(
        problem["detail"].as_str().unwrap().contains("none"),
        "{problem}"
    );
    let with = |compatibility: &str, mut schema: Value| {
        schema["compatibility"] = json!(compatibility);
        schema
    };
    app.put(SCHEMA, with("forward", narrower.clone()))
        .await
        .expect(StatusCode::OK);
    let wider = amounts(&json!({"type": "number"}));
    for by in ["forward", "full"] {
        let problem = app.put(SCHEMA, with(by, wider.clone())).await;
        problem.expect_problem(409, "schema-incompatible");
    }
    let text = r#"{"properties": {"amount":   {"type": "string"}}, "title": "\u0000"}"#;
    let made = app
        .put(
            SCHEMA,
            format!(r#"{{"schema": {text}, "compatibility": "none"}}"#),
        )
        .await;
    assert_eq!(made.expect(StatusCode::OK)["version"], 3);
    assert!(made.text.contains(text), "{}", made.text);

    app.delete(SCHEMA).await.expect(StatusCode::NO_CONTENT);
    app.delete(SCHEMA)
        .await
        .expect_problem(404, "schema-not-found");
    app.get(SCHEMA)
        .await
        .expect_problem(404, "schema-not-found");
    let third = app.get(&format!("{SCHEMA}/versions/3")).await;
    assert!(third.text.contains(text), "{}", third.text);
    for none in ["0", "-1", "4", "99999999999999", "a", "01x"] {
        let answer = app.get(&format!("{SCHEMA}/versions/{none}")).await;
        answer.expect_problem(404, "schema-not-found");
    }
    // Nothing is in force that it could be compared with.
    assert_eq!(
        app.put(SCHEMA, wider).await.expect(StatusCode::CREATED)["version"],
        4
    );

    let mut seen = Vec::new();
    let mut path = format!("{SCHEMA}/versions?limit=3");
    loop {
        let page = app.get(&path).await.expect(StatusCode::OK);
        seen.extend(page["versions"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{SCHEMA}/versions?limit=3&cursor={cursor}");
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|one| {
            (
                one["version"].as_i64(),
                one["compatibility"].as_str(),
                one["in_force"].as_bool(),
            )
        })
        .collect();
    let row = |version, by, active| (Some(version), Some(by), Some(active));
    assert_eq!(
        seen,
        [
            row(1, "backward", false),
            row(2, "forward", false),
            row(3, "none", false),
            row(4, "backward", true)
        ]
    );

    let put = |name: &'static str, value: reqwest::header::HeaderValue| {
        let request = app.request(Method::PUT, SCHEMA).header(name, value);
        Answer::of(
            request
                .header("content-type", "application/json")
                .body(r#"{"schema": true}"#),
        )
    };
    put("if-match", etag)
        .await
        .expect_problem(412, "precondition-failed");
    put("if-none-match", "*".parse().unwrap())
        .await
        .expect_problem(412, "precondition-failed");
    let etag = app.get(SCHEMA).await.headers["etag"].clone();
    put("if-match", etag).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_schemas_that_are_put_at_once_each_is_compared_with_the_one_before() {
    let app = app().await;
    let other = app.another().await;
    let mut tasks = tokio::task::JoinSet::new();
    for maximum in 0..12 {
        let gateway: &Gateway = if maximum % 2 == 0 { &app } else { &other };
        let request = gateway
            .request(Method::PUT, SCHEMA)
            .header("content-type", "application/json")
            .body(json!({"schema": {"maximum": maximum}, "compatibility": "backward"}).to_string());
        tasks.spawn(Answer::of(request));
    }
    app.put(
        SCHEMA,
        json!({"schema": {"maximum": -1}, "compatibility": "none"}),
    )
    .await
    .expect(StatusCode::OK);
    let mut accepted = 0;
    for answer in tasks.join_all().await {
        accepted += usize::from(answer.status == StatusCode::OK);
        let code = answer.json()["code"].as_str().map(str::to_owned);
        let refused = code
            .as_deref()
            .is_some_and(|code| ["schema-incompatible", "changed-meanwhile"].contains(&code));
        assert!(answer.status == StatusCode::OK || refused, "{answer:?}");
    }
    let rows: Vec<(i32, String, String)> = sqlx::query_as(
        "SELECT version, schema, compatibility FROM postrider.schemas ORDER BY version",
    )
    .fetch_all(&mut app.database.connect().await)
    .await
    .unwrap();
    let maximum = |text: &str| serde_json::from_str::<Value>(text).unwrap()["maximum"].as_i64();
    // The first, the one that is put whatever was before, and of the others those
    // that were told so; whoever is first of them is.
    assert!(accepted > 0);
    assert_eq!(rows.len(), 2 + accepted, "{rows:?}");
    for pair in rows.windows(2) {
        assert_eq!(pair[1].0, pair[0].0 + 1, "{rows:?}");
        if pair[1].2 == "backward" {
            assert!(maximum(&pair[1].1) > maximum(&pair[0].1), "{rows:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_counts_at_other_gateways_within_the_second_of_their_cache() {
    let app = app().await;
    let other = app.another().await;
    other
        .publish("orders", json!({"body": {"amount": 1}}))
        .await;
    app.put(SCHEMA, json!({"schema": false, "compatibility": "none"}))
        .await
        .expect(StatusCode::OK);
    let message = json!({"body": {"amount": 1}});
    app.post(MESSAGES, message.clone())
        .await
        .expect_problem(422, "schema-violation");
    let began = std::time::Instant::now();
    eventually("the other gateway refuses", async || {
        other.post(MESSAGES, message.clone()).await.status == 422
    })
    .await;
    assert!(began.elapsed().as_secs_f64() < 5.0, "{:?}", began.elapsed());
    app.delete(SCHEMA).await.expect(StatusCode::NO_CONTENT);
    eventually("the other gateway takes it", async || {
        other.post(MESSAGES, message.clone()).await.status == 201
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_made_anew_has_no_schema_and_one_that_is_put_on_it_counts() {
    let app = app().await;
    let other = app.another().await;
    other
        .publish("orders", json!({"body": {"amount": 1}}))
        .await;
    app.delete("/v1/queues/orders")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.queue("orders", json!({})).await;
    app.publish("orders", json!({"body": "anything"})).await;
    app.get(&format!("{SCHEMA}/versions/1"))
        .await
        .expect_problem(404, "schema-not-found");
    app.put(SCHEMA, json!({"schema": {"type": "null"}}))
        .await
        .expect(StatusCode::CREATED);
    // It knows the old queue yet, whose schema this breaks, or finds the new one.
    let answer = other.post(MESSAGES, json!({"body": {"amount": 1}})).await;
    answer.expect_problem(422, "schema-violation");
    eventually("the new schema counts there", async || {
        other.post(MESSAGES, json!({"body": null})).await.status == 201
    })
    .await;
    expect_counts(&app, "orders", &json!({"ready": 2})).await;
}
