//! Pushing again.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook, record};
use crate::store::{A_MINUTE_LATER, execute, message_id, number, queue_id};
use crate::support::App;

async fn resend(app: &App, ids: &[&str]) -> Vec<Value> {
    app.post(&format!("{HOOK}/resend"), json!({"message_ids": ids}))
        .await
        .expect(StatusCode::OK)["results"]
        .as_array()
        .unwrap()
        .clone()
}

/// Publishes, receives and acks a message, as its push would have.
async fn delivered(app: &App, message: Value) -> String {
    let id = app.publish("orders", message).await;
    let received = app.receive_one("orders").await;
    app.settle("ack", "orders", &[&received["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    pushed(app, &id).await;
    id
}

async fn pushed(app: &App, id: &str) {
    let queue = queue_id(&app.database, "orders").await;
    app.app
        .store()
        .record_pushes(&[record(queue, message_id(id), 1, Some(200))])
        .await
        .unwrap();
}

fn refused(code: &str) -> Value {
    json!({"ok": false, "code": code})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_is_sent_again_with_its_id_and_all_of_its_parts() {
    let (app, _) = app_with_webhook(json!({})).await;
    let message = json!({
        "body": {"n": 1.10}, "headers": {"shop": "berlin"}, "key": "k", "correlation_id": "c",
        "priority": 9,
    });
    let id = delivered(&app, message).await;
    assert_eq!(
        resend(&app, &[&id]).await,
        [json!({"ok": true, "was_dead": false})]
    );

    let again = app.receive_one("orders").await;
    assert_eq!(again["id"], id.as_str());
    assert_eq!(again["attempt"], 1);
    assert_eq!(again["body"], json!({"n": 1.10}));
    assert_eq!(again["headers"], json!({"shop": "berlin"}));
    assert_eq!(again["key"], "k");
    assert_eq!(again["correlation_id"], "c");
    app.assert_conserved(&app.database, "orders").await;

    // And again, now that its body is a straggler.
    app.settle("ack", "orders", &[&again["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(resend(&app, &[&id]).await[0]["ok"], true);
    assert_eq!(app.receive_one("orders").await["id"], id.as_str());
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_through_a_topic_keeps_its_topic_and_routing_key() {
    let (app, _) = app_with_webhook(json!({})).await;
    app.put("/v1/topics/shop", json!({}))
        .await
        .expect(StatusCode::CREATED);
    app.put(
        "/v1/topics/shop/subscriptions/all",
        json!({"queue": "orders"}),
    )
    .await
    .expect(StatusCode::CREATED);
    app.post(
        "/v1/topics/shop/messages",
        json!({"body": 1, "routing_key": "order.created"}),
    )
    .await
    .expect(StatusCode::CREATED);
    let first = app.receive_one("orders").await;
    app.settle("ack", "orders", &[&first["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    let id = first["id"].as_str().unwrap();
    pushed(&app, id).await;
    assert_eq!(resend(&app, &[id]).await[0]["ok"], true);
    let again = app.receive_one("orders").await;
    assert_eq!(again["topic"], "shop");
    assert_eq!(again["routing_key"], "order.created");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_queue_is_left_alone() {
    let (app, _) = app_with_webhook(json!({})).await;
    let leased = app.publish("orders", json!({"body": 1})).await;
    app.receive_one("orders").await;
    let ready = app.publish("orders", json!({"body": 2})).await;
    let delayed = json!({"body": 3, "delay_seconds": 60});
    let delayed = app.publish("orders", delayed).await;
    let ids = [leased.as_str(), &ready, &delayed];
    for id in ids {
        pushed(&app, id).await;
    }
    let already = refused("already-queued");
    assert_eq!(resend(&app, &ids).await, vec![already; 3]);
    assert_eq!(
        app.receive("orders", json!({"max_messages": 10}))
            .await
            .len(),
        1
    );
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_comes_back_to_life() {
    let (app, _) = app_with_webhook(json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let received = app.receive_one("orders").await;
    let dead = json!({"dead_letter": true});
    app.settle("nack", "orders", &[&received["receipt"]], dead)
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        resend(&app, &[&id]).await,
        [json!({"ok": true, "was_dead": true})]
    );
    assert_eq!(resend(&app, &[&id]).await, [refused("already-queued")]);
    assert_eq!(app.receive_one("orders").await["id"], id.as_str());
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_was_never_pushed_by_this_webhook_is_not_sent() {
    let (app, _) = app_with_webhook(json!({})).await;
    // Somebody else's message, whose body is there.
    app.queue("other", json!({})).await;
    let others = app.publish("other", json!({"body": "not yours"})).await;
    let received = app.receive_one("other").await;
    app.settle("ack", "other", &[&received["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    // Pushed once, and its body removed since.
    let gone = delivered(&app, json!({"body": 1})).await;
    let delete = format!(
        "DELETE FROM postrider.messages WHERE id = {}",
        message_id(&gone)
    );
    execute(&app.database, delete).await;

    let results = resend(&app, &[&others, &gone, "msg_0000000000000", "nonsense", ""]).await;
    assert_eq!(results, vec![refused("message-gone"); 5]);
    assert!(app.receive("orders", json!({})).await.is_empty());
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_id_has_its_result_in_order_also_when_it_is_named_twice() {
    let (app, _) = app_with_webhook(json!({})).await;
    let first = delivered(&app, json!({"body": 1})).await;
    let second = delivered(&app, json!({"body": 2})).await;
    let results = resend(&app, &[&second, "nonsense", &first, &second]).await;
    let sent = json!({"ok": true, "was_dead": false});
    assert_eq!(
        results,
        json!([sent, refused("message-gone"), sent, sent])
            .as_array()
            .unwrap()
            .as_slice()
    );
    let received = app.receive("orders", json!({"max_messages": 10})).await;
    assert_eq!(received.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_resends_at_once_one_makes_the_message_ready() {
    let (app, _) = app_with_webhook(json!({})).await;
    let other = app.another().await;
    let id = delivered(&app, json!({"body": 1})).await;
    // With the body in messages, then with one that is a straggler already.
    for _ in 0..2 {
        let request = json!({"message_ids": [id]});
        let path = format!("{HOOK}/resend");
        let answers = futures_util::future::join_all(
            (0..12).map(|n| if n % 2 == 0 { &app.gateway } else { &other }.post(&path, &request)),
        )
        .await;
        let sent = answers
            .iter()
            .filter(|answer| answer.expect(StatusCode::OK)["results"][0]["ok"] == true);
        assert_eq!(sent.count(), 1, "{answers:?}");
        let received = app.receive("orders", json!({"max_messages": 10})).await;
        assert_eq!(received.len(), 1);
        app.settle("ack", "orders", &[&received[0]["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_sent_again_is_not_pruned_from_under_the_message() {
    let (app, _) = app_with_webhook(json!({})).await;
    let id = delivered(&app, json!({"body": "still here"})).await;
    resend(&app, &[&id]).await;
    execute(&app.database, A_MINUTE_LATER).await;
    app.app.store().prune().await.unwrap();
    assert_eq!(app.receive_one("orders").await["body"], "still here");
    let left = number(&app.database, "SELECT count(*) FROM postrider.stragglers").await;
    assert_eq!(left, 1);
}
