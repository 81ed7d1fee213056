//! `/v1/topics`: settings, conditions, lists, deletion.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App};

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

async fn conditional(app: &App, method: Method, path: &str, header: (&str, &str)) -> Answer {
    let request = app
        .request(method, path)
        .header(header.0, header.1)
        .header("content-type", "application/json")
        .body(r#"{"retention_seconds": 9}"#);
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_makes_a_topic_with_all_defaults_and_replaces_every_setting() {
    let app = App::start().await;
    let made = Answer::of(app.request(Method::PUT, "/v1/topics/shop")).await;
    let topic = made.expect(StatusCode::CREATED);
    assert_eq!(
        topic,
        json!({
            "name": "shop", "retention_seconds": 0, "max_message_bytes": 1_048_576,
            "dedup_window_seconds": 86_400,
            "created_at": topic["created_at"], "updated_at": topic["created_at"],
        })
    );
    let again = app.put("/v1/topics/shop", "{}").await;
    assert_eq!(again.expect(StatusCode::OK), topic);
    assert_eq!(etag(&again), etag(&made));
    assert_eq!(app.get("/v1/topics/shop").await.json(), topic);

    let others = json!({"retention_seconds": 31_536_000, "max_message_bytes": 8_388_608,
        "dedup_window_seconds": 604_800});
    let replaced = app.put("/v1/topics/shop", &others).await;
    let topic = replaced.expect(StatusCode::OK);
    for (name, value) in others.as_object().unwrap() {
        assert_eq!(topic[name], *value, "{name}");
    }
    assert_ne!(etag(&replaced), etag(&made));
    let patched = app
        .patch("/v1/topics/shop", r#"{"max_message_bytes": null}"#)
        .await
        .expect(StatusCode::OK);
    assert_eq!(patched["max_message_bytes"], 1_048_576);
    assert_eq!(patched["retention_seconds"], 31_536_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_guard_every_change() {
    let app = App::start().await;
    let path = "/v1/topics/shop";
    let absent = conditional(&app, Method::PUT, path, ("if-match", "*")).await;
    absent.expect_problem(412, "precondition-failed");
    let made = conditional(&app, Method::PUT, path, ("if-none-match", "*")).await;
    made.expect(StatusCode::CREATED);
    let first = etag(&made);
    let there = conditional(&app, Method::PUT, path, ("if-none-match", "*")).await;
    there.expect_problem(412, "precondition-failed");
    app.patch(path, r#"{"retention_seconds": 1}"#)
        .await
        .expect(StatusCode::OK);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let old = conditional(&app, method, path, ("if-match", &first)).await;
        old.expect_problem(412, "precondition-failed");
    }
    let now = etag(&app.get(path).await);
    let changed = conditional(&app, Method::PATCH, path, ("if-match", &now)).await;
    assert_eq!(changed.expect(StatusCode::OK)["retention_seconds"], 9);
    let gone = conditional(&app, Method::DELETE, path, ("if-match", &etag(&changed))).await;
    gone.expect(StatusCode::NO_CONTENT);
    app.get(path).await.expect_problem(404, "topic-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_by_name_in_pages() {
    let app = App::start().await;
    for name in ["b", "a1", "a2", "a3"] {
        app.topic(name, json!({})).await;
    }
    let first = app.get("/v1/topics?prefix=a&limit=2").await;
    let page = first.expect(StatusCode::OK);
    let names = |page: &Value| {
        let topics = page["topics"].as_array().unwrap().clone();
        topics
            .iter()
            .map(|t| t["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&page), ["a1", "a2"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let link = first.headers["link"].to_str().unwrap();
    assert!(link.contains(cursor) && link.contains("prefix=a"), "{link}");
    let rest = app
        .get(&format!("/v1/topics?prefix=a&limit=2&cursor={cursor}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (names(&rest), &rest["next_cursor"]),
        (vec!["a3".to_owned()], &Value::Null)
    );
    let all = app.get("/v1/topics").await.expect(StatusCode::OK);
    assert_eq!(names(&all), ["a1", "a2", "a3", "b", "system.events"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_takes_its_subscriptions_and_their_own_queues_along() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.topic("shop", json!({})).await;
    app.topic("other", json!({})).await;
    app.subscription("shop", "own", json!({})).await;
    app.subscription("shop", "shared", json!({})).await;
    app.subscription("shop", "work", json!({"queue": "work"}))
        .await;
    // Another topic feeds it too: it stays.
    app.subscription("other", "too", json!({"queue": "shop.shared"}))
        .await;
    app.publish_topic("shop", json!({"body": 1})).await;
    app.delete("/v1/topics/shop")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.delete("/v1/topics/shop")
        .await
        .expect_problem(404, "topic-not-found");
    app.post("/v1/topics/shop/messages", json!({"body": 2}))
        .await
        .expect_problem(404, "topic-not-found");
    app.get("/v1/queues/shop.own")
        .await
        .expect_problem(404, "queue-not-found");
    for queue in ["work", "shop.shared"] {
        assert_eq!(app.counts(queue).await["ready"], 1, "{queue}");
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_topic_can_be_subscribed_to_but_not_published_to() {
    let app = App::start().await;
    app.get("/v1/topics/system.events")
        .await
        .expect(StatusCode::OK);
    app.subscription("system.events", "alerts", json!({})).await;
    app.post("/v1/topics/system.events/messages", json!({"body": 1}))
        .await
        .expect_problem(422, "invalid");
    app.delete("/v1/topics/system.events/subscriptions/alerts")
        .await
        .expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_puts_at_once_one_makes_the_topic() {
    let app = App::start().await;
    let other = app.another().await;
    let mut puts = tokio::task::JoinSet::new();
    for n in 1..=20 {
        let gateway = if n % 2 == 0 { &app.gateway } else { &other };
        let request = gateway.request(Method::PUT, "/v1/topics/shop");
        puts.spawn(Answer::of(
            request
                .header("content-type", "application/json")
                .body(json!({"retention_seconds": n}).to_string()),
        ));
    }
    let answers = puts.join_all().await;
    let made = answers.iter().filter(|a| a.status == StatusCode::CREATED);
    assert_eq!(made.count(), 1, "{answers:?}");
    for answer in &answers {
        // Losing ten times in a row is possible, and then said so.
        assert!(
            matches!(answer.status.as_u16(), 200 | 201 | 409),
            "{answer:?}"
        );
    }
}
