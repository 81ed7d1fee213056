//! One message of a key at a time.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ack, ack_next, bodies, end_delays, nack, ordered, publish_all, receive_now};
use crate::store::queue_id;
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_of_a_key_comes_when_the_one_before_is_acked() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    publish_all(&app, "q", "b", &[11, 12]).await;
    let first = app.receive("q", json!({"max_messages": 1})).await;
    assert_eq!(bodies(&first), [1]);
    let other = receive_now(&app, "q").await;
    assert_eq!(bodies(&other)[0], 11, "other keys flow on");
    assert!(!bodies(&other).contains(&2));
    ack(&app, "q", &first[0]).await;
    for message in &other {
        ack(&app, "q", message).await;
    }
    ack_next(&app, "q", 2).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nacked_message_keeps_the_turn_while_it_rests() {
    let app = App::start().await;
    app.queue("q", json!({"ordered": true})).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive_one("q").await;
    nack(&app, "q", &first, json!({"delay_seconds": 600})).await;
    assert!(receive_now(&app, "q").await.is_empty());
    end_delays(&app.database).await;
    ack_next(&app, "q", 1).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_lease_ran_out_comes_again_before_the_next() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive("q", json!({"lease_seconds": 0.2})).await;
    assert_eq!(bodies(&first), [1]);
    let again = app.receive_one("q").await;
    assert_eq!((&again["body"], &again["attempt"]), (&json!(1), &json!(2)));
    ack(&app, "q", &again).await;
    ack_next(&app, "q", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_ends_the_turn() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2]).await;
    let first = app.receive("q", json!({"lease_seconds": 0.1})).await;
    eventually("the lease has run out", async || {
        app.counts("q").await["leased"] == 0
    })
    .await;
    ack(&app, "q", &first[0]).await;
    ack_next(&app, "q", 2).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_keeps_those_behind_it_waiting() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    app.publish("q", json!({"body": 1, "key": "a", "delay_seconds": 600}))
        .await;
    publish_all(&app, "q", "a", &[2]).await;
    publish_all(&app, "q", "b", &[11]).await;
    assert_eq!(bodies(&receive_now(&app, "q").await), [11]);
    end_delays(&app.database).await;
    ack_next(&app, "q", 1).await;
    ack_next(&app, "q", 2).await;
}

