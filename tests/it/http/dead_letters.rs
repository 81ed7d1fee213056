//! `/v1/queues/{queue}/dead-letters`: looking and removing; for putting back
//! see `redrive.rs`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, message_id, seconds_between};
use crate::support::{Answer, App};

const LIST: &str = "/v1/queues/work/dead-letters";

/// Makes dead letters, one for each reason, the first the oldest: each died a
/// minute after the one before, the last at noon.
pub(super) async fn bury(app: &App, queue: &str, reasons: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for (at, reason) in reasons.iter().enumerate() {
        let id = app.publish(queue, json!({"body": at, "key": "k"})).await;
        let message = app.receive_one(queue).await;
        let more = json!({"dead_letter": true, "reason": format!("error {at}")});
        app.settle("nack", queue, &[&message["receipt"]], more)
            .await
            .expect(StatusCode::OK);
        let died = format!(
            "UPDATE postrider.dead_letters SET reason = '{reason}',
                dead_at = '2026-01-01T12:00:00Z'::timestamptz - interval '{} min'
             WHERE message_id = {}",
            reasons.len() - 1 - at,
            message_id(&id)
        );
        assert_eq!(execute(&app.database, died).await, 1);
        ids.push(id);
    }
    ids
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.expect(StatusCode::OK)["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| letter["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_the_whole_message_and_why_it_died() {
    let app = App::start().await;
    let settings = json!({"max_attempts": 1, "dead_letter": {"retention_seconds": 60}});
    app.queue("work", settings).await;
    let message = json!({
        "body": {"n": 1}, "headers": {"a": "b"}, "key": "k", "priority": 4,
        "correlation_id": "c", "reply_to": "r",
    });
    let id = app.publish("work", message).await;
    let received = app.receive_one("work").await;
    let more = json!({"reason": "no stock"});
    app.settle("nack", "work", &[&received["receipt"]], more)
        .await
        .expect(StatusCode::OK);

    let letter = app.get(&format!("{LIST}/{id}")).await;
    let mut letter = letter.expect(StatusCode::OK);
    let listed = app.get(LIST).await.expect(StatusCode::OK);
    assert_eq!(
        listed,
        json!({"dead_letters": [letter], "next_cursor": null})
    );
    let fields = letter.as_object_mut().unwrap();
    let dead_at = fields.remove("dead_at").unwrap();
    let expires_at = fields.remove("expires_at").unwrap();
    let enqueued_at = fields.remove("enqueued_at").unwrap();
    assert!((seconds_between(&dead_at, &expires_at) - 60.0).abs() < 1e-4);
    assert_eq!(enqueued_at, received["enqueued_at"]);
    assert_eq!(
        letter,
        json!({
            "id": id, "body": {"n": 1}, "content_type": "application/json",
            "headers": {"a": "b"}, "key": "k", "priority": 4, "correlation_id": "c",
            "reply_to": "r", "traceparent": null, "tracestate": null, "topic": null,
            "routing_key": null, "reason": "max-attempts",
            "attempts": 1, "retry_rounds": 0, "last_error": "no stock",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_back_as_they_were() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 1})).await;
    let odd = r#"{"b":1.10,"a":9007199254740993,"n":"\u0000"}"#;
    for message in [
        format!(r#"{{"body":{odd}}}"#),
        r#"{"body_base64":"AP8=","content_type":"image/png"}"#.to_owned(),
    ] {
        app.post("/v1/queues/work/messages", message)
            .await
            .expect(StatusCode::CREATED);
        let received = app.receive_one("work").await;
        app.settle("nack", "work", &[&received["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    let list = app.get(LIST).await;
    let letters = list.expect(StatusCode::OK);
    assert!(list.text.contains(odd), "{}", list.text);
    assert_eq!(letters["dead_letters"][0]["body_base64"], "AP8=");
    assert_eq!(letters["dead_letters"][0]["content_type"], "image/png");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_are_listed_first_and_filters_are_anded() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.queue("others", json!({})).await;
    let letters = bury(
        &app,
        "work",
        &["rejected", "max-attempts", "overflow", "rejected"],
    )
    .await;
    bury(&app, "others", &["rejected"]).await;
    for (query, expected) in [
        ("", vec![3, 2, 1, 0]),
        ("?reason=rejected", vec![3, 0]),
        ("?reason=expired", vec![]),
        // From this time on, and before that time.
        ("?since=2026-01-01T11:59:00Z", vec![3, 2]),
        ("?until=2026-01-01T11:59:00Z", vec![1, 0]),
        (
            "?since=2026-01-01T11:58:00Z&until=2026-01-01T12:00:00Z",
            vec![2, 1],
        ),
        (
            "?reason=rejected&until=2026-01-01T12:00:00%2B00:00",
            vec![0],
        ),
    ] {
        let expected: Vec<&String> = expected.into_iter().map(|at: usize| &letters[at]).collect();
        let listed = ids(&app.get(&format!("{LIST}{query}")).await);
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    for query in ["?reason=old", "?since=yesterday", "?order=asc", "?limit=0"] {
        let answer = app.get(&format!("{LIST}{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_by_cursor_and_by_link() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut expected = bury(&app, "work", &["rejected"; 7]).await;
    // Some died at the same moment.
    let together = "UPDATE postrider.dead_letters SET dead_at = '2026-01-01T11:57:00Z'
        WHERE dead_at BETWEEN '2026-01-01T11:56:30Z' AND '2026-01-01T11:59:30Z'";
    execute(&app.database, together).await;
    expected.reverse();

    let mut path = format!("{LIST}?reason=rejected&limit=2");
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = app.get(&path).await;
        seen.extend(ids(&page));
        pages += 1;
        let cursor = page.json()["next_cursor"].clone();
        let Some(link) = page.headers.get("link") else {
            assert_eq!(cursor, Value::Null);
            break;
        };
        let link = link.to_str().unwrap();
        let (target, rel) = link.split_once(';').unwrap();
        assert_eq!(rel.trim(), "rel=\"next\"");
        target.trim_matches(['<', '>']).clone_into(&mut path);
        assert!(path.contains(cursor.as_str().unwrap()), "{link}");
        assert!(path.contains("reason=rejected"), "{link}");
    }
    assert_eq!(seen, expected);
    assert_eq!(pages, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_list_is_refused() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    for body in 0..2 {
        app.publish("work", json!({"body": body})).await;
    }
    let page = app.get("/v1/queues/work/messages?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    for cursor in [cursor, "x", "dA"] {
        app.get(&format!("{LIST}?cursor={cursor}"))
            .await
            .expect_problem(400, "invalid-cursor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_be_removed_and_then_it_is_gone() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.queue("others", json!({})).await;
    let letters = bury(&app, "work", &["rejected", "rejected"]).await;
    let path = format!("{LIST}/{}", letters[0]);
    app.get(&format!("/v1/queues/others/dead-letters/{}", letters[0]))
        .await
        .expect_problem(404, "dead-letter-not-found");
    app.delete(&path).await.expect(StatusCode::NO_CONTENT);
    app.delete(&path)
        .await
        .expect_problem(404, "dead-letter-not-found");
    app.get(&path)
        .await
        .expect_problem(404, "dead-letter-not-found");
    assert_eq!(ids(&app.get(LIST).await), [letters[1].clone()]);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_what_the_filter_says() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let purge = async |request: Value| {
        app.post(&format!("{LIST}/purge"), request)
            .await
            .expect(StatusCode::OK)["dead_letters"]
            .clone()
    };
    for (filter, left) in [
        (json!({"reason": "overflow"}), vec![0, 1, 3]),
        (json!({"since": "2026-01-01T11:59:00Z"}), vec![0, 1]),
        // Before that time, as in the list.
        (json!({"until": "2026-01-01T11:59:00Z"}), vec![2, 3]),
        (
            json!({"reason": "rejected", "since": "2026-01-01T11:58:00Z"}),
            vec![0, 1, 2],
        ),
        (json!({"reason": "expired"}), vec![0, 1, 2, 3]),
    ] {
        let letters = bury(
            &app,
            "work",
            &["rejected", "max-attempts", "overflow", "rejected"],
        )
        .await;
        let removed = purge(json!({"filter": filter})).await;
        assert_eq!(removed, 4 - left.len(), "{filter}");
        let mut listed = ids(&app.get(LIST).await);
        listed.reverse();
        let expected: Vec<String> = left.iter().map(|at: &usize| letters[*at].clone()).collect();
        assert_eq!(listed, expected, "{filter}");
        assert_eq!(purge(json!({})).await, left.len());
    }
    assert_eq!(purge(json!({"filter": {}})).await, 0);
    app.assert_conserved(&app.database, "work").await;
}
