//! `POST /v1/topics/{topic}/messages` and `/explain`.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, eventually};

/// A topic whose subscription `all` takes everything and `eu` what is for `eu`.
async fn start() -> App {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "all", json!({})).await;
    let eu = json!({"filter": {"routing_key": "eu.#"}});
    app.subscription("shop", "eu", eu).await;
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn each_matching_subscription_gets_the_message_as_it_was_published() {
    let app = start().await;
    let message = json!({
        "body": {"order": 42}, "routing_key": "eu.paid", "headers": {"a": "b"}, "key": "k",
        "priority": 7, "correlation_id": "c", "reply_to": "r",
    });
    let published = app.publish_topic("shop", message.clone()).await;
    assert_eq!(
        (&published["subscriptions"], &published["duplicate"]),
        (&json!(2), &json!(false))
    );
    for queue in ["shop.all", "shop.eu"] {
        // Looked at, received, dead: the same everywhere.
        let path = format!("/v1/queues/{queue}/messages");
        let peeked = app.get(&path).await.json()["messages"][0].clone();
        let received = app.receive_one(queue).await;
        app.settle(
            "nack",
            queue,
            &[&received["receipt"]],
            json!({"dead_letter": true}),
        )
        .await
        .expect(StatusCode::OK);
        let dead = app
            .get(&format!("/v1/queues/{queue}/dead-letters"))
            .await
            .json();
        for one in [&peeked, &received, &dead["dead_letters"][0]] {
            assert_eq!(one["id"], published["id"]);
            assert_eq!(one["topic"], "shop");
            for (field, value) in message.as_object().unwrap() {
                assert_eq!(one[field], *value, "{field}");
            }
        }
        // And back from the dead.
        let path = format!("/v1/queues/{queue}/dead-letters/redrive");
        app.post(&path, json!({"filter": {}}))
            .await
            .expect(StatusCode::OK);
        let again = app.receive_one(queue).await;
        assert_eq!(
            (&again["topic"], &again["routing_key"]),
            (&json!("shop"), &json!("eu.paid"))
        );
        app.assert_conserved(&app.database, queue).await;
    }
    let other = app
        .publish_topic("shop", json!({"body": 1, "routing_key": "us"}))
        .await;
    assert_eq!(other["subscriptions"], 1);
    assert_eq!(app.counts("shop.eu").await["ready"], 0);
    let bodies: (i64,) = sqlx::query_as("SELECT count(*) FROM postrider.messages")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(bodies.0, 2, "a body is stored once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_to_a_queue_shows_neither_topic_nor_routing_key() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    app.publish("work", json!({"body": 1})).await;
    let received = app.receive_one("work").await;
    assert_eq!(
        (&received["topic"], &received["routing_key"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_routed_by_their_header() {
    let app = start().await;
    let send = async |name: &'static str, value: &'static str| {
        let request = app.request(Method::POST, "/v1/topics/shop/messages");
        let request = request
            .header("content-type", "text/plain")
            .header(name, value);
        Answer::of(request.body("hello")).await
    };
    let answer = send("postrider-routing-key", "eu.x").await;
    assert_eq!(
        answer.expect(StatusCode::CREATED)["messages"][0]["subscriptions"],
        2
    );
    let received = app.receive_one("shop.eu").await;
    assert_eq!(received["body_base64"], "aGVsbG8=");
    assert_eq!(received["routing_key"], "eu.x");
    send("postrider-mandatory", "maybe")
        .await
        .expect_problem(422, "invalid");
    app.delete("/v1/topics/shop/subscriptions/all")
        .await
        .expect(StatusCode::NO_CONTENT);
    send("postrider-mandatory", "true")
        .await
        .expect_problem(422, "unroutable");
    send("postrider-mandatory", "false")
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_routed_message_by_message_and_stored_whole_or_not_at_all() {
    let app = start().await;
    app.delete("/v1/topics/shop/subscriptions/all")
        .await
        .expect(StatusCode::NO_CONTENT);
    let batch = json!({"messages": [
        {"body": 1, "routing_key": "eu"}, {"body": 2, "routing_key": "us"},
        {"body": 3, "routing_key": "eu.x", "mandatory": true}]});
    let answer = app.post("/v1/topics/shop/messages", batch).await;
    let matched: Vec<i64> = answer.expect(StatusCode::CREATED)["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["subscriptions"].as_i64().unwrap())
        .collect();
    assert_eq!(matched, [1, 0, 1]);
    let batch = json!({"messages": [
        {"body": 4, "routing_key": "eu"}, {"body": 5, "routing_key": "us", "mandatory": true}]});
    let refused = app.post("/v1/topics/shop/messages", batch).await;
    let problem = refused.expect_problem(422, "unroutable");
    assert_eq!(problem["errors"][0]["pointer"], "/messages/1/mandatory");
    let received = app.receive("shop.eu", json!({"max_messages": 10})).await;
    let bodies: Vec<&Value> = received.iter().map(|m| &m["body"]).collect();
    assert_eq!(bodies, [1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_subscriptions_to_one_queue_give_one_message() {
    let app = start().await;
    app.queue("work", json!({})).await;
    for name in ["x", "y"] {
        app.subscription("shop", name, json!({"queue": "work"}))
            .await;
    }
    let published = app.publish_topic("shop", json!({"body": 1})).await;
    assert_eq!(published["subscriptions"], 3);
    assert_eq!(app.counts("work").await["ready"], 1);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dedup_id_counts_within_the_topic() {
    let app = start().await;
    app.topic("other", json!({})).await;
    let message = json!({"body": 1, "dedup_id": "d", "routing_key": "eu"});
    let first = app.publish_topic("shop", message.clone()).await;
    let again = app.publish_topic("shop", message.clone()).await;
    assert_eq!(
        (&again["id"], &again["duplicate"]),
        (&first["id"], &json!(true))
    );
    assert_eq!(again["subscriptions"], 2);
    let elsewhere = app.publish_topic("other", message.clone()).await;
    assert_eq!(elsewhere["duplicate"], false);
    let in_queue = json!({"body": 1, "dedup_id": "d"});
    app.publish("shop.eu", in_queue).await;
    assert_eq!(app.counts("shop.eu").await["ready"], 2);
    assert_eq!(app.counts("shop.all").await["ready"], 1);

    // Twice in one request, and by many at once.
    let twice = json!({"messages": [{"body": 1, "dedup_id": "e"}, {"body": 2, "dedup_id": "e"}]});
    let answer = app.post("/v1/topics/shop/messages", twice).await;
    let messages = answer.expect(StatusCode::CREATED)["messages"].clone();
    assert_eq!(messages[0]["id"], messages[1]["id"]);
    assert_eq!(messages[1]["duplicate"], true);
    let other = app.another().await;
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..40 {
        let gateway = if n % 2 == 0 { &app.gateway } else { &other };
        let request = gateway.request(Method::POST, "/v1/topics/shop/messages");
        let body = json!({"body": n, "dedup_id": "f"}).to_string();
        publishes.spawn(Answer::of(
            request
                .header("content-type", "application/json")
                .body(body),
        ));
    }
    let mut ids: Vec<String> = publishes
        .join_all()
        .await
        .iter()
        .map(|a| a.expect(StatusCode::CREATED)["messages"][0]["id"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.counts("shop.all").await["ready"], 3);
    app.assert_conserved(&app.database, "shop.all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delay_and_time_to_live_are_the_messages_own_or_each_queues() {
    let app = App::start().await;
    app.topic("shop", json!({})).await;
    app.queue(
        "late",
        json!({"delay_seconds": 0.3, "message_ttl_seconds": 100}),
    )
    .await;
    for name in ["late", "now"] {
        let queue = if name == "late" {
            json!({"queue": "late"})
        } else {
            json!({})
        };
        app.subscription("shop", name, queue).await;
    }
    app.publish_topic("shop", json!({"body": "theirs"})).await;
    assert_eq!(app.counts("late").await["delayed"], 1);
    assert_eq!(app.counts("shop.now").await["ready"], 1);
    let began = std::time::Instant::now();
    assert_eq!(app.receive_one("late").await["body"], "theirs");
    assert!(began.elapsed().as_secs() < 2);
    app.receive_one("shop.now").await;

    let own = json!({"body": "own", "delay_seconds": 0.2, "ttl_seconds": 7});
    app.publish_topic("shop", own).await;
    let (late, now) = tokio::join!(app.counts("late"), app.counts("shop.now"));
    assert_eq!((&late["delayed"], &now["delayed"]), (&json!(1), &json!(1)));
    for queue in ["late", "shop.now"] {
        let message = app.receive_one(queue).await;
        assert_eq!(message["body"], "own");
        let path = format!(
            "/v1/queues/{queue}/messages/{}",
            message["id"].as_str().unwrap()
        );
        let stored = app.get(&path).await.json();
        let lives = crate::store::seconds_between(&stored["enqueued_at"], &stored["expires_at"]);
        assert!((7.1..7.4).contains(&lives), "{lives}");
    }
    let now = json!({"body": "now", "delay_seconds": 0});
    app.publish_topic("shop", now).await;
    assert_eq!(app.counts("late").await["ready"], 1);
    app.assert_conserved(&app.database, "late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_among_those_that_match_refuses_the_publish() {
    let app = start().await;
    app.queue("small", json!({"max_ready": 2})).await;
    app.queue(
        "rolling",
        json!({"max_ready": 2, "overflow": "drop_oldest"}),
    )
    .await;
    app.subscription("shop", "small", json!({"queue": "small"}))
        .await;
    app.subscription("shop", "rolling", json!({"queue": "rolling"}))
        .await;
    for n in 0..2 {
        app.publish_topic("shop", json!({"body": n})).await;
    }
    let full = app
        .post("/v1/topics/shop/messages", json!({"body": 2}))
        .await;
    let problem = full.expect_problem(429, "queue-full");
    assert!(
        problem["detail"].as_str().unwrap().contains("\"small\""),
        "{problem}"
    );
    assert_eq!(
        app.counts("shop.all").await["ready"],
        2,
        "nothing was stored"
    );
    // Unbounded at this gateway from now on, at once.
    app.patch("/v1/queues/small", json!({"max_ready": null}))
        .await
        .expect(StatusCode::OK);
    app.publish_topic("shop", json!({"body": 2})).await;
    let counts = app.counts("rolling").await;
    assert_eq!((&counts["ready"], &counts["dead"]), (&json!(2), &json!(1)));
    for queue in ["small", "rolling", "shop.all"] {
        app.assert_conserved(&app.database, queue).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_receivers_of_every_queue_wake_at_every_gateway() {
    let app = start().await;
    let other = app.another().await;
    let publish = async {
        eventually("both wait", async || {
            app.counts("shop.all").await["consumers"] == 1
                && other.counts("shop.eu").await["consumers"] == 1
        })
        .await;
        let began = std::time::Instant::now();
        app.publish_topic("shop", json!({"body": 1, "routing_key": "eu"}))
            .await;
        began
    };
    let (began, here, there) = tokio::join!(
        publish,
        app.receive_one("shop.all"),
        other.receive_one("shop.eu")
    );
    assert!(began.elapsed().as_millis() < 1500, "{:?}", began.elapsed());
    assert_eq!(here["id"], there["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_for_each_subscription_what_did_not_match() {
    let app = start().await;
    let path = "/v1/topics/shop/explain";
    let explained = app
        .post(path, json!({"body": 1, "routing_key": "us"}))
        .await;
    let explained = explained.expect(StatusCode::OK);
    let (all, eu) = (
        &explained["subscriptions"][0],
        &explained["subscriptions"][1],
    );
    assert_eq!(
        *all,
        json!({"subscription": "all", "queue": "shop.all", "matched": true, "mismatches": []})
    );
    assert_eq!(eu["matched"], false);
    assert_eq!(eu["mismatches"][0]["part"], "/routing_key");
    let explained = app
        .post(path, json!({"body": 1, "routing_key": "eu"}))
        .await
        .json();
    assert_eq!(explained["subscriptions"][1]["matched"], true);
    // Nothing was stored.
    assert_eq!(app.counts("shop.all").await["ready"], 0);
    app.post(path, json!({"messages": [{"body": 1}, {"body": 2}]}))
        .await
        .expect_problem(422, "invalid");
}