/// Publishes bodies with one key, each with a priority.
async fn publish_mixed(app: &App, key: &str, messages: [(i64, u8); 3]) {
    for (body, priority) in messages {
        let message = json!({"body": body, "key": key, "priority": priority});
        app.publish("q", message).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_key_no_priority_overtakes_one_by_one() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_mixed(&app, "a", [(1, 0), (2, 9), (3, 4)]).await;
    publish_mixed(&app, "b", [(11, 4), (12, 0), (13, 9)]).await;
    // Between keys it counts: of those whose turn it is.
    for (body, priority) in [(11, 4), (1, 0), (2, 9), (3, 4), (12, 0), (13, 9)] {
        let message = app.receive_one("q").await;
        assert_eq!(
            (&message["body"], &message["priority"]),
            (&json!(body), &json!(priority))
        );
        ack(&app, "q", &message).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_key_no_priority_overtakes_in_a_run() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_mixed(&app, "a", [(1, 0), (2, 9), (3, 4)]).await;
    publish_mixed(&app, "b", [(11, 4), (12, 0), (13, 9)]).await;
    let run = app.receive("q", json!({"max_messages": 10})).await;
    let of = |key: &str| -> Vec<(i64, i64)> {
        let of_key = run.iter().filter(|message| message["key"] == key);
        let number = |value: &Value| value.as_i64().unwrap();
        of_key
            .map(|message| (number(&message["body"]), number(&message["priority"])))
            .collect()
    };
    assert_eq!(of("a"), [(1, 0), (2, 9), (3, 4)]);
    assert_eq!(of("b"), [(11, 4), (12, 0), (13, 9)]);
    for message in &run {
        ack(&app, "q", message).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_a_key_have_no_order() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    for body in [1, 2, 3] {
        app.publish("q", json!({"body": body})).await;
    }
    assert_eq!(bodies(&receive_now(&app, "q").await), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_counts_as_ready_and_can_be_looked_at() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1, 2, 3]).await;
    publish_all(&app, "q", "b", &[11]).await;
    let counts = app.counts("q").await;
    assert_eq!(counts["ready"], 4);
    let first = app.receive_one("q").await;
    let counts = app.counts("q").await;
    assert_eq!(
        (&counts["ready"], &counts["leased"]),
        (&json!(3), &json!(1))
    );
    let mut seen = Vec::new();
    let mut path = "/v1/queues/q/messages?state=ready&limit=1".to_owned();
    loop {
        let page = app.get(&path).await.expect(StatusCode::OK);
        seen.extend(bodies(page["messages"].as_array().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/queues/q/messages?state=ready&limit=1&cursor={cursor}");
    }
    assert_eq!(seen, [11, 2, 3]);
    let waiting = app.get("/v1/queues/q/messages").await.json();
    let id = waiting["messages"][1]["id"].as_str().unwrap();
    let message = app
        .get(&format!("/v1/queues/q/messages/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&message["body"], &message["state"]),
        (&json!(2), &json!("ready"))
    );
    ack(&app, "q", &first).await;
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_batch_are_delivered_in_its_order() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let messages: Vec<_> = (0..20)
        .map(|n| json!({"body": n, "key": format!("k{}", n % 2)}))
        .collect();
    app.post("/v1/queues/q/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let mut got = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        let message = app.receive_one("q").await;
        let body = message["body"].as_i64().unwrap();
        got[usize::from(body % 2 == 1)].push(body);
        ack(&app, "q", &message).await;
    }
    let even: Vec<i64> = (0..20).filter(|n| n % 2 == 0).collect();
    let odd: Vec<i64> = (0..20).filter(|n| n % 2 == 1).collect();
    assert_eq!(got, [even, odd]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_not_lined_up() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    let message = json!({"body": 1, "key": "a", "dedup_id": "once"});
    let first = app.publish("q", message.clone()).await;
    assert_eq!(app.publish("q", message).await, first);
    publish_all(&app, "q", "a", &[2]).await;
    ack_next(&app, "q", 1).await;
    ack_next(&app, "q", 2).await;
    assert!(receive_now(&app, "q").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_it_is_ordered_changes_only_while_it_is_empty() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    app.publish("q", json!({"body": 1, "key": "a"})).await;
    let problem = app
        .patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect_problem(409, "queue-not-empty");
    assert_eq!(problem["errors"][0]["pointer"], "/ordered");
    app.put("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect_problem(409, "queue-not-empty");
    let leased = app.receive_one("q").await;
    app.patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect_problem(409, "queue-not-empty");
    // It rests.
    nack(&app, "q", &leased, json!({"delay_seconds": 600})).await;
    app.patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect_problem(409, "queue-not-empty");
    end_delays(&app.database).await;
    let leased = app.receive_one("q").await;
    ack(&app, "q", &leased).await;
    let queue = app
        .patch("/v1/queues/q", json!({"ordered": true}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(queue["ordered"], true);
    publish_all(&app, "q", "a", &[2, 3]).await;
    app.patch("/v1/queues/q", json!({"ordered": false}))
        .await
        .expect_problem(409, "queue-not-empty");
    app.patch("/v1/queues/q", json!({"max_attempts": 7}))
        .await
        .expect(StatusCode::OK);
    ack_next(&app, "q", 2).await;
    ack_next(&app, "q", 3).await;
    app.patch("/v1/queues/q", json!({"ordered": false}))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_and_fair_exclude_each_other() {
    let app = App::start().await;
    let problem = app
        .put("/v1/queues/q", json!({"ordered": true, "fair": true}))
        .await
        .expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/fair");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_idle_leave_nothing_behind() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    publish_all(&app, "q", "a", &[1]).await;
    ack_next(&app, "q", 1).await;
    let id = queue_id(&app.database, "q").await;
    eventually("the key's rows are gone", async || {
        let rows = format!(
            "SELECT (SELECT count(*) FROM postrider.lined_up WHERE queue_id = {id})
                + (SELECT count(*) FROM postrider.turns WHERE queue_id = {id})"
        );
        crate::store::number(&app.database, rows).await == 0
    })
    .await;
    publish_all(&app, "q", "a", &[2, 3]).await;
    ack_next(&app, "q", 2).await;
    ack_next(&app, "q", 3).await;
}
