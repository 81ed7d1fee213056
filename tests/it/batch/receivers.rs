//! Receivers that wait, and the claims that are made for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::batch::{self, Wait};
use postrider::domain::Seconds;
use postrider::store::{Delivery, Error, Receiver};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::store::{execute, number, queue_id};
use crate::support::{App, Begun, Database, Gateway, Held, Wire, begin, begun, config, eventually};

/// A gateway over a wire that counts.
pub(super) async fn start() -> (Database, Wire, Gateway) {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    (database, wire, gateway)
}

pub(super) type Received = Result<batch::Received, Error>;

/// A receiver at the end of the line.
pub(super) async fn in_line(
    gateway: &Gateway,
    queue: i64,
    max_messages: u32,
) -> Begun<'_, Received> {
    let wish = Receiver {
        max_messages,
        lease: Seconds::new(600),
    };
    let wait = Wait::UpTo(Duration::from_mins(1));
    let receive = gateway.app.broker().receive(queue, wish, wait);
    begun(receive).await
}

async fn all_wait(gateway: &Gateway, queue: i64, count: usize) {
    eventually("all wait", async || {
        gateway.app.broker().waiting().get(&queue).copied() == Some(count)
    })
    .await;
}

/// Publishes at once messages with these bodies.
async fn publish(gateway: &Gateway, queue: &str, bodies: std::ops::Range<usize>) {
    let messages: Vec<Value> = bodies.map(|n| json!({"body": n})).collect();
    gateway
        .post(
            &format!("/v1/queues/{queue}/messages"),
            json!({"messages": messages}),
        )
        .await
        .expect(StatusCode::CREATED);
}

