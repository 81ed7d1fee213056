//! `POST /v1/queues/{queue}/messages`: delays, time to live, deduplication,
//! bounds.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::counts::expect_counts;
use crate::support::{Answer, App, Gateway, eventually};

const MESSAGES: &str = "/v1/queues/orders/messages";

/// Publishes one message under a dedup id: its id, and whether it is a duplicate.
async fn publish_dedup(gateway: &Gateway, dedup_id: &str) -> (String, bool) {
    let message = json!({"body": 1, "dedup_id": dedup_id});
    let answer = gateway.post(MESSAGES, message).await;
    let message = answer.expect(StatusCode::CREATED)["messages"][0].clone();
    (
        message["id"].as_str().unwrap().to_owned(),
        message["duplicate"].as_bool().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_waits_and_a_time_that_has_passed_is_now() {
    let app = App::start().await;
    app.queue("orders", json!({"delay_seconds": 600})).await;
    app.publish("orders", json!({"body": "the queue's"})).await;
    app.publish("orders", json!({"body": "own", "delay_seconds": 500}))
        .await;
    for now in [
        json!({"body": 1, "delay_seconds": 0}),
        json!({"body": 1, "deliver_at": "2001-01-01T00:00:00.123456789+05:45"}),
        json!({"body": 1, "deliver_at": "1969-12-31T23:59:59Z"}),
        json!({"body": 1, "deliver_at": "0001-01-01T00:00:00+14:00"}),
        json!({"body": 1, "deliver_at": "-9999-01-01T00:00:00Z"}),
    ] {
        let id = app.publish("orders", now.clone()).await;
        assert_eq!(
            app.receive("orders", json!({})).await[0]["id"],
            id.as_str(),
            "{now}"
        );
    }
    assert!(app.receive("orders", json!({})).await.is_empty());
    expect_counts(&app, "orders", &json!({"delayed": 2, "ready": 0})).await;
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_is_delivered_at_its_time_and_not_before() {
    let app = App::start().await;
    app.queue("orders", json!({"lease_seconds": 60})).await;
    let time = |value: &Value| -> chrono::DateTime<chrono::Utc> {
        value.as_str().unwrap().parse().unwrap()
    };
    let lease = chrono::TimeDelta::seconds(60);
    app.publish("orders", json!({"body": 1, "delay_seconds": 0.4}))
        .await;
    let message = app.receive_one("orders").await;
    let delivered = time(&message["lease_expires_at"]) - lease;
    let waited = (delivered - time(&message["enqueued_at"])).num_milliseconds();
    assert!((400..10_000).contains(&waited), "{waited}");

    let deliver_at = delivered + chrono::TimeDelta::milliseconds(700);
    app.publish(
        "orders",
        json!({"body": 2, "deliver_at": deliver_at.to_rfc3339()}),
    )
    .await;
    let message = app.receive_one("orders").await;
    assert!(time(&message["lease_expires_at"]) - lease >= deliver_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_time_to_live_is_over_is_never_delivered() {
    let app = App::start().await;
    app.queue("orders", json!({"message_ttl_seconds": 0.001}))
        .await;
    // Longer than the queue's, and the queue's.
    let kept = app
        .publish("orders", json!({"body": "own", "ttl_seconds": 600}))
        .await;
    app.publish("orders", json!({"body": "queue's"})).await;
    app.queue("kept", json!({"dead_letter": {"keep_expired": true}}))
        .await;
    app.publish("kept", json!({"body": "own", "ttl_seconds": 0.001}))
        .await;
    let message = app.receive("orders", json!({"max_messages": 10})).await;
    let ids: Vec<&Value> = message.iter().map(|message| &message["id"]).collect();
    assert_eq!(ids, [&json!(kept)]);

    let gone = json!({"ready": 0, "delayed": 0, "leased": 1, "dead": 0});
    expect_counts(&app, "orders", &gone).await;
    // Nobody receives here: the worker finds it.
    let dead = json!({"ready": 0, "delayed": 0, "leased": 0, "dead": 1});
    expect_counts(&app, "kept", &dead).await;
    let letters = app.get("/v1/queues/kept/dead-letters").await;
    let letters = letters.expect(StatusCode::OK);
    assert_eq!(letters["dead_letters"][0]["reason"], "expired");
    app.assert_conserved(&app.database, "orders").await;
    app.assert_conserved(&app.database, "kept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_live_begins_when_a_delay_ends() {
    let app = App::start().await;
    app.queue("orders", json!({"message_ttl_seconds": 7})).await;
    for (ttl, message) in [
        (7, json!({"body": 1, "delay_seconds": 600})),
        (
            3,
            json!({"body": 1, "delay_seconds": 600, "ttl_seconds": 3}),
        ),
    ] {
        let id = app.publish("orders", message).await;
        let message = app
            .get(&format!("{MESSAGES}/{id}"))
            .await
            .expect(StatusCode::OK);
        let time = |field: &str| -> chrono::DateTime<chrono::Utc> {
            message[field].as_str().unwrap().parse().unwrap()
        };
        assert_eq!(
            (time("expires_at") - time("ready_at")).num_milliseconds(),
            ttl * 1000
        );
        assert_eq!((time("ready_at") - time("enqueued_at")).num_seconds(), 600);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publish_under_a_dedup_id_stores_nothing() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    app.queue("invoices", json!({})).await;
    let (first, duplicate) = publish_dedup(&app, "d-1").await;
    assert!(!duplicate);
    for gateway in [&app.gateway, &other] {
        assert_eq!(publish_dedup(gateway, "d-1").await, (first.clone(), true));
    }
    // Also when the message is gone.
    let message = app.receive_one("orders").await;
    app.settle("ack", "orders", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(publish_dedup(&other, "d-1").await, (first.clone(), true));
    assert!(app.receive("orders", json!({})).await.is_empty());

    // Ids are told apart byte by byte, and by queue.
    assert!(!publish_dedup(&app, "D-1").await.1);
    assert!(!publish_dedup(&app, "d-1 ").await.1);
    let elsewhere = json!({"body": 1, "dedup_id": "d-1"});
    let elsewhere = app.publish("invoices", elsewhere).await;
    assert_ne!(elsewhere, first);
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_id_holds_within_one_batch() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let (earlier, _) = publish_dedup(&app, "earlier").await;
    let batch = json!({"messages": [
        {"body": 0, "dedup_id": "a"}, {"body": 1, "dedup_id": "b"}, {"body": 2},
        {"body": 3, "dedup_id": "a"}, {"body": 4, "dedup_id": "earlier"},
        {"body": 5, "dedup_id": "a"},
    ]});
    let answer = app.post(MESSAGES, batch).await.expect(StatusCode::CREATED);
    let result = |at: usize| {
        let message = &answer["messages"][at];
        (
            message["id"].as_str().unwrap(),
            message["duplicate"].as_bool().unwrap(),
        )
    };
    let (a, b, plain) = (result(0), result(1), result(2));
    assert!(
        a.0 < b.0 && b.0 < plain.0 && !a.1 && !b.1 && !plain.1,
        "{answer}"
    );
    assert_eq!((result(3), result(5)), ((a.0, true), (a.0, true)));
    assert_eq!(result(4), (earlier.as_str(), true));
    let received = app.receive("orders", json!({"max_messages": 10})).await;
    let bodies: Vec<&Value> = received.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!(1), &json!(0), &json!(1), &json!(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_publishes_at_once_under_one_dedup_id_exactly_one_is_stored() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    for round in 0..10 {
        let mut publishes = JoinSet::new();
        for n in 0..32 {
            let gateway = if n % 2 == 0 { &app.gateway } else { &other };
            let message = json!({"body": n, "dedup_id": format!("d-{round}")});
            publishes.spawn(Answer::of(
                gateway
                    .request(Method::POST, MESSAGES)
                    .header("content-type", "application/json")
                    .body(message.to_string()),
            ));
        }
        let mut ids = Vec::new();
        let mut originals = 0;
        for answer in publishes.join_all().await {
            let message = answer.expect(StatusCode::CREATED)["messages"][0].clone();
            originals += u32::from(message["duplicate"] == false);
            ids.push(message["id"].clone());
        }
        ids.dedup();
        assert_eq!((originals, ids.len()), (1, 1), "{ids:?}");
        let stored = app.receive("orders", json!({"max_messages": 100})).await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0]["id"], ids[0]);
    }
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_window_a_dedup_id_is_new_again() {
    let app = App::start().await;
    app.queue("orders", json!({"dedup_window_seconds": 0.3}))
        .await;
    let (first, _) = publish_dedup(&app, "d-1").await;
    let mut second = None;
    eventually("the window is over", async || {
        let (id, duplicate) = publish_dedup(&app, "d-1").await;
        assert_eq!(duplicate, id == first);
        second = (!duplicate).then_some(id);
        !duplicate
    })
    .await;
    assert!(second.unwrap() > first);
    expect_counts(&app, "orders", &json!({"ready": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_id_of_yesterday_holds_until_its_window_ends() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let (id, _) = publish_dedup(&app, "from yesterday").await;
    let (old, _) = publish_dedup(&app, "over").await;
    let mut database = app.database.connect().await;
    sqlx::query("UPDATE postrider.dedup SET day = day - 1")
        .execute(&mut database)
        .await
        .unwrap();
    sqlx::query("UPDATE postrider.dedup SET expires_at = now() WHERE dedup_id = 'over'")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(publish_dedup(&app, "from yesterday").await, (id, true));
    let (new, duplicate) = publish_dedup(&app, "over").await;
    assert!(!duplicate && new > old);
    assert_eq!(publish_dedup(&app, "over").await, (new, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_as_long_as_the_queue_says_and_no_byte_longer() {
    let app = App::start().await;
    app.queue("orders", json!({"max_message_bytes": 10})).await;
    let string = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for (length, fits) in [(10, true), (11, false)] {
        let json = format!(r#"{{"body": {}}}"#, string(length));
        // "MTIz" is three bytes.
        let base64 = if fits {
            r#"{"body_base64": "MTIzMTIzMTIzMQ=="}"#
        } else {
            r#"{"body_base64": "MTIzMTIzMTIzMTE="}"#
        };
        let raw = app
            .request(Method::POST, MESSAGES)
            .header("content-type", "text/plain")
            .body("x".repeat(length));
        for answer in [
            app.post(MESSAGES, json).await,
            app.post(MESSAGES, base64).await,
            Answer::of(raw).await,
        ] {
            if fits {
                answer.expect(StatusCode::CREATED);
            } else {
                let problem = answer.expect_problem(413, "message-too-large");
                let detail = problem["detail"].as_str().unwrap();
                assert!(detail.contains("11 bytes"), "{detail}");
            }
        }
    }
    expect_counts(&app, "orders", &json!({"ready": 3})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_body_that_a_queue_can_allow_goes_through() {
    let app = App::start().await;
    app.queue("orders", json!({"max_message_bytes": 8_388_608}))
        .await;
    let body = format!("\"{}\"", "y".repeat(8_388_606));
    let answer = app.post(MESSAGES, format!(r#"{{"body":{body}}}"#)).await;
    answer.expect(StatusCode::CREATED);
    let received = app.post("/v1/queues/orders/receive", "{}").await;
    assert!(received.text.contains(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_that_rejects_answers_429_until_there_is_room() {
    let app = App::start().await;
    app.queue("orders", json!({"max_ready": 3})).await;
    app.publish("orders", json!({"body": 0})).await;
    let three = json!({"messages": [{"body": 1}, {"body": 2}, {"body": 3}]});
    let batch = app.post(MESSAGES, &three).await;
    batch.expect_problem(429, "queue-full");
    for n in 1..=2 {
        app.publish("orders", json!({"body": n})).await;
    }
    for _ in 0..2 {
        let answer = app.post(MESSAGES, json!({"body": 3})).await;
        let problem = answer.expect_problem(429, "queue-full");
        assert!(problem["detail"].as_str().unwrap().contains("max_ready"));
    }
    // What is leased is not ready.
    app.receive_one("orders").await;
    eventually("there is room", || async {
        let answer = app.post(MESSAGES, json!({"body": 3})).await;
        answer.status == StatusCode::CREATED
    })
    .await;
    app.post(MESSAGES, json!({"body": 4}))
        .await
        .expect_problem(429, "queue-full");
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_that_drops_gives_up_its_oldest_of_the_lowest_priority() {
    let app = App::start().await;
    let settings = json!({"max_ready": 3, "overflow": "drop_oldest"});
    app.queue("orders", settings.clone()).await;
    app.publish("orders", json!({"body": "important", "priority": 9}))
        .await;
    for n in 0..5 {
        app.publish(
            "orders",
            json!({"body": n, "headers": {"n": n.to_string()}}),
        )
        .await;
    }
    expect_counts(&app, "orders", &json!({"ready": 3, "dead": 3})).await;
    let received = app.receive("orders", json!({"max_messages": 10})).await;
    let bodies: Vec<&Value> = received.iter().map(|message| &message["body"]).collect();
    assert_eq!(bodies, [&json!("important"), &json!(3), &json!(4)]);
    let letters = app
        .get("/v1/queues/orders/dead-letters?reason=overflow")
        .await;
    let letters = letters.expect(StatusCode::OK)["dead_letters"].clone();
    let bodies: Vec<&Value> = letters
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["body"])
        .collect();
    assert_eq!(bodies, [&json!(2), &json!(1), &json!(0)], "newest first");
    assert_eq!(letters[0]["headers"], json!({"n": "2"}));
    assert_eq!(letters[0]["attempts"], 0);
    app.assert_conserved(&app.database, "orders").await;

    let mut without = settings;
    without["dead_letter"] = json!({"enabled": false});
    app.queue("lossy", without).await;
    for n in 0..5 {
        app.publish("lossy", json!({"body": n})).await;
    }
    expect_counts(&app, "lossy", &json!({"ready": 3, "dead": 0})).await;
    app.assert_conserved(&app.database, "lossy").await;
}
