//! `POST /v1/queues/{queue}/ack`.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, number};
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_message_is_gone_and_the_same_ack_is_fine_twice() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
    assert_eq!(message["id"], id.as_str());
    for _ in 0..3 {
        let answer = app
            .settle("ack", "orders", &[&message["receipt"]], json!({}))
            .await;
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({"results": [{"ok": true}]})
        );
    }
    app.get(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect_problem(404, "message-not-found");
    let counts = app.counts("orders").await;
    assert_eq!(
        (&counts["ready"], &counts["leased"]),
        (&json!(0), &json!(0))
    );
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_takes_the_ack_of_any_other() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
    for gateway in [&other, &app.gateway] {
        gateway
            .settle("ack", "orders", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_each_receipt_has_its_own_result() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("others", json!({})).await;
    for body in 1..=3 {
        app.publish("orders", json!({"body": body})).await;
    }
    app.publish("others", json!({"body": 1})).await;
    let messages = app.receive("orders", json!({"max_messages": 3})).await;
    let foreign = app.receive_one("others").await;
    // One of them has been given back meanwhile.
    app.settle("nack", "orders", &[&messages[1]["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);

    let garbage = json!("garbage");
    let receipts = [
        &messages[0]["receipt"],
        &garbage,
        &foreign["receipt"],
        &messages[1]["receipt"],
        &messages[2]["receipt"],
        &messages[0]["receipt"],
    ];
    let answer = app.settle("ack", "orders", &receipts, json!({})).await;
    let answer = answer.expect(StatusCode::OK);
    let results: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| {
            assert_eq!(result["ok"] == true, result.get("code").is_none());
            assert_eq!(result["ok"] == true, result.get("detail").is_none());
            (result["code"].as_str(), result["status"].as_u64())
        })
        .collect();
    assert_eq!(
        results,
        [
            (None, None),
            (Some("receipt-malformed"), Some(422)),
            (Some("receipt-not-found"), Some(404)),
            (Some("lease-lost"), Some(409)),
            (None, None),
            (None, None),
        ]
    );
    // The other queue's is still leased, the one given back still waits.
    assert_eq!(app.counts("others").await["leased"], 1);
    let counts = app.counts("orders").await;
    assert_eq!(
        (&counts["leased"], &counts["delayed"]),
        (&json!(0), &json!(1))
    );
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_receipt_that_fails_is_a_problem_of_its_own() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("others", json!({})).await;
    app.publish("others", json!({"body": 1})).await;
    let foreign = app.receive_one("others").await;
    app.settle("ack", "orders", &[&foreign["receipt"]], json!({}))
        .await
        .expect_problem(404, "receipt-not-found");
    app.settle("ack", "orders", &[&json!("x")], json!({}))
        .await
        .expect_problem(422, "receipt-malformed");
    app.settle("ack", "others", &[&foreign["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_ack_after_redelivery_is_refused_and_changes_nothing() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let first = app.receive("orders", json!({"lease_seconds": 0.05})).await;
    let second = app.receive_one("orders").await;
    assert_eq!(
        (&second["id"], &second["attempt"]),
        (&first[0]["id"], &json!(2))
    );

    let late = async || {
        app.settle("ack", "orders", &[&first[0]["receipt"]], json!({}))
            .await
            .expect_problem(409, "lease-lost")
    };
    late().await;
    let message = app
        .get(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(message["state"], "leased");
    assert_eq!(message["lease_expires_at"], second["lease_expires_at"]);

    app.settle("ack", "orders", &[&second["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    late().await;
    app.assert_conserved(&app.database, "orders").await;
}

/// The two may meet in one statement, of one request or of several.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_receipt_is_refused_beside_the_new_one_of_the_same_message() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for old_first in [true, false] {
        app.publish("orders", json!({"body": 1})).await;
        let old = app.receive("orders", json!({"lease_seconds": 0.05})).await;
        let new = app.receive_one("orders").await;
        let (old, new) = (&old[0]["receipt"], &new["receipt"]);
        let receipts = if old_first { [old, new] } else { [new, old] };
        let answer = app.settle("ack", "orders", &receipts, json!({})).await;
        let results = answer.expect(StatusCode::OK)["results"].clone();
        let (of_old, of_new) = if old_first {
            (&results[0], &results[1])
        } else {
            (&results[1], &results[0])
        };
        assert_eq!(of_new["ok"], true, "{results}");
        assert_eq!(of_old["code"], "lease-lost", "{results}");
    }
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_counts_after_the_leases_end_while_nobody_else_has_had_the_message() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for body in 0..5 {
        let id = app.publish("orders", json!({"body": body})).await;
        let message = app.receive_one("orders").await;
        // The gateway, which did not do it, will not know for a while.
        execute(
            &app.database,
            "UPDATE postrider.parked SET wake_at = now() - interval '1 ms'",
        )
        .await;
        app.settle("ack", "orders", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        app.get(&format!("/v1/queues/orders/messages/{id}"))
            .await
            .expect_problem(404, "message-not-found");
    }
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_counts_after_the_message_went_back_to_its_queue() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let path = format!("/v1/queues/orders/messages/{id}");
    let first = app.receive("orders", json!({"lease_seconds": 0.02})).await;
    eventually("it is back", async || {
        app.get(&path).await.json()["state"] == "ready"
    })
    .await;
    // Its answer may be lost, so the same late ack comes again.
    for _ in 0..3 {
        app.settle("ack", "orders", &[&first[0]["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.get(&path)
        .await
        .expect_problem(404, "message-not-found");
    assert_eq!(app.receive("orders", json!({})).await, Vec::<Value>::new());
    app.assert_conserved(&app.database, "orders").await;
    let acked = "SELECT acked FROM postrider.queue_counts";
    assert_eq!(number(&app.database, acked).await, 1);
}

/// As a client does that gave up waiting for the first answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_late_ack_twice_at_the_same_time_is_fine() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    for body in 0..25 {
        let id = app.publish("orders", json!({"body": body})).await;
        let first = app.receive("orders", json!({"lease_seconds": 0.02})).await;
        let path = format!("/v1/queues/orders/messages/{id}");
        eventually("it is back", async || {
            app.get(&path).await.json()["state"] == "ready"
        })
        .await;
        let receipt = [&first[0]["receipt"]];
        let (one, two) = tokio::join!(
            app.settle("ack", "orders", &receipt, json!({})),
            other.settle("ack", "orders", &receipt, json!({}))
        );
        one.expect(StatusCode::OK);
        two.expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "orders").await;
    let acked = "SELECT acked FROM postrider.queue_counts";
    assert_eq!(number(&app.database, acked).await, 25);
}

/// Of two leases that ran out only the newer one's receipt is good.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_ack_with_the_last_receipt_but_one_is_refused() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let short = json!({"lease_seconds": 0.02, "wait_seconds": 20});
    let first = app.receive("orders", short.clone()).await;
    let second = app.receive("orders", short).await;
    let path = format!("/v1/queues/orders/messages/{id}");
    eventually("it is back", async || {
        app.get(&path).await.json()["state"] == "ready"
    })
    .await;
    let (first, second) = (&first[0]["receipt"], &second[0]["receipt"]);
    app.settle("ack", "orders", &[first], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    let answer = app
        .settle("ack", "orders", &[first, second], json!({}))
        .await;
    let results = answer.expect(StatusCode::OK)["results"].clone();
    assert_eq!(results[0]["code"], "lease-lost", "{results}");
    assert_eq!(results[1]["ok"], true, "{results}");
    app.settle("ack", "orders", &[first], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_after_a_nack_is_refused_and_changes_nothing() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
    for delay in [0, 3600] {
        let message = if delay == 0 {
            message.clone()
        } else {
            app.receive_one("orders").await
        };
        app.settle(
            "nack",
            "orders",
            &[&message["receipt"]],
            json!({"delay_seconds": delay}),
        )
        .await
        .expect(StatusCode::OK);
        app.settle("ack", "orders", &[&message["receipt"]], json!({}))
            .await
            .expect_problem(409, "lease-lost");
    }
    let left = app
        .get(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&left["state"], &left["attempts"]),
        (&json!("delayed"), &json!(2))
    );
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_after_the_message_was_dead_lettered_is_refused() {
    let app = App::start().await;
    app.queue("orders", json!({"max_attempts": 1})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let message = app.receive("orders", json!({"lease_seconds": 0.02})).await;
    let path = format!("/v1/queues/orders/dead-letters/{id}");
    eventually("it is dead", async || {
        app.get(&path).await.status == StatusCode::OK
    })
    .await;
    app.settle("ack", "orders", &[&message[0]["receipt"]], json!({}))
        .await
        .expect_problem(409, "lease-lost");
    app.get(&path).await.expect(StatusCode::OK);
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_of_a_message_that_was_taken_out_is_fine() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let deleted = app.receive_one("orders").await;
    app.delete(&format!("/v1/queues/orders/messages/{id}"))
        .await
        .expect(StatusCode::NO_CONTENT);
    app.publish("orders", json!({"body": 2})).await;
    let purged = app.receive_one("orders").await;
    app.post("/v1/queues/orders/purge", json!({}))
        .await
        .expect(StatusCode::OK);
    let receipts = [&deleted["receipt"], &purged["receipt"]];
    let answer = app.settle("ack", "orders", &receipts, json!({})).await;
    assert_eq!(
        answer.expect(StatusCode::OK),
        json!({"results": [{"ok": true}, {"ok": true}]})
    );
    app.assert_conserved(&app.database, "orders").await;
}
