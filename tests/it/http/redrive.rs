//! `POST /v1/queues/{queue}/dead-letters/redrive`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::dead_letters::bury;
use crate::store::{A_MINUTE_LATER, execute, message_id, number};
use crate::support::{Answer, App};

async fn redrive(app: &App, request: Value) -> Answer {
    app.post("/v1/queues/work/dead-letters/redrive", request)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_message_keeps_its_id_and_has_all_its_attempts_again() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 2})).await;
    let message = json!({
        "body": {"n": 1.5}, "headers": {"a": "b"}, "key": "k", "priority": 4,
        "correlation_id": "c", "reply_to": "r",
    });
    let id = app.publish("work", message).await;
    let mut first = Value::Null;
    // Dead three times over, each time after two attempts, and put back at once.
    for _ in 0..3 {
        for attempt in 1..=2 {
            let mut received = app.receive_one("work").await;
            assert_eq!(received["attempt"], attempt);
            app.settle(
                "nack",
                "work",
                &[&received["receipt"]],
                json!({"delay_seconds": 0}),
            )
            .await
            .expect(StatusCode::OK);
            for field in ["receipt", "lease_expires_at", "attempt"] {
                received.as_object_mut().unwrap().remove(field);
            }
            if first.is_null() {
                first.clone_from(&received);
            }
            assert_eq!(received, first);
        }
        let answer = redrive(&app, json!({"ids": [id]})).await;
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({"count": 1, "ids": [id], "not_found": []})
        );
        app.assert_conserved(&app.database, "work").await;
    }
    let counts = app.counts("work").await;
    assert_eq!((&counts["dead"], &counts["ready"]), (&json!(0), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replay_of_the_same_letter_finds_none() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected", "rejected"]).await;
    let request = json!({"ids": [letters[0]]});
    redrive(&app, request.clone()).await.expect(StatusCode::OK);
    redrive(&app, request)
        .await
        .expect_problem(404, "dead-letter-not-found");
    // Those that are there are put back; the others are named.
    let answer = redrive(
        &app,
        json!({"ids": [letters[0], "nonsense", letters[1], letters[1]]}),
    )
    .await;
    assert_eq!(
        answer.expect(StatusCode::OK),
        json!({"count": 1, "ids": [letters[1]], "not_found": [letters[0], "nonsense"]})
    );
    assert_eq!(
        app.receive("work", json!({"max_messages": 10})).await.len(),
        2
    );
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_at_the_same_time_put_each_letter_back_once() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({"max_attempts": 1})).await;
    let messages: Vec<Value> = (0..500).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let messages = app.receive("work", json!({"max_messages": 500})).await;
    let receipts: Vec<&Value> = messages.iter().map(|m| &m["receipt"]).collect();
    app.settle("nack", "work", &receipts, json!({}))
        .await
        .expect(StatusCode::OK);
    let path = "/v1/queues/work/dead-letters/redrive";
    let all = json!({"filter": {}});
    let (a, b, c) = tokio::join!(
        app.post(path, all.clone()),
        other.post(path, all.clone()),
        other.post(path, all)
    );
    let put_back: u64 = [a, b, c]
        .iter()
        .map(|answer| answer.expect(StatusCode::OK)["count"].as_u64().unwrap())
        .sum();
    // What one skips because another has it locked, that other puts back.
    assert_eq!(put_back, 500);
    let back = app.receive("work", json!({"max_messages": 1000})).await;
    assert_eq!(back.len(), 500);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_and_a_limit_choose_the_oldest_that_match() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let reasons = [
        "rejected",
        "max-attempts",
        "rejected",
        "rejected",
        "overflow",
    ];
    let letters = bury(&app, "work", &reasons).await;
    for (request, expected) in [
        (json!({"filter": {"reason": "expired"}}), vec![]),
        (
            json!({"filter": {"reason": "rejected"}, "limit": 2}),
            vec![0, 2],
        ),
        (json!({"filter": {"until": "2026-01-01T11:57:00Z"}}), vec![]),
        (
            json!({"filter": {
                "since": "2026-01-01T11:57:00Z", "until": "2026-01-01T12:00:00Z"}}),
            vec![1, 3],
        ),
        (json!({"filter": {}}), vec![4]),
    ] {
        let expected: Vec<&String> = expected.into_iter().map(|at: usize| &letters[at]).collect();
        let answer = redrive(&app, request.clone()).await;
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({"count": expected.len(), "ids": expected, "not_found": []}),
            "{request}"
        );
    }
    app.assert_conserved(&app.database, "work").await;
}

/// Which need not be the order of publish.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_lists_them_in_the_order_in_which_they_will_be_received() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected"; 4]).await;
    for (at, (minute, priority)) in [(3, 0), (1, 0), (2, 9), (0, 0)].into_iter().enumerate() {
        let update = format!(
            "UPDATE postrider.dead_letters
             SET dead_at = '2026-01-01T10:0{minute}:00Z', priority = {priority}
             WHERE message_id = {}",
            message_id(&letters[at])
        );
        execute(&app.database, update).await;
    }
    let answer = redrive(&app, json!({"filter": {}})).await.json();
    let received: Vec<Value> = app
        .receive("work", json!({"max_messages": 10}))
        .await
        .iter()
        .map(|message| message["id"].clone())
        .collect();
    assert_eq!(received, [2, 3, 1, 0].map(|at: usize| json!(letters[at])));
    assert_eq!(answer["ids"], json!(received));
}

