//! Messages that are leased as they are stored, to receivers that wait.

use postrider::domain::Message;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::publishes::{self, publishing};
use super::receivers::{bodies, in_line, start};
use crate::store::{execute, queue_id, seconds_between};
use crate::support::{App, Database, Gateway, Held, eventually, message};

/// The body that ends a receiver.
const END: usize = 1_000_000;

/// Waits until so many receivers know that nothing is ready.
async fn all_rest(gateway: &Gateway, queue: i64, count: usize) {
    eventually("all rest", async || {
        gateway.app.broker().at_rest(queue) == count
    })
    .await;
}

/// Does this before each row that is put into a table.
async fn on_insert(database: &Database, table: &str, does: &str) {
    let function = format!(
        "CREATE FUNCTION does() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN {does} RETURN NEW; END $$"
    );
    let trigger = format!(
        "CREATE TRIGGER does BEFORE INSERT ON postrider.{table}
         FOR EACH ROW EXECUTE FUNCTION does()"
    );
    for statement in [function, trigger] {
        execute(database, statement).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_has_the_message_by_the_statement_that_stores_it() {
    let (database, wire, gateway) = start().await;
    gateway.queue("work", json!({})).await;
    let queue = queue_id(&database, "work").await;
    let line = [
        in_line(&gateway, queue, 2).await,
        in_line(&gateway, queue, 1).await,
    ];
    all_rest(&gateway, queue, 2).await;
    let (claims, publishes) = (wire.count("claim"), wire.count("publish"));
    let messages: Vec<Value> = (0..4).map(|n| json!({"body": n})).collect();
    gateway
        .post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let [first, second] = line;
    assert_eq!(bodies(first.await), [0, 1]);
    assert_eq!(bodies(second.await), [2]);
    assert_eq!(wire.count("publish") - publishes, 1);
    assert_eq!(wire.count("claim") - claims, 0);
    let counts = gateway.counts("work").await;
    assert_eq!(
        (&counts["leased"], &counts["ready"]),
        (&json!(3), &json!(1))
    );
    gateway.assert_conserved(&database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_message_that_a_claim_brings() {
    let app = App::start().await;
    app.queue("work", json!({"lease_seconds": 120})).await;
    let queue = queue_id(&app.database, "work").await;
    let message = json!({
        "body": {"order": 42, "note": "\u{0}"}, "headers": {"tenant": "acme", "a": "b"},
        "key": "customer-7", "priority": 3, "correlation_id": "c-1", "reply_to": "answers",
        "ttl_seconds": 3600,
    });
    let bytes = json!({"body_base64": "AP8=", "content_type": "image/png"});
    for message in [message, bytes] {
        let id = app.publish("work", message.clone()).await;
        let claimed = app.receive_one("work").await;
        assert_eq!(claimed["id"], id);
        let (handed_over, id) = tokio::join!(app.receive_one("work"), async {
            all_rest(&app, queue, 1).await;
            app.publish("work", message).await
        });
        assert_eq!(handed_over["id"], id);
        let lease = seconds_between(
            &handed_over["enqueued_at"],
            &handed_over["lease_expires_at"],
        );
        assert!((lease - 120.0).abs() < 0.001, "{lease}");

        let history = app.get(&format!("/v1/queues/work/messages/{id}")).await;
        let stored = history.expect(StatusCode::OK);
        for field in ["enqueued_at", "lease_expires_at"] {
            assert_eq!(stored[field], handed_over[field], "{field}");
        }
        let same = |message: &Value| {
            let mut fields = message.as_object().unwrap().clone();
            fields.retain(|name, _| {
                !["id", "receipt", "enqueued_at", "lease_expires_at"].contains(&&**name)
            });
            fields
        };
        assert_eq!(same(&handed_over), same(&claimed));
        for received in [&claimed, &handed_over] {
            app.settle("ack", "work", &[&received["receipt"]], json!({}))
                .await
                .expect(StatusCode::OK);
        }
    }
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_handed_over_ends_as_any_other() {
    let app = App::start().await;
    app.queue(
        "work",
        json!({"lease_seconds": 0.2, "backoff": {"initial_seconds": 0}}),
    )
    .await;
    let queue = queue_id(&app.database, "work").await;
    let (first, _) = tokio::join!(app.receive_one("work"), async {
        all_rest(&app, queue, 1).await;
        app.publish("work", json!({"body": 1})).await
    });
    assert_eq!(first["attempt"], 1);
    // Nobody settles it.
    let second = app.receive_one("work").await;
    assert_eq!(
        (&second["id"], &second["attempt"]),
        (&first["id"], &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_of_a_publish_goes_to_who_waits_longest() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let line = [in_line(&app, queue, 1).await, in_line(&app, queue, 2).await];
    all_rest(&app, queue, 2).await;
    let messages: Vec<Value> = [(0, 0), (1, 9), (2, 5), (3, 5)]
        .map(|(body, priority)| json!({"body": body, "priority": priority}))
        .into();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
    let [first, second] = line;
    assert_eq!(bodies(first.await), [1]);
    assert_eq!(bodies(second.await), [2, 3]);
    assert_eq!(app.receive_one("work").await["body"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_before_comes_before() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    let waits = "IF NEW.priority = 9 THEN PERFORM pg_advisory_xact_lock(4711); END IF;";
    on_insert(&app.database, "ready", waits).await;
    let held = Held::by(&app.database, "SELECT pg_advisory_xact_lock(4711)").await;
    let work = publishes::queue(&app, "work").await;
    let first = Message {
        priority: 9,
        ..message("1")
    };
    let first = publishing(&app, &work, vec![first]).await;
    app.database.until_stuck("-- publish", 1).await;
    // It comes when the first one cannot be seen yet.
    let receiver = in_line(&app, queue, 1).await;
    all_rest(&app, queue, 1).await;
    let second = publishing(&app, &work, vec![message("2")]).await;
    held.let_go().await;
    assert_eq!(bodies(receiver.await), [1]);
    for published in [first, second] {
        published.await.unwrap().unwrap();
    }
    assert_eq!(app.receive_one("work").await["body"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_received_yet_is_not_handed_over() {
    let app = App::start().await;
    for (name, settings, message) in [
        ("delayed", json!({}), json!({"delay_seconds": 0.3})),
        ("delaying", json!({"delay_seconds": 0.3}), json!({})),
        ("deduplicated", json!({}), json!({"dedup_id": "a"})),
        ("bounded", json!({"max_in_flight": 1}), json!({})),
        ("ordered", json!({"ordered": true}), json!({})),
        ("fair", json!({"fair": true}), json!({})),
        (
            "said_to_be_fair",
            json!({}),
            json!({"fair": true, "key": "a"}),
        ),
        ("keyed", json!({"ordered": true}), json!({"key": "a"})),
    ] {
        app.queue(name, settings).await;
        let queue = queue_id(&app.database, name).await;
        let mut message = message;
        message["body"] = json!(name);
        let receive = app.receive_one(name);
        let publish = async {
            all_rest(&app, queue, 1).await;
            app.publish(name, message).await
        };
        let (received, id) = tokio::join!(receive, publish);
        assert_eq!(received["id"], id, "{name}");
        let waited = seconds_between(&received["enqueued_at"], &received["lease_expires_at"])
            - app.get(&format!("/v1/queues/{name}")).await.json()["lease_seconds"]
                .as_f64()
                .unwrap();
        let least = if name.starts_with("delay") {
            0.3
        } else {
            0.000_001
        };
        assert!(waited >= least, "{name}: {waited}");
        app.assert_conserved(&app.database, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_while_it_is_stored_gives_it_back_untried() {
    let app = App::start().await;
    app.queue("work", json!({"max_attempts": 1})).await;
    let queue = queue_id(&app.database, "work").await;
    let leaves = in_line(&app, queue, 1).await;
    all_rest(&app, queue, 1).await;
    let held = Held::table(&app.database, "parked", "ACCESS EXCLUSIVE").await;
    let publish = app.publish("work", json!({"body": 7}));
    let goes = async {
        app.database.until_stuck("-- publish", 1).await;
        drop(leaves);
        held.let_go().await;
    };
    let (id, ()) = tokio::join!(publish, goes);
    let message = app.receive_one("work").await;
    assert_eq!(
        (&message["id"], &message["attempt"]),
        (&json!(id), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_refused_leaves_the_line_as_it_was() {
    let (database, wire, app) = start().await;
    app.queue("work", json!({"max_ready": 2})).await;
    let queue = queue_id(&database, "work").await;
    let mut line = Vec::new();
    for _ in 0..3 {
        line.push(in_line(&app, queue, 1).await);
    }
    all_rest(&app, queue, 3).await;
    let claims = wire.count("claim");
    let messages: Vec<Value> = (0..3).map(|n| json!({"body": n})).collect();
    app.post("/v1/queues/work/messages", json!({"messages": messages}))
        .await
        .expect_problem(429, "queue-full");
    all_rest(&app, queue, 3).await;
    // Nothing came meanwhile that they would have to look for.
    assert_eq!(wire.count("claim"), claims);
    for (body, receiver) in (10..13).zip(line) {
        app.publish("work", json!({"body": body})).await;
        assert_eq!(bodies(receiver.await), [body]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_fails_leaves_no_receiver_without_what_came_meanwhile() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({})).await;
    let queue = queue_id(&app.database, "work").await;
    // Who is handed over to waits for the lock; then nothing is stored.
    let fails = "IF NEW.token <> 0 AND current_query() LIKE '-- publish:%' THEN
                     PERFORM pg_advisory_xact_lock(4711);
                     RAISE 'as told';
                 END IF;";
    on_insert(&app.database, "parked", fails).await;
    let held = Held::by(&app.database, "SELECT pg_advisory_xact_lock(4711)").await;
    let receiver = in_line(&app, queue, 5).await;
    all_rest(&app, queue, 1).await;
    let fails = app.post("/v1/queues/work/messages", json!({"body": 1}));
    let meanwhile = async {
        app.database.until_stuck("-- publish", 1).await;
        // Its hint comes while nobody is in line.
        other.publish("work", json!({"body": 2})).await;
        eventually("it is ready", async || {
            app.counts("work").await["ready"] == 1
        })
        .await;
        held.let_go().await;
    };
    let (failed, ()) = tokio::join!(fails, meanwhile);
    failed.expect_problem(500, "internal");
    assert_eq!(bodies(receiver.await), [2]);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_full_speed_each_message_has_one_receiver_at_two_gateways() {
    const EACH: usize = 150;
    let app = App::start().await;
    let other = app.another().await;
    app.queue("work", json!({"lease_seconds": 600})).await;
    let queue = queue_id(&app.database, "work").await;
    let publishing = async |gateway: &Gateway, from: usize| {
        for body in from..from + EACH {
            gateway.publish("work", json!({"body": body})).await;
        }
    };
    let receiving = async |gateway: &Gateway| {
        let mut seen = Vec::new();
        while !seen.contains(&END) {
            seen.extend(bodies(in_line(gateway, queue, 1).await.await));
        }
        seen
    };
    let publishes = async {
        tokio::join!(publishing(&app, 0), publishing(&other, EACH));
        eventually("all are received", async || {
            app.counts("work").await["ready"] == 0
        })
        .await;
        for gateway in [&app.gateway, &other] {
            all_rest(gateway, queue, 2).await;
            for _ in 0..2 {
                gateway.publish("work", json!({"body": END})).await;
            }
        }
    };
    let ((), a, b, c, d) = tokio::join!(
        publishes,
        receiving(&app),
        receiving(&app),
        receiving(&other),
        receiving(&other),
    );
    let mut seen = [a, b, c, d].concat();
    seen.retain(|body| *body != END);
    seen.sort_unstable();
    assert_eq!(seen, (0..2 * EACH).collect::<Vec<_>>());
    app.assert_conserved(&app.database, "work").await;
}
