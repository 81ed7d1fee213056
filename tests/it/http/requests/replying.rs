//! Who answers, and how often.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{pending, read, reply, with_work};
use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_reply_twice_is_fine_twice_and_the_first_stays() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    for body in ["first", "second", "third"] {
        let replied = reply(&app, &receipt, json!(body)).await;
        assert_eq!(replied.expect(StatusCode::OK)["correlation_id"], *id);
    }
    let got = read(&app, &id).await.expect(StatusCode::OK);
    assert_eq!(got["body"], "first");
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replies_at_once_are_one() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    let replies = (0..20).map(|n| reply(&app, &receipt, json!(n)));
    for replied in futures_util::future::join_all(replies).await {
        replied.expect(StatusCode::OK);
    }
    let first = read(&app, &id).await.expect(StatusCode::OK);
    assert_eq!(read(&app, &id).await.expect(StatusCode::OK), first);
    app.assert_conserved(&app.database, "work").await;
}

/// Nothing came of it.
async fn assert_pending(app: &crate::support::App, id: &str) {
    read(app, id).await.expect(StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_receipt_is_lost_and_stores_no_reply() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let old = app.receive_one("work").await["receipt"].clone();
    app.settle("nack", "work", &[&old], json!({"delay_seconds": 0}))
        .await
        .expect(StatusCode::OK);
    // Given back, and received by another.
    reply(&app, &old, json!("old"))
        .await
        .expect_problem(409, "lease-lost");
    let new = app.receive_one("work").await["receipt"].clone();
    reply(&app, &old, json!("old"))
        .await
        .expect_problem(409, "lease-lost");
    assert_pending(&app, &id).await;
    reply(&app, &new, json!("new")).await.expect(StatusCode::OK);
    // Nor is it fine because another has answered.
    reply(&app, &old, json!("old"))
        .await
        .expect_problem(409, "lease-lost");
    let got = read(&app, &id).await.expect(StatusCode::OK);
    assert_eq!(got["body"], "new");
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_acked_has_no_reply() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    app.settle("ack", "work", &[&receipt], json!({}))
        .await
        .expect(StatusCode::OK);
    reply(&app, &receipt, json!(1))
        .await
        .expect_problem(409, "lease-lost");
    assert_pending(&app, &id).await;
    // The other way round: answered is acked.
    let id = pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    reply(&app, &receipt, json!(1)).await.expect(StatusCode::OK);
    app.settle("ack", "work", &[&receipt], json!({}))
        .await
        .expect(StatusCode::OK);
    read(&app, &id).await.expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_stored_and_its_lease_ends_or_neither() {
    let app = with_work().await;
    app.database
        .execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$",
        )
        .await;
    // What stores the reply fails, then what ends the lease.
    for (table, event) in [("replies", "INSERT"), ("parked", "DELETE")] {
        let id = pending(&app, json!({"body": table})).await;
        let receipt = app.receive_one("work").await["receipt"].clone();
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE {event} ON postrider.{table}
             FOR EACH ROW EXECUTE FUNCTION public.refuse()"
        );
        app.database.execute(&trigger).await;
        let refused = reply(&app, &receipt, json!("lost")).await;
        assert!(refused.status.is_server_error(), "{table}: {refused:?}");
        assert!(!refused.text.contains("not today"), "{}", refused.text);
        assert_pending(&app, &id).await;
        assert_eq!(app.counts("work").await["leased"], 1, "{table}");
        let drop = format!("DROP TRIGGER refuse ON postrider.{table}");
        app.database.execute(&drop).await;
        // Still held, so the consumer can answer again.
        app.settle("extend", "work", &[&receipt], json!({"lease_seconds": 60}))
            .await
            .expect(StatusCode::OK);
        reply(&app, &receipt, json!("kept"))
            .await
            .expect(StatusCode::OK);
        let got = read(&app, &id).await.expect(StatusCode::OK);
        assert_eq!(got["body"], "kept", "{table}");
        app.assert_conserved(&app.database, "work").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_asks_for_no_reply_gets_none_and_stays_leased() {
    let app = with_work().await;
    app.queue("other", json!({})).await;
    for message in [
        json!({"body": 1}),
        json!({"body": 1, "correlation_id": "mine", "reply_to": "other"}),
        json!({"body": 1, "correlation_id": "req_AAAA"}),
    ] {
        app.publish("work", message).await;
        let receipt = app.receive_one("work").await["receipt"].clone();
        reply(&app, &receipt, json!(1))
            .await
            .expect_problem(422, "reply-not-asked");
        app.settle("extend", "work", &[&receipt], json!({"lease_seconds": 60}))
            .await
            .expect(StatusCode::OK);
    }
    let got = app.receive("other", json!({})).await;
    assert_eq!(got, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_a_message_that_was_published_with_a_stolen_id_changes_nothing() {
    let app = with_work().await;
    let id = pending(&app, json!({"body": 1})).await;
    let message = app.receive_one("work").await;
    reply(&app, &message["receipt"], json!("true"))
        .await
        .expect(StatusCode::OK);
    app.publish("work", json!({"body": 1, "correlation_id": id}))
        .await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    reply(&app, &receipt, json!("forged"))
        .await
        .expect(StatusCode::OK);
    let got = read(&app, &id).await.expect(StatusCode::OK);
    assert_eq!(got["body"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_as_large_as_a_message_may_be() {
    let app = with_work().await;
    let path = "/v1/queues/work";
    app.patch(path, json!({"max_message_bytes": 100}))
        .await
        .expect(StatusCode::OK);
    pending(&app, json!({"body": 1})).await;
    let receipt = app.receive_one("work").await["receipt"].clone();
    let problem = reply(&app, &receipt, json!("x".repeat(99)))
        .await
        .expect_problem(413, "message-too-large");
    assert_eq!(problem["errors"][0]["pointer"], "/body");
    reply(&app, &receipt, json!("x".repeat(98)))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_makes_room_under_max_in_flight() {
    let app = crate::support::App::start().await;
    app.queue("work", json!({"max_in_flight": 1})).await;
    pending(&app, json!({"body": 1})).await;
    pending(&app, json!({"body": 2})).await;
    let first = app.receive_one("work").await;
    let next = app.receive_one("work");
    let replied = reply(&app, &first["receipt"], json!(1));
    let (next, replied) = tokio::join!(next, replied);
    replied.expect(StatusCode::OK);
    assert_eq!(next["body"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_ordered_queue_what_was_leased_in_front_is_answered_first() {
    let app = App::start().await;
    app.queue("work", json!({"ordered": true})).await;
    for body in 1..=3 {
        pending(&app, json!({"body": body, "key": "a"})).await;
    }
    let messages = app.receive("work", json!({"max_messages": 2})).await;
    let bodies: Vec<&Value> = messages.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!(1), &json!(2)]);
    reply(&app, &messages[1]["receipt"], json!("too early"))
        .await
        .expect_problem(409, "out-of-order");
    for message in &messages {
        reply(&app, &message["receipt"], json!("done"))
            .await
            .expect(StatusCode::OK);
    }
    // The turn is passed on before the answer.
    let next = app.receive("work", json!({})).await;
    assert_eq!(next[0]["body"], 3);
}