#[tokio::test(flavor = "multi_thread")]
async fn they_can_be_put_into_another_queue() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.queue("repair", json!({"message_ttl_seconds": 600}))
        .await;
    let letters = bury(&app, "work", &["rejected", "rejected"]).await;
    redrive(&app, json!({"ids": letters, "to_queue": "nowhere"}))
        .await
        .expect_problem(404, "queue-not-found");
    redrive(&app, json!({"ids": letters, "to_queue": "repair"}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(app.receive("work", json!({})).await, Vec::<Value>::new());
    let ttl = "SELECT count(*) FROM postrider.ready
        WHERE expires_at < now() + interval '601 s'";
    assert_eq!(number(&app.database, ttl).await, 2);
    let received = app.receive("repair", json!({"max_messages": 10})).await;
    assert_eq!(received.len(), 2);
    assert_eq!(received[0]["id"], letters[0].as_str());
    for queue in ["work", "repair"] {
        app.assert_conserved(&app.database, queue).await;
    }
    // And back, after it failed there too.
    let receipts = [&received[0]["receipt"], &received[1]["receipt"]];
    app.settle("nack", "repair", &receipts, json!({"dead_letter": true}))
        .await
        .expect(StatusCode::OK);
    let answer = app
        .post(
            "/v1/queues/repair/dead-letters/redrive",
            json!({"filter": {}, "to_queue": "work"}),
        )
        .await;
    assert_eq!(answer.expect(StatusCode::OK)["count"], 2);
    assert_eq!(app.receive_one("work").await["attempt"], 1);
    for queue in ["work", "repair"] {
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_can_be_spread_over_time() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected"; 4]).await;
    let answer = redrive(&app, json!({"filter": {}, "per_second": 0.01})).await;
    assert_eq!(answer.expect(StatusCode::OK)["ids"], json!(letters));
    // The first at once, then one every hundred seconds.
    let first = app.receive_one("work").await;
    assert_eq!(first["id"], letters[0].as_str());
    let apart: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT message_id, round(extract(epoch FROM wake_at - min(wake_at) OVER ()))::bigint
         FROM postrider.parked WHERE token = 0 ORDER BY wake_at",
    )
    .fetch_all(&mut app.database.connect().await)
    .await
    .unwrap();
    let expected: Vec<(i64, i64)> = letters[1..]
        .iter()
        .map(|id| message_id(id))
        .zip([0, 100, 200])
        .collect();
    assert_eq!(apart, expected);
    let counts = app.counts("work").await;
    assert_eq!(
        (&counts["delayed"], &counts["leased"]),
        (&json!(3), &json!(1))
    );
    app.assert_conserved(&app.database, "work").await;

    app.settle(
        "nack",
        "work",
        &[&first["receipt"]],
        json!({"dead_letter": true}),
    )
    .await
    .expect(StatusCode::OK);
    for rate in [json!(0), json!(-1), json!(1001), json!(0.0009)] {
        redrive(&app, json!({"filter": {}, "per_second": rate}))
            .await
            .expect_problem(422, "invalid");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receiver_is_woken_by_a_replay() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected", "rejected"]).await;
    let request = json!({"ids": letters, "per_second": 5});
    let receive = json!({"max_messages": 10, "wait_seconds": 20});
    let (first, _) = tokio::join!(app.receive("work", receive), redrive(&app, request));
    assert_eq!(first.len(), 1);
    let second = app.receive_one("work").await;
    assert_eq!(second["id"], letters[1].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_must_be_clear() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected"]).await;
    for request in [
        json!({}),
        json!({"ids": []}),
        json!({"ids": letters, "filter": {}}),
        json!({"filter": {}, "limit": 0}),
        json!({"filter": {}, "limit": 10_001}),
        json!({"filter": {"reason": "none"}}),
        json!({"filter": {"before": "2026-01-01T12:00:00Z"}}),
        json!({"ids": letters, "to_queue": "no/name"}),
    ] {
        redrive(&app, request).await.expect_problem(422, "invalid");
    }
    assert_eq!(app.counts("work").await["dead"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_outlives_the_partition_it_came_in() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let letters = bury(&app, "work", &["rejected"]).await;
    let dropped = "DO $$
        DECLARE p record;
        BEGIN
            FOR p IN SELECT inhrelid::regclass AS name FROM pg_inherits
                WHERE inhparent = 'postrider.messages'::regclass
            LOOP EXECUTE 'DROP TABLE ' || p.name; END LOOP;
            DELETE FROM postrider.message_partitions;
        END $$";
    execute(&app.database, dropped).await;
    // Twice: by way of a retry, another death, and the body's own row.
    for _ in 0..2 {
        redrive(&app, json!({"ids": letters}))
            .await
            .expect(StatusCode::OK);
        execute(&app.database, A_MINUTE_LATER).await;
        while app.app.store().prune().await.unwrap() {}
        let seen = app
            .get(&format!("/v1/queues/work/messages/{}", letters[0]))
            .await
            .expect(StatusCode::OK);
        assert_eq!(
            (&seen["state"], &seen["body"]),
            (&json!("ready"), &json!(0))
        );
        let received = app.receive_one("work").await;
        assert_eq!(
            (&received["id"], &received["body"]),
            (&json!(letters[0]), &json!(0))
        );
        let more = json!({"dead_letter": true});
        app.settle("nack", "work", &[&received["receipt"]], more)
            .await
            .expect(StatusCode::OK);
    }
    execute(&app.database, A_MINUTE_LATER).await;
    while app.app.store().prune().await.unwrap() {}
    let bodies = "SELECT count(*) FROM postrider.stragglers";
    assert_eq!(number(&app.database, bodies).await, 0);
    app.assert_conserved(&app.database, "work").await;
}
