//! Ranges of settings, live counts, purge.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, Gateway, eventually};

/// Waits until the queue's counts are these: they may lag while they are folded.
pub(super) async fn expect_counts(gateway: &Gateway, queue: &str, expected: &Value) {
    eventually(&format!("{queue} has {expected}"), || async {
        let counts = gateway.counts(queue).await;
        let mut expected = expected.as_object().unwrap().iter();
        expected.all(|(name, value)| &counts[name] == value)
    })
    .await;
}

/// Of each setting: a pointer, the ends of its range, what lies outside.
pub(super) fn ranges() -> [(&'static str, Value, Value); 20] {
    const YEAR: i64 = 365 * 86_400;
    [
        (
            "/lease_seconds",
            json!([0.001, 43_200]),
            json!([-1, 0, 0.0001, 43_200.001, 1e300]),
        ),
        (
            "/max_attempts",
            json!([1, 1000]),
            json!([-1, 0, 1.5, 1001, 1e300, "5", null]),
        ),
        (
            "/message_ttl_seconds",
            json!([0.001, YEAR]),
            json!([-1, 0, YEAR + 1, 1e300, true]),
        ),
        (
            "/delay_seconds",
            json!([0, YEAR]),
            json!([-0.001, YEAR + 1, 1e300, "1"]),
        ),
        (
            "/max_ready",
            json!([1, i64::MAX, null]),
            json!([-1, 0, 1.5, u64::MAX, 1e300]),
        ),
        (
            "/overflow",
            json!(["reject", "drop_oldest"]),
            json!(["drop-oldest", "", 1, null]),
        ),
        (
            "/max_message_bytes",
            json!([1, 8_388_608]),
            json!([-1, 0, 0.5, 8_388_609, 1e300]),
        ),
        (
            "/dedup_window_seconds",
            json!([0.001, 604_800]),
            json!([-1, 0, 604_800.001, 1e300]),
        ),
        (
            "/backoff",
            json!([{}]),
            json!([5, [], [5, 2, 3600, 0.2], "exponential", null]),
        ),
        (
            "/backoff/initial_seconds",
            json!([0, 3600]),
            json!([-1, 3600.001, 1e300]),
        ),
        (
            "/backoff/multiplier",
            json!([1, 1.5, 100]),
            json!([-1, 0, 0.99, 100.01, 1e300]),
        ),
        (
            "/backoff/max_seconds",
            json!([5, YEAR]),
            json!([-1, YEAR + 1, 1e300]),
        ),
        (
            "/backoff/jitter",
            json!([0, 0.5, 1]),
            json!([-0.1, 1.01, 1e300]),
        ),
        ("/dead_letter", json!([{}]), json!([true, [], null])),
        (
            "/dead_letter/enabled",
            json!([true, false]),
            json!([0, "true", null]),
        ),
        (
            "/dead_letter/keep_expired",
            json!([true, false]),
            json!([0, "true", null]),
        ),
        (
            "/dead_letter/retention_seconds",
            json!([0.001, YEAR]),
            json!([-1, 0, YEAR + 1]),
        ),
        ("/dead_letter/retry", json!([{}]), json!([1, [], null])),
        (
            "/dead_letter/retry/every_seconds",
            json!([1, YEAR]),
            json!([-1, 0, 0.999, YEAR + 1]),
        ),
        (
            "/dead_letter/retry/max_rounds",
            json!([0, 1000]),
            json!([-1, 1001, 0.5, 1e300]),
        ),
    ]
}

/// And of those that say how much and how fast.
pub(super) fn ranges_of_limits() -> [(&'static str, Value, Value); 5] {
    [
        (
            "/max_in_flight",
            json!([1, 1_000_000, null]),
            json!([-1, 0, 1.5, 1_000_001, 1e300, "1"]),
        ),
        (
            "/rate_limit",
            json!([null, {}]),
            json!([1, "fast", [], [1, 2, 3]]),
        ),
        (
            "/rate_limit/publish_per_second",
            json!([0.01, 1_000_000]),
            json!([-1, 0, 0.009, 1_000_000.5, 1e300, "1"]),
        ),
        (
            "/rate_limit/receive_per_second",
            json!([0.01, 1_000_000]),
            json!([-1, 0, 0.009, 1_000_000.5, 1e300, "1"]),
        ),
        (
            "/rate_limit/burst",
            json!([1, 1_000_000]),
            json!([-1, 0, 1.5, 1_000_001, 1e300]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_has_a_range_and_its_ends_are_in_it() {
    let app = App::start().await;
    for (pointer, inside, outside) in ranges().into_iter().chain(ranges_of_limits()) {
        let names: Vec<&str> = pointer[1..].split('/').collect();
        let settings = |value: &Value| {
            names
                .iter()
                .rev()
                .fold(value.clone(), |inner, name| json!({*name: inner}))
        };
        for value in inside.as_array().unwrap() {
            let put = app.put("/v1/queues/good", settings(value)).await;
            assert!(put.status.is_success(), "{pointer} {value}: {put:?}");
            let shown = put.json().pointer(pointer).unwrap().clone();
            let same = value.is_object() || shown == *value || shown.as_f64() == value.as_f64();
            assert!(same, "{pointer} {value}: {shown}");
        }
        for value in outside.as_array().unwrap() {
            let put = app.put("/v1/queues/bad", settings(value)).await;
            let problem = put.expect_problem(422, "invalid");
            let at = |part: &Value| part["pointer"] == pointer;
            assert!(
                problem["errors"].as_array().unwrap().iter().any(at),
                "{pointer} {value}: {problem}"
            );
        }
    }
    app.get("/v1/queues/bad")
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_later_versions_are_unknown_and_said_so_by_name() {
    let app = App::start().await;
    app.queue("there", json!({})).await;
    for (field, value) in [("schema", json!({})), ("name", json!("there"))] {
        for answer in [
            app.put("/v1/queues/new", json!({field: value})).await,
            app.put("/v1/queues/there", json!({field: value})).await,
            app.patch("/v1/queues/there", json!({field: value})).await,
        ] {
            let problem = answer.expect_problem(422, "invalid");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(field), "{detail}");
            assert_eq!(problem["errors"][0]["pointer"], format!("/{field}"));
        }
    }
    app.get("/v1/queues/new")
        .await
        .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_settings_that_are_wrong_are_named_at_once() {
    let app = App::start().await;
    let settings = json!({"lease_seconds": 0, "max_attempts": 0, "backoff": {"jitter": 2}});
    let put = app.put("/v1/queues/bad", settings).await;
    let problem = put.expect_problem(422, "invalid");
    let errors = problem["errors"].as_array().unwrap();
    let mut pointers: Vec<_> = errors
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        ["/backoff/jitter", "/lease_seconds", "/max_attempts"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_with_system_are_the_gateways() {
    let app = App::start().await;
    let put = app.put("/v1/queues/system.events", "{}").await;
    let problem = put.expect_problem(422, "invalid");
    assert!(problem["detail"].as_str().unwrap().contains("system."));
    for name in ["system", "systems.x", "System.x"] {
        app.queue(name, json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_tell_where_messages_are_and_since_when() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let empty = app.counts("orders").await;
    assert_eq!(empty["oldest_ready_age_seconds"], Value::Null);
    for count in ["ready", "leased", "delayed", "dead", "consumers"] {
        assert_eq!(empty[count], 0, "{count}");
    }

    for n in 0..5 {
        app.publish("orders", json!({"body": n})).await;
    }
    app.publish("orders", json!({"body": "later", "delay_seconds": 600}))
        .await;
    let first = app.receive("orders", json!({"max_messages": 2})).await;
    let second = app.receive("orders", json!({})).await;
    assert_eq!((first.len(), second.len()), (2, 1));
    let rejected = json!({"dead_letter": true});
    app.settle("nack", "orders", &[&second[0]["receipt"]], rejected)
        .await
        .expect(StatusCode::OK);
    let expected = json!({"ready": 2, "leased": 2, "delayed": 1, "dead": 1, "consumers": 1});
    expect_counts(&app, "orders", &expected).await;

    let counts = app.counts("orders").await;
    let age = counts["oldest_ready_age_seconds"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
    // By the database's clock, the only one.
    let (now,): (chrono::DateTime<chrono::Utc>,) = sqlx::query_as("SELECT now()")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    let counted_at: chrono::DateTime<chrono::Utc> =
        counts["counted_at"].as_str().unwrap().parse().unwrap();
    let lag = now.signed_duration_since(counted_at).num_milliseconds();
    assert!((0..5000).contains(&lag), "{lag}");
    app.assert_conserved(&app.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_wait_are_consumers_on_whichever_gateway() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("orders", json!({})).await;
    let wait = json!({"wait_seconds": 60});
    let publish_when_both_are_seen = async {
        expect_counts(&app, "orders", &json!({"consumers": 2})).await;
        expect_counts(&other, "orders", &json!({"consumers": 2})).await;
        app.publish("orders", json!({"body": 1})).await;
        other.publish("orders", json!({"body": 2})).await;
    };
    let (here, there, ()) = tokio::join!(
        app.receive("orders", wait.clone()),
        other.receive("orders", wait.clone()),
        publish_when_both_are_seen,
    );
    assert_eq!((here.len(), there.len()), (1, 1));
    // Now they hold leases.
    expect_counts(&app, "orders", &json!({"consumers": 2, "leased": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_what_is_in_the_queue_and_dead_letters_only_if_told() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("other", json!({})).await;
    app.publish("other", json!({"body": 1})).await;
    for n in 0..6 {
        app.publish("orders", json!({"body": n, "priority": n}))
            .await;
    }
    app.publish("orders", json!({"body": "later", "delay_seconds": 600}))
        .await;
    let taken = app.receive("orders", json!({"max_messages": 2})).await;
    let rejected = json!({"dead_letter": true});
    app.settle("nack", "orders", &[&taken[0]["receipt"]], rejected)
        .await
        .expect(StatusCode::OK);

    // Neither a body nor its content type is needed.
    let request = app.request(reqwest::Method::POST, "/v1/queues/orders/purge");
    let purged = crate::support::Answer::of(request).await;
    assert_eq!(
        purged.expect(StatusCode::OK),
        json!({"messages": 6, "dead_letters": 0})
    );
    let nothing = json!({"ready": 0, "leased": 0, "delayed": 0, "dead": 1});
    expect_counts(&app, "orders", &nothing).await;
    // The consumer does not mind.
    app.settle("ack", "orders", &[&taken[1]["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);

    app.publish("orders", json!({"body": "new"})).await;
    let all = app.post("/v1/queues/orders/purge", json!({"dead_letters": true}));
    assert_eq!(
        all.await.expect(StatusCode::OK),
        json!({"messages": 1, "dead_letters": 1})
    );
    expect_counts(&app, "orders", &json!({"ready": 0, "dead": 0})).await;
    expect_counts(&app, "other", &json!({"ready": 1})).await;
    app.assert_conserved(&app.database, "orders").await;
    app.post("/v1/queues/nope/purge", "{}")
        .await
        .expect_problem(404, "queue-not-found");
}
