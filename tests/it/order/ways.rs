//! Every other way that a message goes: each leaves the turn to the next.

use std::time::Duration;

use postrider::store::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ack, ack_next, bodies, nack, ordered, publish_all, receive_now};
use crate::store::{A_MINUTE_LATER, execute, message_id, number, queue_id};
use crate::support::{App, Database, Receiver, Reply, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn purge_takes_all_that_waits_and_the_key_goes_on() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    publish_all(&app, "q", "b", &[11, 12]).await;
    app.receive_one("q").await;
    let purged = app.post("/v1/queues/q/purge", "{}").await.json();
    assert_eq!(purged["messages"], 5);
    app.assert_conserved(&app.database, "q").await;
    publish_all(&app, "q", "a", &[4, 5]).await;
    ack_next(&app, "q", 4).await;
    ack_next(&app, "q", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_taken_out_leaves_its_turn_to_the_next() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1]).await;
    let waiting = app.publish("q", json!({"body": 2, "key": "a"})).await;
    publish_all(&app, "q", "a", &[3]).await;
    let leased = app.receive_one("q").await;
    for id in [leased["id"].as_str().unwrap(), &waiting] {
        app.delete(&format!("/v1/queues/q/messages/{id}"))
            .await
            .expect(StatusCode::NO_CONTENT);
        app.delete(&format!("/v1/queues/q/messages/{id}"))
            .await
            .expect_problem(404, "message-not-found");
    }
    ack_next(&app, "q", 3).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_time_is_passed_over() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["dead_letter"] = json!({"keep_expired": true});
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1]).await;
    for body in [2, 3] {
        let message = json!({"body": body, "key": "a", "ttl_seconds": 0.1});
        app.publish("q", message).await;
    }
    publish_all(&app, "q", "a", &[4]).await;
    let first = app.receive_one("q").await;
    eventually("those in line have expired", async || {
        app.counts("q").await["dead"] == 2
    })
    .await;
    ack(&app, "q", &first).await;
    ack_next(&app, "q", 4).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_outlives_its_time_leaves_its_turn_to_the_next() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    app.publish("q", json!({"body": 1, "key": "a", "ttl_seconds": 0.1}))
        .await;
    publish_all(&app, "q", "a", &[2]).await;
    eventually("the head has expired", async || {
        app.counts("q").await["ready"] == 1
    })
    .await;
    ack_next(&app, "q", 2).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_drops_from_lines_too() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["max_ready"] = json!(2);
    settings["overflow"] = json!("drop_oldest");
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1]).await;
    let first = app.receive_one("q").await;
    publish_all(&app, "q", "a", &[2, 3, 4, 5]).await;
    assert_eq!(app.counts("q").await["ready"], 2);
    ack(&app, "q", &first).await;
    ack_next(&app, "q", 4).await;
    ack_next(&app, "q", 5).await;
    let letters = app.get("/v1/queues/q/dead-letters?reason=overflow").await;
    assert_eq!(letters.json()["dead_letters"].as_array().unwrap().len(), 2);
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_head_leaves_its_turn_to_the_next() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["max_ready"] = json!(2);
    settings["overflow"] = json!("drop_oldest");
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    ack_next(&app, "q", 2).await;
    ack_next(&app, "q", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_line_fills_the_queue() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["max_ready"] = json!(3);
    app.queue("q", settings).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    app.post("/v1/queues/q/messages", json!({"body": 4, "key": "a"}))
        .await
        .expect_problem(429, "queue-full");
}

