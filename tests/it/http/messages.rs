//! `/v1/queues/{queue}/messages`: looking without taking, and taking out.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::counts::expect_counts;
use crate::support::{Answer, App, Gateway};

const MESSAGES: &str = "/v1/queues/orders/messages";

fn bodies(answer: &Answer) -> Vec<Value> {
    let list = answer.expect(StatusCode::OK);
    let messages = list["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| message["body"].clone())
        .collect()
}

/// Follows the pages' links to the end: the bodies of each page.
async fn pages(gateway: &Gateway, first: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let answer = gateway.get(&path).await;
        pages.push(bodies(&answer));
        let cursor = answer.json()["next_cursor"].clone();
        next = answer.headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            let link = link.strip_suffix(">; rel=\"next\"").unwrap();
            link.strip_prefix('<').unwrap().to_owned()
        });
        match &next {
            Some(link) => assert!(link.ends_with(cursor.as_str().unwrap()), "{link} {cursor}"),
            None => assert_eq!(cursor, Value::Null),
        }
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_messages_are_shown_in_the_order_they_will_be_received() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for (body, priority) in [(1, 0), (2, 9), (3, 0), (4, 5), (5, 9), (6, 0)] {
        app.publish("orders", json!({"body": body, "priority": priority}))
            .await;
    }
    let in_order = json!([2, 5, 4, 1, 3, 6]);
    for path in [MESSAGES.to_owned(), format!("{MESSAGES}?state=ready")] {
        assert_eq!(json!(bodies(&app.get(&path).await)), in_order);
    }
    for limit in 1..=7 {
        let pages = pages(&app, &format!("{MESSAGES}?limit={limit}")).await;
        assert_eq!(pages.len(), 6_usize.div_ceil(limit), "{limit}");
        assert_eq!(json!(pages.concat()), in_order, "{limit}");
    }

    // A page is not disturbed by what happens before it.
    let first = app
        .get(&format!("{MESSAGES}?limit=3"))
        .await
        .expect(StatusCode::OK);
    app.publish("orders", json!({"body": 7, "priority": 9}))
        .await;
    let taken = app.receive("orders", json!({"max_messages": 4})).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = app.get(&format!("{MESSAGES}?cursor={cursor}")).await;
    assert_eq!(json!(bodies(&rest)), json!([1, 3, 6]));

    let in_hand: Vec<&Value> = taken.iter().map(|message| &message["body"]).collect();
    assert_eq!(json!(in_hand), json!([2, 5, 7, 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn leased_and_delayed_messages_are_shown_in_the_order_their_time_ends() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for body in 1..=4 {
        app.publish("orders", json!({"body": body})).await;
    }
    for lease in [300, 100, 200] {
        app.receive("orders", json!({"lease_seconds": lease})).await;
    }
    for (body, delay) in [("c", 900), ("a", 700), ("b", 800)] {
        app.publish("orders", json!({"body": body, "delay_seconds": delay}))
            .await;
    }
    // Of one time: in the order of their ids.
    let at = "2199-01-01T00:00:00Z";
    let too_far = app
        .post(MESSAGES, json!({"body": 1, "deliver_at": at}))
        .await;
    too_far.expect_problem(422, "invalid");
    let same: Vec<Value> = (0..3)
        .map(|n| json!({"body": n, "delay_seconds": 950}))
        .collect();
    app.post(MESSAGES, json!({"messages": same}))
        .await
        .expect(StatusCode::CREATED);

    for limit in 1..=6 {
        for (state, expected) in [
            ("ready", json!([4])),
            ("leased", json!([2, 3, 1])),
            ("delayed", json!(["a", "b", "c", 0, 1, 2])),
        ] {
            let path = format!("{MESSAGES}?state={state}&limit={limit}");
            assert_eq!(
                json!(pages(&app, &path).await.concat()),
                expected,
                "{state} {limit}"
            );
        }
    }
    let leased = app.get(&format!("{MESSAGES}?state=leased")).await;
    let leased = leased.expect(StatusCode::OK)["messages"][0].clone();
    assert_eq!(
        (&leased["state"], &leased["attempts"]),
        (&json!("leased"), &json!(1))
    );
    assert!(leased["lease_expires_at"].is_string() && leased.get("ready_at").is_none());
    assert!(
        leased.get("receipt").is_none(),
        "only its consumer may settle it"
    );
    let delayed = app.get(&format!("{MESSAGES}?state=delayed")).await;
    let delayed = delayed.expect(StatusCode::OK)["messages"][0].clone();
    assert_eq!(
        (&delayed["state"], &delayed["attempts"]),
        (&json!("delayed"), &json!(0))
    );
    assert!(delayed["ready_at"].is_string() && delayed.get("lease_expires_at").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_good_for_the_list_that_gave_them_out_only() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for delay in [0, 0, 600, 600] {
        app.publish("orders", json!({"body": 1, "delay_seconds": delay}))
            .await;
    }
    let cursor = async |state: &str| {
        let list = app.get(&format!("{MESSAGES}?state={state}&limit=1")).await;
        list.expect(StatusCode::OK)["next_cursor"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (ready, delayed) = (cursor("ready").await, cursor("delayed").await);
    for path in [
        format!("{MESSAGES}?state=delayed&cursor={ready}"),
        format!("{MESSAGES}?cursor={delayed}"),
        format!("/v1/queues?cursor={ready}"),
        format!("/v1/queues/orders/dead-letters?cursor={ready}"),
        format!("{MESSAGES}?cursor="),
        format!("{MESSAGES}?cursor=cat"),
        format!("{MESSAGES}?cursor={}", &ready[1..]),
        "/v1/queues?cursor=%00".to_owned(),
    ] {
        app.get(&path).await.expect_problem(400, "invalid-cursor");
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "state=dead",
        "state=",
        "state=ready&state=ready",
        "colour=red",
    ] {
        app.get(&format!("{MESSAGES}?{query}"))
            .await
            .expect_problem(400, "invalid-query");
    }
    app.get("/v1/queues/nope/messages")
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_found_wherever_it_is_with_the_history_of_its_attempts() {
    let app = App::start().await;
    app.queue(
        "orders",
        json!({"max_attempts": 3, "backoff": {"initial_seconds": 0}}),
    )
    .await;
    app.queue("other", json!({})).await;
    let published = json!({
        "body": {"n": 1}, "headers": {"a": "b"}, "key": "k", "priority": 4,
        "correlation_id": "c", "reply_to": "r",
    });
    let id = app.publish("orders", published.clone()).await;
    let look = async || {
        let answer = app.get(&format!("{MESSAGES}/{id}")).await;
        answer.expect(StatusCode::OK)
    };
    let outcomes = |message: &Value| -> Vec<(Value, Value, Value)> {
        let history = message["history"].as_array().unwrap();
        history
            .iter()
            .map(|a| {
                (
                    a["attempt"].clone(),
                    a["outcome"].clone(),
                    a["error"].clone(),
                )
            })
            .collect()
    };
    let message = look().await;
    for field in [
        "body",
        "headers",
        "key",
        "priority",
        "correlation_id",
        "reply_to",
    ] {
        assert_eq!(message[field], published[field], "{field}");
    }
    assert_eq!(
        (&message["state"], &message["attempts"]),
        (&json!("ready"), &json!(0))
    );
    assert_eq!(message["history"], json!([]));

    let first = app.receive_one("orders").await;
    let message = look().await;
    assert_eq!(
        (&message["state"], &message["attempts"]),
        (&json!("leased"), &json!(1))
    );
    assert_eq!(
        outcomes(&message),
        [(json!(1), json!("running"), Value::Null)]
    );
    assert_eq!(message["history"][0]["ended_at"], Value::Null);
    assert_eq!(message["lease_expires_at"], first["lease_expires_at"]);

    let later = json!({"delay_seconds": 600, "reason": "shop is closed"});
    app.settle("nack", "orders", &[&first["receipt"]], later)
        .await
        .expect(StatusCode::OK);
    let message = look().await;
    assert_eq!(
        (&message["state"], &message["attempts"]),
        (&json!("delayed"), &json!(1))
    );
    let nacked = (json!(1), json!("nacked"), json!("shop is closed"));
    assert_eq!(outcomes(&message), std::slice::from_ref(&nacked));
    assert!(message["history"][0]["ended_at"].is_string());

    // The wait is over, and the next lease runs out.
    let mut database = app.database.connect().await;
    sqlx::query("UPDATE postrider.parked SET wake_at = now()")
        .execute(&mut database)
        .await
        .unwrap();
    app.receive("orders", json!({"wait_seconds": 20, "lease_seconds": 0.05}))
        .await;
    let third = app.receive_one("orders").await;
    assert_eq!((&third["id"], &third["attempt"]), (&json!(id), &json!(3)));
    let expired = (json!(2), json!("lease-expired"), Value::Null);
    let running = (json!(3), json!("running"), Value::Null);
    assert_eq!(
        outcomes(&look().await),
        [nacked.clone(), expired.clone(), running]
    );

    let rejected = json!({"dead_letter": true, "reason": "poison"});
    app.settle("nack", "orders", &[&third["receipt"]], rejected)
        .await
        .expect(StatusCode::OK);
    let message = look().await;
    assert_eq!(
        (&message["state"], &message["attempts"]),
        (&json!("dead"), &json!(3))
    );
    let rejected = (json!(3), json!("rejected"), json!("poison"));
    assert_eq!(outcomes(&message), [nacked, expired, rejected]);
    assert_eq!(message["body"], published["body"]);

    app.get(&format!("/v1/queues/other/messages/{id}"))
        .await
        .expect_problem(404, "message-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_taken_out_wherever_it_is() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("other", json!({})).await;
    let dead = app
        .publish("orders", json!({"body": "dead", "priority": 9}))
        .await;
    let taken = app.receive_one("orders").await;
    app.settle(
        "nack",
        "orders",
        &[&taken["receipt"]],
        json!({"dead_letter": true}),
    )
    .await
    .expect(StatusCode::OK);
    let back = app
        .publish("orders", json!({"body": "back", "priority": 9}))
        .await;
    let taken = app.receive_one("orders").await;
    app.settle(
        "nack",
        "orders",
        &[&taken["receipt"]],
        json!({"delay_seconds": 0}),
    )
    .await
    .expect(StatusCode::OK);
    let leased = app
        .publish("orders", json!({"body": "leased", "priority": 9}))
        .await;
    // `back` came back, so it is in front.
    let lease = app.receive("orders", json!({"max_messages": 2})).await;
    assert_eq!(lease.len(), 2);
    let lease = lease
        .into_iter()
        .find(|m| m["id"] == leased.as_str())
        .unwrap();
    let back_again = app
        .get(&format!("{MESSAGES}/{back}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(back_again["state"], "leased");
    let ready = app.publish("orders", json!({"body": "ready"})).await;
    let delayed = app
        .publish("orders", json!({"body": "later", "delay_seconds": 600}))
        .await;
    let stays = app.publish("orders", json!({"body": "stays"})).await;

    for id in [dead, back, leased, ready, delayed] {
        let path = format!("{MESSAGES}/{id}");
        app.delete(&format!("/v1/queues/other/messages/{id}"))
            .await
            .expect_problem(404, "message-not-found");
        let answer = app.delete(&path).await;
        assert_eq!(answer.expect(StatusCode::NO_CONTENT), Value::Null);
        app.delete(&path)
            .await
            .expect_problem(404, "message-not-found");
        app.get(&path)
            .await
            .expect_problem(404, "message-not-found");
    }
    // Its consumer does not mind.
    app.settle("ack", "orders", &[&lease["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    let left = json!({"ready": 1, "leased": 0, "delayed": 0, "dead": 0});
    expect_counts(&app, "orders", &left).await;
    app.assert_conserved(&app.database, "orders").await;
    assert_eq!(app.receive_one("orders").await["id"], stays.as_str());
    app.delete("/v1/queues/nope/messages/msg_0000000000001")
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_came_back_to_ready_is_found_and_taken_out() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let taken = app.receive_one("orders").await;
    app.settle(
        "nack",
        "orders",
        &[&taken["receipt"]],
        json!({"delay_seconds": 0}),
    )
    .await
    .expect(StatusCode::OK);
    let path = format!("{MESSAGES}/{id}");
    let message = app.get(&path).await.expect(StatusCode::OK);
    assert_eq!(
        (&message["state"], &message["attempts"]),
        (&json!("ready"), &json!(1))
    );
    app.delete(&path).await.expect(StatusCode::NO_CONTENT);
    assert!(app.receive("orders", json!({})).await.is_empty());
    app.assert_conserved(&app.database, "orders").await;
}
