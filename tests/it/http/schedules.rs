//! `/v1/schedules`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::keys::{Guarded, with_key};
use crate::store::time;
use crate::support::{Answer, App};

const PATH: &str = "/v1/schedules/nightly";

fn settings() -> Value {
    json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "queue": "q",
        "message": {"body": {"report": 1}, "priority": 3}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_read_changed_and_deleted() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let answer = app.put(PATH, settings()).await;
    let made = answer.expect(StatusCode::CREATED);
    for (field, value) in [
        ("name", json!("nightly")),
        ("cron", json!("30 2 * * *")),
        ("timezone", json!("Europe/Berlin")),
        ("queue", json!("q")),
        ("message", json!({"body": {"report": 1}, "priority": 3})),
        ("paused", json!(false)),
        ("catch_up", json!("one")),
        ("last_run", Value::Null),
        ("last_error", Value::Null),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert!(time(&made["next_run"]) > time(&made["created_at"]));
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();

    // The same PUT changes nothing.
    let again = app.put(PATH, settings()).await;
    assert_eq!(again.expect(StatusCode::OK), made);
    assert_eq!(again.headers["etag"], etag.as_str());

    let changed = app
        .patch(
            PATH,
            json!({"cron": "@hourly", "timezone": null, "catch_up": "all",
            "message": {"priority": null, "headers": {"a": "b"}}}),
        )
        .await;
    let changed_to = changed.expect(StatusCode::OK);
    assert_eq!(
        [
            &changed_to["timezone"],
            &changed_to["catch_up"],
            &changed_to["message"]
        ],
        [
            &json!("UTC"),
            &json!("all"),
            &json!({"body": {"report": 1}, "priority": 0,
            "headers": {"a": "b"}})
        ]
    );
    assert!(
        time(&changed_to["next_run"]) < time(&made["created_at"]) + chrono::TimeDelta::hours(1)
    );
    assert_ne!(changed.headers["etag"], etag.as_str());
    let read = app.get(PATH).await;
    assert_eq!(read.expect(StatusCode::OK), changed_to);

    let guarded = |method: Method, etag: &str| {
        let request = app
            .request(method, PATH)
            .header("if-match", etag)
            .header("content-type", "application/json")
            .body(settings().to_string());
        Answer::of(request)
    };
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        guarded(method, &etag)
            .await
            .expect_problem(412, "precondition-failed");
    }
    let etag = changed.headers["etag"].to_str().unwrap().to_owned();
    guarded(Method::PUT, &etag).await.expect(StatusCode::OK);
    app.delete(PATH).await.expect(StatusCode::NO_CONTENT);
    for method in ["get", "delete", "pause"] {
        let answer = match method {
            "get" => app.get(PATH).await,
            "delete" => app.delete(PATH).await,
            _ => app.post(&format!("{PATH}/pause"), "").await,
        };
        answer.expect_problem(404, "schedule-not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_is_kept_byte_for_byte() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let body = r#"{"b":1.10,  "a":[9007199254740993,"\u0000"]}"#;
    let put = format!(r#"{{"cron":"* * * * * *","queue":"q","message":{{"body":{body}}}}}"#);
    let answer = app.put(PATH, &put).await;
    answer.expect(StatusCode::CREATED);
    assert!(answer.text.contains(body), "{}", answer.text);
    let answer = app.patch(PATH, json!({"catch_up": "none"})).await;
    assert!(answer.text.contains(body), "{}", answer.text);
    let answer = app
        .post("/v1/queues/q/receive", json!({"wait_seconds": 20}))
        .await;
    assert!(answer.text.contains(body), "{}", answer.text);
    // null is a body.
    app.patch(PATH, json!({"message": {"body": null}}))
        .await
        .expect_problem(422, "invalid");
    let null = json!({"cron": "@daily", "queue": "q", "message": {"body": null}});
    let kept = app.put(PATH, null).await.expect(StatusCode::OK);
    assert_eq!(kept["message"], json!({"body": null, "priority": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_in_pages_in_order_of_name() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    for name in ["b", "a", "c1", "c2"] {
        app.put(&format!("/v1/schedules/{name}"), settings())
            .await
            .expect(StatusCode::CREATED);
    }
    let names = |page: &Value| -> Vec<String> {
        let schedules = page["schedules"].as_array().unwrap();
        schedules
            .iter()
            .map(|s| s["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = app
        .get("/v1/schedules?limit=3")
        .await
        .expect(StatusCode::OK);
    assert_eq!(names(&first), ["a", "b", "c1"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app
        .get(&format!("/v1/schedules?limit=3&cursor={cursor}"))
        .await;
    assert_eq!(names(&second.expect(StatusCode::OK)), ["c2"]);
    let some = app
        .get("/v1/schedules?prefix=c")
        .await
        .expect(StatusCode::OK);
    assert_eq!(names(&some), ["c1", "c2"]);
}

/// What is wrong with the settings of a schedule, and where.
fn wrong_settings() -> Vec<(&'static str, Value)> {
    vec![
        ("/cron", json!({"cron": "61 * * * *"})),
        ("/cron", json!({"cron": "* * * *"})),
        ("/cron", json!({"cron": ""})),
        ("/cron", json!({"cron": "0 0 30 2 *"})),
        ("/cron", json!({"cron": "x".repeat(257)})),
        ("/cron", json!({"cron": 5})),
        ("/timezone", json!({"timezone": "Mars/Olympus"})),
        ("/timezone", json!({"timezone": "+02:00"})),
        ("/queue", json!({"queue": null})),
        ("/queue", json!({"queue": "a/b"})),
        ("/topic", json!({"topic": "t"})),
        ("/topic", json!({"queue": null, "topic": "system.events"})),
        ("/catch_up", json!({"catch_up": "some"})),
        ("/paused", json!({"paused": "yes"})),
        ("/unknown", json!({"unknown": 1})),
    ]
}

/// And with its message.
fn wrong_messages() -> Vec<(&'static str, Value)> {
    let many: serde_json::Map<String, Value> =
        (0..63).map(|n| (format!("h{n}"), json!(""))).collect();
    vec![
        ("/message", json!({"message": null})),
        ("/message", json!({"message": []})),
        ("/message/body", json!({"message": {}})),
        (
            "/message/body_base64",
            json!({"message": {"body": 1, "body_base64": ""}}),
        ),
        (
            "/message/body_base64",
            json!({"message": {"body_base64": "?"}}),
        ),
        (
            "/message/content_type",
            json!({"message": {"body": 1, "content_type": "a/b"}}),
        ),
        (
            "/message/priority",
            json!({"message": {"body": 1, "priority": 10}}),
        ),
        (
            "/message/delay_seconds",
            json!({"message": {"body": 1, "delay_seconds": -1}}),
        ),
        (
            "/message/ttl_seconds",
            json!({"message": {"body": 1, "ttl_seconds": 0}}),
        ),
        ("/message/key", json!({"message": {"body": 1, "key": ""}})),
        (
            "/message/routing_key",
            json!({"message": {"body": 1, "routing_key": "a"}}),
        ),
        (
            "/message/headers",
            json!({"message": {"body": 1, "headers": many}}),
        ),
        (
            "/message/headers/Postrider-x",
            json!({"message": {"body": 1, "headers": {"Postrider-x": ""}}}),
        ),
        (
            "/message/headers/a",
            json!({"message": {"body": 1, "headers": {"a": "\n"}}}),
        ),
        (
            "/message/dedup_id",
            json!({"message": {"body": 1, "dedup_id": "x"}}),
        ),
        (
            "/message/deliver_at",
            json!({"message": {"body": 1, "deliver_at": "2026-01-01T00:00:00Z"}}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_a_pointer() {
    let app = App::start().await;
    app.queue("q", json!({"max_message_bytes": 20})).await;
    app.topic("t", json!({})).await;
    for (pointer, patch) in [wrong_settings(), wrong_messages()].concat() {
        let mut wrong = settings();
        let fields = patch.as_object().unwrap();
        wrong.as_object_mut().unwrap().extend(fields.clone());
        if fields.get("queue").is_some_and(Value::is_null) {
            wrong.as_object_mut().unwrap().remove("queue");
        }
        let problem = app.put(PATH, &wrong).await.expect_problem(422, "invalid");
        assert_eq!(
            problem["errors"][0]["pointer"], pointer,
            "{patch}: {problem}"
        );
    }
    let problem = app
        .put(
            PATH,
            json!({"cron": "61 * * * *", "queue": "q", "message": {"body": 1}}),
        )
        .await;
    let problem = problem.expect_problem(422, "invalid");
    assert!(
        problem["detail"].as_str().unwrap().contains("61"),
        "{problem}"
    );
    let mut large = settings();
    large["message"]["body"] = json!("x".repeat(19));
    app.put(PATH, large)
        .await
        .expect_problem(413, "message-too-large");
    for (field, code) in [("queue", "queue-not-found"), ("topic", "topic-not-found")] {
        let other = json!({"cron": "@daily", field: "other", "message": {"body": 1}});
        app.put(PATH, other).await.expect_problem(404, code);
    }
    app.put("/v1/schedules/system.s", settings())
        .await
        .expect_problem(422, "invalid");
    app.get(PATH)
        .await
        .expect_problem(404, "schedule-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_publish_there_learns_no_more_than_that_it_is_not_there() {
    let app = Guarded::start().await;
    app.as_admin(Method::PUT, "/v1/queues/q", json!({})).await;
    app.as_admin(Method::PUT, "/v1/topics/t", json!({})).await;
    let put = async |key: &str, name: &str, settings: Value| {
        let path = format!("/v1/schedules/{name}");
        with_key(&app.gateway, key, Method::PUT, &path, Some(settings)).await
    };
    let key = app.key(&["manage:mine.*", "publish:allowed"]).await;
    put(&key, "mine.a", settings())
        .await
        .expect_problem(404, "queue-not-found");
    let to_topic = json!({"cron": "@daily", "topic": "t", "message": {"body": 1}});
    put(&key, "mine.a", to_topic.clone())
        .await
        .expect_problem(404, "topic-not-found");
    put(&key, "theirs", settings())
        .await
        .expect_problem(403, "scope-missing");
    let consumer = app.key(&["manage:mine.*", "consume:q"]).await;
    put(&consumer, "mine.a", settings())
        .await
        .expect_problem(403, "scope-missing");
    let right = app.key(&["manage:mine.*", "publish:q", "publish:t"]).await;
    put(&right, "mine.a", settings())
        .await
        .expect(StatusCode::CREATED);
    put(&right, "mine.b", to_topic)
        .await
        .expect(StatusCode::CREATED);
    // A list shows the messages: for those who manage.
    let publisher = app.key(&["publish:*"]).await;
    for (key, count) in [(&right, 2), (&publisher, 0)] {
        let list = with_key(&app.gateway, key, Method::GET, "/v1/schedules", None).await;
        let list = list.expect(StatusCode::OK);
        assert_eq!(list["schedules"].as_array().unwrap().len(), count);
    }
}