#[tokio::test(flavor = "multi_thread")]
async fn redriven_dead_letters_come_back_in_publish_order() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    // They die in their order, and at other times than they were published.
    for body in [1, 2, 3] {
        let message = app.receive_one("q").await;
        assert_eq!(message["body"], body);
        nack(&app, "q", &message, json!({"dead_letter": true})).await;
    }
    execute(
        &app.database,
        "UPDATE postrider.dead_letters SET dead_at = dead_at - message_id * interval '1 s'",
    )
    .await;
    app.post("/v1/queues/q/dead-letters/redrive", json!({"filter": {}}))
        .await
        .expect(StatusCode::OK);
    publish_all(&app, "q", "a", &[4]).await;
    for body in [1, 2, 3, 4] {
        ack_next(&app, "q", body).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_to_an_ordered_queue_lines_up_there() {
    let app = App::start().await;
    app.queue("plain", json!({})).await;
    app.queue("q", ordered()).await;
    publish_all(&app, "plain", "a", &[1, 2]).await;
    for message in receive_now(&app, "plain").await {
        nack(&app, "plain", &message, json!({"dead_letter": true})).await;
    }
    let redrive = json!({"filter": {}, "to_queue": "q"});
    app.post("/v1/queues/plain/dead-letters/redrive", redrive)
        .await
        .expect(StatusCode::OK);
    let first = receive_now(&app, "q").await;
    assert_eq!(bodies(&first), [1]);
    ack(&app, "q", &first[0]).await;
    ack_next(&app, "q", 2).await;
    app.assert_conserved(&app.database, "q").await;
    app.assert_conserved(&app.database, "plain").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_feeds_ordered_and_plain_queues_alike() {
    let app = App::start().await;
    app.topic("t", json!({})).await;
    app.queue("q", ordered()).await;
    app.queue("plain", json!({})).await;
    for (name, queue) in [("one", "q"), ("two", "plain")] {
        app.subscription("t", name, json!({"queue": queue})).await;
    }
    for body in [1, 2, 3] {
        let answer = app
            .publish_topic("t", json!({"body": body, "key": "a"}))
            .await;
        assert_eq!(answer["subscriptions"], 2);
    }
    assert_eq!(bodies(&receive_now(&app, "plain").await), [1, 2, 3]);
    let first = receive_now(&app, "q").await;
    assert_eq!(bodies(&first), [1]);
    ack(&app, "q", &first[0]).await;
    ack_next(&app, "q", 2).await;
    ack_next(&app, "q", 3).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_do_not_know_yet_keep_the_order() {
    let app = App::start().await;
    let other = app.another().await;
    app.topic("t", json!({})).await;
    app.queue("q", json!({"backoff": {"initial_seconds": 0}}))
        .await;
    app.subscription("t", "one", json!({"queue": "q"})).await;
    // Both have it in their caches.
    for (body, gateway) in [(0, &*app), (0, &other)] {
        gateway
            .publish("q", json!({"body": body, "key": "a"}))
            .await;
        gateway
            .publish_topic("t", json!({"body": body, "key": "a"}))
            .await;
    }
    app.post("/v1/queues/q/purge", "{}").await;
    app.patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect(StatusCode::OK);
    other.publish("q", json!({"body": 1, "key": "a"})).await;
    let answer = other
        .publish_topic("t", json!({"body": 2, "key": "a"}))
        .await;
    assert_eq!(answer["subscriptions"], 1);
    assert_eq!(bodies(&receive_now(&app, "q").await), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_one_message_of_a_key_at_a_time_in_order() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let mut settings = ordered();
    settings["max_attempts"] = json!(100);
    app.queue("q", settings).await;
    // Every third push fails; each takes so long that another would be beside it.
    let slowly = |status| Reply::status(status).after(Duration::from_millis(20));
    for n in 0..30 {
        receiver.next(slowly(if n % 3 == 0 { 500 } else { 200 }));
    }
    receiver.usually(slowly(200));
    let messages: Vec<Value> = (0..30)
        .map(|n| json!({"body": n, "key": format!("k{}", n % 3)}))
        .collect();
    app.post("/v1/queues/q/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let hook = json!({
        "url": receiver.url("/hook"), "max_in_flight": 10,
        "circuit_breaker": {"min_calls": 1000, "window": 1000},
    });
    app.put("/v1/queues/q/webhook", hook)
        .await
        .expect(StatusCode::CREATED);
    eventually("all are pushed", async || {
        let counts = app.counts("q").await;
        counts["ready"] == 0 && counts["leased"] == 0 && counts["delayed"] == 0
    })
    .await;
    let most = receiver.most_at_once();
    assert!(most <= 3, "{most} at once, of three keys");
    for key in 0..3 {
        let mut done: Vec<i64> = Vec::new();
        for push in receiver.requests() {
            let body: i64 = serde_json::from_slice(&push.body).unwrap();
            if body % 3 != key || done.last() == Some(&body) {
                continue;
            }
            assert!(
                done.last().is_none_or(|last| *last < body),
                "{done:?} {body}"
            );
            done.push(body);
        }
        assert_eq!(done.len(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_line_outlives_its_partition() {
    let database = Database::empty().await;
    let store: Store = database.store(1000);
    store.migrate().await.unwrap();
    let app = App::start_on(database).await;
    app.queue("q", ordered()).await;
    app.queue("other", json!({})).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive_one("q").await;
    let messages: Vec<Value> = (0..1000).map(|n| json!({"body": n})).collect();
    for _ in 0..2 {
        app.post("/v1/queues/other/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
    app.post("/v1/queues/other/purge", "{}").await;
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    eventually("the first partition is dropped", async || {
        let _ = store.drop_partitions().await;
        let lo = "SELECT min(lo) FROM postrider.message_partitions";
        number(&app.database, lo).await > 0
    })
    .await;
    execute(&app.database, A_MINUTE_LATER).await;
    store.prune().await.unwrap();
    ack(&app, "q", &first).await;
    ack_next(&app, "q", 2).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_leaves_no_lines() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    let id = queue_id(&app.database, "q").await;
    app.delete("/v1/queues/q")
        .await
        .expect(StatusCode::NO_CONTENT);
    while app.app.store().prune().await.unwrap() {}
    for table in ["lined_up", "turns"] {
        let rows = format!("SELECT count(*) FROM postrider.{table} WHERE queue_id = {id}");
        assert_eq!(number(&app.database, rows).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resent_message_goes_to_the_end_of_its_line() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.queue("q", ordered()).await;
    app.put(
        "/v1/queues/q/webhook",
        json!({"url": receiver.url("/hook")}),
    )
    .await
    .expect(StatusCode::CREATED);
    let id = app.publish("q", json!({"body": 1, "key": "a"})).await;
    eventually("it is pushed", async || {
        let path = format!("/v1/queues/q/webhook/attempts?message_id={id}");
        let attempts = app.get(&path).await.json();
        attempts["attempts"].as_array().unwrap().len() == 1
    })
    .await;
    // Nobody pushes any more who did not hear of the pause in time.
    app.until_waiting(1).await;
    app.post("/v1/queues/q/webhook/pause", "").await;
    app.until_waiting(0).await;
    publish_all(&app, "q", "a", &[2]).await;
    let answer = app
        .post("/v1/queues/q/webhook/resend", json!({"message_ids": [id]}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(answer["results"][0]["ok"], true, "{answer}");
    ack_next(&app, "q", 2).await;
    let again = app.receive_one("q").await;
    assert_eq!(message_id(again["id"].as_str().unwrap()), message_id(&id));
    ack(&app, "q", &again).await;
}
