//! `GET /v1/topics/{topic}/messages`: the retained stream.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, number};
use crate::support::{App, eventually};

/// Waits until all that was published can be read. A transaction of any other test
/// may hold it back for a while: they share the server.
pub(super) async fn until_readable(app: &App) {
    let held_back = "SELECT count(*) FROM postrider.stream
        WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";
    eventually("all can be read", async || {
        number(&app.database, held_back).await == 0
    })
    .await;
}

fn bodies(page: &Value) -> Vec<i64> {
    let messages = page["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|m| m["body"].as_i64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_retains_what_nobody_subscribed_to_and_gives_it_in_order() {
    let app = App::start().await;
    app.topic("shop", json!({"retention_seconds": 3600})).await;
    app.topic("other", json!({"retention_seconds": 3600})).await;
    let page = app
        .get("/v1/topics/shop/messages")
        .await
        .expect(StatusCode::OK);
    assert_eq!(bodies(&page), [0; 0]);
    let start = page["next_cursor"].as_str().unwrap().to_owned();
    app.publish_topic("other", json!({"body": 99})).await;
    let message = json!({"body": 1, "routing_key": "a.b", "headers": {"x": "y"}, "key": "k"});
    let published = app.publish_topic("shop", message.clone()).await;
    let batch = json!({"messages": [{"body": 2}, {"body": 3}, {"body": 4}]});
    app.publish_topic("shop", batch).await;
    until_readable(&app).await;

    let first = app.get("/v1/topics/shop/messages?limit=3").await;
    let page = first.expect(StatusCode::OK);
    assert_eq!(bodies(&page), [1, 2, 3]);
    let one = &page["messages"][0];
    assert_eq!(one["id"], published["id"]);
    for field in ["routing_key", "headers", "key"] {
        assert_eq!(one[field], message[field]);
    }
    let cursor = page["next_cursor"].as_str().unwrap().to_owned();
    assert!(
        first.headers["link"]
            .to_str()
            .unwrap()
            .contains(&format!("after={cursor}"))
    );
    let rest = app
        .get(&format!("/v1/topics/shop/messages?after={cursor}"))
        .await
        .json();
    assert_eq!(bodies(&rest), [4]);
    let end = rest["next_cursor"].as_str().unwrap();
    // An empty page goes on from where it began.
    let none = app
        .get(&format!("/v1/topics/shop/messages?after={end}"))
        .await
        .json();
    assert_eq!((bodies(&none), &none["next_cursor"]), (vec![], &json!(end)));
    app.publish_topic("shop", json!({"body": 5})).await;
    until_readable(&app).await;
    let more = app
        .get(&format!("/v1/topics/shop/messages?after={end}"))
        .await
        .json();
    assert_eq!(bodies(&more), [5]);
    let all = app
        .get(&format!("/v1/topics/shop/messages?after={start}"))
        .await
        .json();
    assert_eq!(bodies(&all), [1, 2, 3, 4, 5]);

    app.get("/v1/topics/none/messages")
        .await
        .expect_problem(404, "topic-not-found");
    for query in ["after=x", "since=x", "limit=0", "cursor=x", "limit=1001"] {
        let answer = app.get(&format!("/v1/topics/shop/messages?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
    let queue_cursor = "cgAAAAAAAAAJAAAAAAAAAAE";
    app.get(&format!("/v1/topics/shop/messages?after={queue_cursor}"))
        .await
        .expect_problem(400, "invalid-cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_counts_from_the_publish_and_a_change_counts_for_what_is_there() {
    let app = App::start().await;
    app.topic("shop", json!({"retention_seconds": 3600})).await;
    for n in 1..=3 {
        app.publish_topic("shop", json!({"body": n})).await;
    }
    until_readable(&app).await;
    execute(
        &app.database,
        "UPDATE postrider.stream SET published_at = now() - interval '30 min'
         WHERE message_id IN (SELECT message_id FROM postrider.stream ORDER BY 1 LIMIT 2)",
    )
    .await;
    let read = async |query: &str| {
        let page = app.get(&format!("/v1/topics/shop/messages{query}")).await;
        bodies(&page.expect(StatusCode::OK))
    };
    assert_eq!(read("").await, [1, 2, 3]);
    let all = app.get("/v1/topics/shop/messages").await.json();
    let since = all["messages"][2]["published_at"].as_str().unwrap();
    assert_eq!(read(&format!("?since={since}")).await, [3]);
    app.patch("/v1/topics/shop", json!({"retention_seconds": 600}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(read("").await, [3]);
    app.patch("/v1/topics/shop", json!({"retention_seconds": 0}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(read("").await, [0; 0]);
    app.patch("/v1/topics/shop", json!({"retention_seconds": 3600}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(read("").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_all_that_many_publishers_commit_at_once() {
    let app = App::start().await;
    let other = app.another().await;
    app.topic("shop", json!({"retention_seconds": 3600})).await;
    let publish = async |gateway: &crate::support::Gateway, from: i64| {
        for n in from..from + 100 {
            gateway.publish_topic("shop", json!({"body": n})).await;
        }
    };
    let read = async {
        let (mut seen, mut path) = (Vec::new(), "/v1/topics/shop/messages?limit=7".to_owned());
        eventually("all are read", async || {
            let page = app.get(&path).await.expect(StatusCode::OK);
            seen.extend(bodies(&page));
            path = format!(
                "/v1/topics/shop/messages?limit=7&after={}",
                page["next_cursor"].as_str().unwrap()
            );
            seen.len() >= 400
        })
        .await;
        seen
    };
    let (mut seen, ..) = tokio::join!(
        read,
        publish(&app, 0),
        publish(&other, 100),
        publish(&app, 200),
        publish(&other, 300)
    );
    seen.sort_unstable();
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
}