pub(super) fn bodies(received: Received) -> Vec<usize> {
    let body = |delivery: Delivery| {
        let body = std::str::from_utf8(&delivery.envelope.body).unwrap();
        body.parse().unwrap()
    };
    let deliveries = received.unwrap().deliveries;
    deliveries.into_iter().map(body).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_handed_out_down_the_line_and_who_got_nothing_keeps_the_place() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let mut line = Vec::new();
    for max_messages in [2, 1, 3, 2, 1] {
        line.push(in_line(&app, queue, max_messages).await);
    }
    all_wait(&app, queue, 5).await;
    let mut line = line.into_iter();
    let mut next = || line.next().unwrap();

    publish(&app, "work", 0..4).await;
    assert_eq!(bodies(next().await), [0, 1]);
    assert_eq!(bodies(next().await), [2]);
    // Not all that it wishes for, but all that there is.
    assert_eq!(bodies(next().await), [3]);
    all_wait(&app, queue, 2).await;
    let latecomer = in_line(&app, queue, 9).await;
    all_wait(&app, queue, 3).await;
    publish(&app, "work", 4..8).await;
    assert_eq!(bodies(next().await), [4, 5]);
    assert_eq!(bodies(next().await), [6]);
    assert_eq!(bodies(latecomer.await), [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_claim_serves_all_who_wait_and_wakes_no_more_than_there_are_messages() {
    let (database, wire, gateway) = start().await;
    gateway.queue("work", json!({})).await;
    let queue = queue_id(&database, "work").await;
    let mut line = Vec::new();
    for _ in 0..60 {
        line.push(in_line(&gateway, queue, 1).await);
    }
    all_wait(&gateway, queue, 60).await;
    // All who came asked once; nobody is in the middle of it.
    let before = wire.count("claim");
    assert!(before <= 60, "{before} claims for 60 who came");
    let other = Gateway::start(&config(&database.url())).await;
    publish(&other, "work", 0..25).await;
    for (body, receiver) in line.drain(..25).enumerate() {
        assert_eq!(bodies(receiver.await), [body]);
    }
    all_wait(&gateway, queue, 35).await;
    let claims = wire.count("claim") - before;
    // One more if the last who came was still asking.
    assert!((1..=2).contains(&claims), "{claims} claims");
    for receiver in line {
        let still = begin(receiver).await;
        assert!(still.is_ok(), "woken for nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_claims_from_a_queue_one_claim_at_a_time_and_from_each_queue_by_itself() {
    let (database, wire, gateway) = start().await;
    let mut queues = Vec::new();
    for name in ["a", "b"] {
        gateway.queue(name, json!({})).await;
        queues.push(queue_id(&database, name).await);
    }
    let held = Held::table(&database, "ready", "ACCESS EXCLUSIVE").await;
    let mut lines = [Vec::new(), Vec::new()];
    for (line, queue) in lines.iter_mut().zip(&queues) {
        line.push(in_line(&gateway, *queue, 1).await);
    }
    database.until_stuck("-- claim", 2).await;
    for (line, queue) in lines.iter_mut().zip(&queues) {
        for _ in 0..40 {
            line.push(in_line(&gateway, *queue, 1).await);
        }
        all_wait(&gateway, *queue, 40).await;
    }
    assert_eq!(database.stuck("-- claim").await, 2);
    held.let_go().await;
    // For each queue the one that was stuck, and one for all who came
    // meanwhile; a claim each would be 82.
    for queue in &queues {
        all_wait(&gateway, *queue, 41).await;
    }
    let claims = wire.count("claim");
    assert!((2..=4).contains(&claims), "{claims} claims");
    for (name, line) in ["a", "b"].into_iter().zip(lines) {
        publish(&gateway, name, 0..41).await;
        for (body, receiver) in line.into_iter().enumerate() {
            assert_eq!(bodies(receiver.await), [body]);
        }
    }
}

/// Receives and gives back at once, for ever: the backlog stays.
async fn churn(app: Arc<App>) {
    loop {
        let request = json!({"max_messages": 10, "wait_seconds": 5});
        let messages = app.receive("busy", request).await;
        let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
        if !receipts.is_empty() {
            app.settle("nack", "busy", &receipts, json!({"delay_seconds": 0}))
                .await
                .expect(StatusCode::OK);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_queue_does_not_starve_a_quiet_one() {
    let app = Arc::new(App::start().await);
    app.queue("busy", json!({"max_attempts": 1000})).await;
    app.queue("quiet", json!({})).await;
    for batch in 0..3 {
        publish(&app, "busy", batch * 1000..(batch + 1) * 1000).await;
    }
    let mut consumers = JoinSet::new();
    for _ in 0..48 {
        consumers.spawn(churn(Arc::clone(&app)));
    }
    let attempts = "SELECT count(*) FROM postrider.attempts";
    for body in 0..20 {
        let churned = number(&app.database, attempts).await;
        eventually("the busy queue goes on", async || {
            number(&app.database, attempts).await > churned
        })
        .await;
        let began = Instant::now();
        app.publish("quiet", json!({"body": body})).await;
        let message = app.receive_one("quiet").await;
        assert_eq!(message["body"], body);
        app.settle("ack", "quiet", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        // Three calls, each behind at most a batch of the busy queue's.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    let ready = "SELECT count(*) FROM postrider.ready";
    assert!(number(&app.database, ready).await > 0);
    // Patient ones, too, are served while the other queue never rests.
    let quiet = queue_id(&app.database, "quiet").await;
    let patient = in_line(&app, quiet, 1).await;
    all_wait(&app, quiet, 1).await;
    let began = Instant::now();
    app.publish("quiet", json!({"body": 20})).await;
    assert_eq!(bodies(patient.await), [20]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    consumers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_claim_fails_those_it_was_for_hear_it_and_the_others_are_served() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    execute(
        &app.database,
        "ALTER TABLE postrider.parked ADD CONSTRAINT unknown CHECK (attempts < 1)",
    )
    .await;
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(in_line(&app, queue, 1).await);
    }
    all_wait(&app, queue, 3).await;
    // There nobody waits whom it could be handed over to.
    publish(&other, "work", 0..1).await;
    for receiver in line {
        let failed = receiver.await;
        assert!(matches!(failed, Err(Error::Inconsistent(_))), "{failed:?}");
    }
    execute(
        &app.database,
        "ALTER TABLE postrider.parked DROP CONSTRAINT unknown",
    )
    .await;
    assert_eq!(bodies(in_line(&app, queue, 1).await.await), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_claim_fails_those_behind_it_do_not_wait_for_the_next_event() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let not_at_first = "CREATE SEQUENCE tries;
         ALTER TABLE postrider.parked ADD CONSTRAINT not_at_first CHECK (nextval('tries') > 1)";
    app.database.execute(not_at_first).await;
    // A poll comes every two seconds, and one of these may be served by it.
    for round in 0..4 {
        // As many as one claim may bring.
        let first = in_line(&app, queue, 1000).await;
        let second = in_line(&app, queue, 1).await;
        all_wait(&app, queue, 2).await;
        publish(&other, "work", round..round + 1).await;
        let failed = first.await;
        assert!(matches!(failed, Err(Error::Inconsistent(_))), "{failed:?}");
        let served = tokio::time::timeout(Duration::from_secs(1), second).await;
        assert_eq!(bodies(served.expect("waits for a poll")), [round]);
        let from_the_beginning = "SELECT setval('tries', 1, false)";
        app.database.execute(from_the_beginning).await;
    }
}
