//! Receivers that wait.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, App, Gateway, eventually};

/// A receive call that borrows nothing.
fn receiving(gateway: &Gateway, request: &Value) -> impl Future<Output = Answer> + use<> {
    Answer::of(
        gateway
            .request(Method::POST, "/v1/queues/work/receive")
            .header("content-type", "application/json")
            .body(request.to_string()),
    )
}

/// How long after a publish a receiver that waits has its message: the best of
/// several times, since other tests run too.
async fn wake_up_time(from: &Gateway, to: &Gateway) -> Duration {
    let mut best = Duration::MAX;
    for body in 0..8 {
        let receive = async {
            let message = to.receive_one("work").await;
            assert_eq!(message["body"], body);
            (Instant::now(), message)
        };
        let publish = async {
            to.until_waiting(1).await;
            let sent = Instant::now();
            from.publish("work", json!({"body": body})).await;
            sent
        };
        let ((arrived, message), sent) = tokio::join!(receive, publish);
        best = best.min(arrived - sent);
        to.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    best
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_wakes_a_waiting_receiver_at_once() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let time = wake_up_time(&app, &app).await;
    assert!(time < Duration::from_millis(200), "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_at_another_gateway_wakes_a_waiting_receiver() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    for gateway in [&app.gateway, &other] {
        eventually("they know of each other", async || {
            gateway.app.broker().hints().others()
        })
        .await;
    }
    // The fallback poll takes up to two seconds, a second on average.
    let time = wake_up_time(&other, &app).await;
    assert!(time < Duration::from_millis(300), "{time:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hint_the_poll_finds_the_message() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let other = app.another().await;
    let received = app.receive_one("work");
    let published = async {
        app.until_waiting(1).await;
        // As if the announcement were lost: nobody is told.
        other.app.broker().hints().set_others(false);
        other.publish("work", json!({"body": 1})).await;
    };
    let (message, ()) = tokio::join!(received, published);
    assert_eq!(message["body"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_empty_handed_at_its_time() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let started = Instant::now();
    let none = app.receive("work", json!({"wait_seconds": 0.5})).await;
    assert_eq!(none, Vec::<Value>::new());
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    app.until_waiting(0).await;
    // The next message is not for the one that has left.
    app.publish("work", json!({"body": 1})).await;
    assert_eq!(app.receive_one("work").await["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_waiting_receivers_ten_get_the_ten_messages() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut receivers = JoinSet::new();
    for _ in 0..50 {
        let wish = json!({"wait_seconds": 4});
        receivers.spawn(receiving(&app, &wish));
    }
    app.until_waiting(50).await;
    let messages: Vec<Value> = (0..10).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let mut bodies = Vec::new();
    let mut empty = 0;
    while let Some(answer) = receivers.join_next().await {
        let answer = answer.unwrap().expect(StatusCode::OK);
        let messages = answer["messages"].as_array().unwrap();
        assert!(messages.len() <= 1, "{messages:?}");
        match messages.first() {
            Some(message) => {
                assert_eq!(empty, 0, "one went home before the messages did");
                bodies.push(message["body"].as_u64().unwrap());
            }
            None => empty += 1,
        }
    }
    bodies.sort_unstable();
    assert_eq!(bodies, (0..10).collect::<Vec<_>>());
    assert_eq!(empty, 40);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_longest_is_served_first() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut receivers = Vec::new();
    for n in 1..=5 {
        let mut one = JoinSet::new();
        one.spawn(receiving(&app, &json!({"wait_seconds": 20})));
        receivers.push(one);
        app.until_waiting(n).await;
    }
    for (body, one) in receivers.iter_mut().enumerate() {
        app.publish("work", json!({"body": body})).await;
        let answer = one.join_next().await.unwrap().unwrap();
        assert_eq!(answer.expect(StatusCode::OK)["messages"][0]["body"], body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hung_up_while_waiting_takes_nothing_with_it() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    for body in 0..20 {
        let mut gone = JoinSet::new();
        gone.spawn(receiving(&app, &json!({"wait_seconds": 60})));
        app.until_waiting(1).await;
        gone.shutdown().await;
        app.until_waiting(0).await;
        app.publish("work", json!({"body": body})).await;
        let message = app.receive_one("work").await;
        assert_eq!(
            (&message["body"], &message["attempt"]),
            (&json!(body), &json!(1))
        );
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "work").await;
}

/// It may be gone before the message is leased, while it is, or when the answer
/// is on its way: then the lease has to run out.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_up_when_the_message_comes_loses_nothing() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut released = 0;
    for round in 0..100u32 {
        let mut gone = JoinSet::new();
        let wish = json!({"wait_seconds": 60, "lease_seconds": 0.1});
        gone.spawn(receiving(&app, &wish));
        app.until_waiting(1).await;
        let hang_up = async {
            // From before the publish's commit to after the answer.
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 40)).await;
            gone.shutdown().await;
        };
        tokio::join!(app.publish("work", json!({"body": round})), hang_up);
        let message = app.receive_one("work").await;
        assert_eq!(message["body"], round);
        let attempt = message["attempt"].as_u64().unwrap();
        assert!((1..=2).contains(&attempt), "{message}");
        released += u32::from(attempt == 1);
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    // Otherwise nobody ever hung up in time.
    assert!(released > 0);
    assert_eq!(app.receive("work", json!({})).await, Vec::<Value>::new());
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_leaves_nobody_hanging() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let waits = receiving(&app, &json!({"wait_seconds": 1.5}));
    let deletes = async {
        app.until_waiting(1).await;
        app.delete("/v1/queues/work")
            .await
            .expect(StatusCode::NO_CONTENT);
        // A new queue of the name is another queue.
        app.queue("work", json!({})).await;
        app.publish("work", json!({"body": "new"})).await;
    };
    let (answer, ()) = tokio::join!(waits, deletes);
    if answer.status == StatusCode::OK {
        assert_eq!(answer.json(), json!({"messages": []}));
    } else {
        answer.expect_problem(404, "queue-not-found");
    }
    assert_eq!(app.receive_one("work").await["body"], "new");
    app.delete("/v1/queues/work")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.post("/v1/queues/work/receive", json!({"wait_seconds": 10}))
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_are_counted_as_consumers() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    app.receive_one("work").await;
    let mut receivers = JoinSet::new();
    for gateway in [&app.gateway, &other, &other] {
        receivers.spawn(receiving(gateway, &json!({"wait_seconds": 60})));
    }
    eventually("two wait there, one here, one holds a lease", async || {
        app.counts("work").await["consumers"] == 4
    })
    .await;
    receivers.shutdown().await;
    eventually("only the lease is left", async || {
        other.counts("work").await["consumers"] == 1
    })
    .await;
}
