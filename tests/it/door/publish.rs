//! What becomes of a call.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{rows, run};
use crate::store::{execute, number};
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_message_is_received_with_all_that_it_was_given() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        r#"SELECT postrider.publish(
            queue => 'orders', body => '{"order":  42, "a": [1.10, null]}',
            headers => '{"shop": "eu", "x-y": ""}', key => 'customer-7', priority => 5,
            ttl_seconds => 60, dedup_id => 'd1', correlation_id => 'c1', reply_to => 'answers',
            traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')"#,
    )
    .await;
    let message = app.receive_one("orders").await;
    assert_eq!(message["body"], json!({"order": 42, "a": [1.10, null]}));
    assert_eq!(message["headers"], json!({"shop": "eu", "x-y": ""}));
    for (field, value) in [
        ("key", json!("customer-7")),
        ("priority", json!(5)),
        ("correlation_id", json!("c1")),
        ("reply_to", json!("answers")),
        (
            "traceparent",
            json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ),
        ("attempt", json!(1)),
    ] {
        assert_eq!(message[field], value, "{field}");
    }
    app.settle("ack", "orders", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(rows(&app.database).await, (0, 0));
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_the_text_form_of_the_jsonb() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        r#"SELECT postrider.publish('q', '{"b":1.10,   "a":"ü"}'::jsonb)"#,
    )
    .await;
    let answer = app
        .post("/v1/queues/q/receive", json!({"wait_seconds": 20}))
        .await;
    assert!(
        answer.text.contains(r#""body":{"a": "ü", "b": 1.10}"#),
        "{}",
        answer.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_there_before_the_commit_and_then_a_receiver_is_woken() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let mut application = app.database.connect().await;
    let mut best = Duration::MAX;
    for body in 0..4 {
        run(&mut application, "BEGIN").await;
        let call = format!("SELECT postrider.publish('work', '{body}')");
        run(&mut application, &call).await;
        let receive = async {
            let message = app.receive_one("work").await;
            (Instant::now(), message)
        };
        let commit = async {
            app.until_waiting(1).await;
            assert_eq!(app.counts("work").await["ready"], 0);
            let committed = Instant::now();
            run(&mut application, "COMMIT").await;
            committed
        };
        let ((arrived, message), committed) = tokio::join!(receive, commit);
        assert_eq!(message["body"], body);
        best = best.min(arrived - committed);
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    assert!(best < Duration::from_millis(200), "{best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_was_never_published() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "BEGIN; SELECT postrider.publish('q', '1'); ROLLBACK;
         BEGIN; SAVEPOINT s; SELECT postrider.publish('q', '2'); ROLLBACK TO s;
         SELECT postrider.publish('q', '3'); COMMIT",
    )
    .await;
    assert_eq!(app.receive_one("q").await["body"], 3);
    assert_eq!(app.counts("q").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notify_a_heartbeat_finds_it() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "BEGIN; SET LOCAL postrider.notify = 'off'; SELECT postrider.publish('q', '1');
         PREPARE TRANSACTION 'door_two_phases'",
    )
    .await;
    run(&mut application, "COMMIT PREPARED 'door_two_phases'").await;
    assert_eq!(app.receive_one("q").await["body"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_transaction_keep_their_order() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', to_jsonb(n)) FROM generate_series(1, 1200) AS n",
    )
    .await;
    let mut got = Vec::new();
    while got.len() < 1200 {
        let messages = app
            .receive("q", json!({"max_messages": 1000, "wait_seconds": 20}))
            .await;
        got.extend(messages.iter().map(|m| m["body"].as_i64().unwrap()));
    }
    assert_eq!(got, (1..=1200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_id_counts_within_the_transaction_outside_of_it_and_over_http() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    app.publish("q", json!({"body": 0, "dedup_id": "a"})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', '1', dedup_id => 'a');
         SELECT postrider.publish('q', '2', dedup_id => 'b'),
             postrider.publish('q', '3', dedup_id => 'b');
         SELECT postrider.publish('q', '4', dedup_id => 'c')",
    )
    .await;
    eventually("the door is empty", async || {
        rows(&app.database).await == (0, 0)
    })
    .await;
    app.publish("q", json!({"body": 5, "dedup_id": "c"})).await;
    let mut bodies: Vec<Value> = app
        .receive("q", json!({"max_messages": 10}))
        .await
        .iter()
        .map(|message| message["body"].clone())
        .collect();
    bodies.sort_by_key(Value::as_i64);
    assert_eq!(bodies, [json!(0), json!(2), json!(4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_counts_from_the_call_and_a_delayed_message_comes_at_its_time() {
    let app = App::start().await;
    app.queue("q", json!({"delay_seconds": 3600})).await;
    let mut application = app.database.connect().await;
    let called = Instant::now();
    run(
        &mut application,
        "SELECT postrider.publish('q', '1', delay_seconds => 1.5);
         SELECT postrider.publish('q', '2', delay_seconds => 0);
         SELECT postrider.publish('q', '3', deliver_at => now() - interval '1 year');
         SELECT postrider.publish('q', '4')",
    )
    .await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        bodies.push(app.receive_one("q").await["body"].as_i64().unwrap());
    }
    let took = called.elapsed();
    assert_eq!(bodies, [2, 3, 1]);
    assert!(
        took > Duration::from_millis(1450) && took < Duration::from_secs(8),
        "{took:?}"
    );
    // The queue's own delay, where the call did not say.
    assert_eq!(app.counts("q").await["delayed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_routes_after_the_commit() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.subscription(
        "shop",
        "eu",
        json!({"filter": {"routing_key": "orders.eu.*"}}),
    )
    .await;
    app.subscription(
        "shop",
        "large",
        json!({"filter": {"body": {"sum": [{"numeric": [">", 100]}]}}}),
    )
    .await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        r#"SELECT postrider.publish_topic('shop', '{"sum": 5}', routing_key => 'orders.eu.paid');
         SELECT postrider.publish_topic('shop', '{"sum": 500}', 'orders.us.paid');
         SELECT postrider.publish_topic('shop', '{"sum": 1}')"#,
    )
    .await;
    let eu = app.receive_one("shop.eu").await;
    assert_eq!(
        (&eu["body"]["sum"], &eu["routing_key"]),
        (&json!(5), &json!("orders.eu.paid"))
    );
    assert_eq!(app.receive_one("shop.large").await["body"]["sum"], 500);
    eventually("the door is empty", async || {
        rows(&app.database).await == (0, 0)
    })
    .await;
    assert_eq!(app.counts("shop.eu").await["ready"], 0);
    assert_eq!(app.counts("shop.large").await["ready"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_megabytes_go_through_a_few_at_a_time() {
    let app = App::start().await;
    app.queue("q", json!({"max_message_bytes": 8_388_608}))
        .await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', to_jsonb(n || repeat('x', 3000000)))
         FROM generate_series(1, 5) AS n",
    )
    .await;
    for n in 1..=5 {
        let body = app.receive_one("q").await["body"].clone();
        assert_eq!(body.as_str().unwrap().len(), 3_000_001);
        assert!(body.as_str().unwrap().starts_with(&n.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_id_of_a_topic_stores_one_message() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "s", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish_topic('shop', '1', dedup_id => 'd'),
             postrider.publish_topic('shop', '2', dedup_id => 'd');
         SELECT postrider.publish_topic('shop', '3', dedup_id => 'd');
         SELECT postrider.publish_topic('shop', '4', dedup_id => 'e')",
    )
    .await;
    eventually("the door is empty", async || {
        rows(&app.database).await == (0, 0)
    })
    .await;
    let over_http = app
        .publish_topic("shop", json!({"body": 5, "dedup_id": "d"}))
        .await;
    assert_eq!(over_http["duplicate"], true);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        bodies.push(app.receive_one("shop.s").await["body"].as_i64().unwrap());
    }
    bodies.sort_unstable();
    assert_eq!(bodies, [1, 4]);
    assert_eq!(app.counts("shop.s").await["ready"], 0);
    let stored = "SELECT count(*) FROM postrider.messages";
    assert_eq!(number(&app.database, stored).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_of_a_topic_comes_at_its_time() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "s", json!({})).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish_topic('shop', '1', delay_seconds => 3600);
         SELECT postrider.publish_topic('shop', '2')",
    )
    .await;
    // What was published later is there before it.
    assert_eq!(app.receive_one("shop.s").await["body"], 2);
    let counts = app.counts("shop.s").await;
    assert_eq!(
        (&counts["ready"], &counts["delayed"]),
        (&json!(0), &json!(1))
    );
    // Within the hour, and no sooner than it should.
    let passed = "UPDATE postrider.parked SET wake_at = greatest(wake_at - interval '1 hour', now())
        WHERE token = 0 AND wake_at BETWEEN now() + interval '59 min' AND now() + interval '1 hour'";
    assert_eq!(execute(&app.database, passed).await, 1);
    assert_eq!(app.receive_one("shop.s").await["body"], 1);
}
