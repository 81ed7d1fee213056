//! Ticks of schedules: each has its message, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::store::{execute, seconds_between, time};
use crate::support::{App, Deadline, eventually};

const EVERY_SECOND: &str = "* * * * * *";

async fn schedule(app: &App, name: &str, settings: Value) -> Value {
    app.put(&format!("/v1/schedules/{name}"), settings)
        .await
        .expect(StatusCode::CREATED)
}

async fn get(app: &App, name: &str) -> Value {
    app.get(&format!("/v1/schedules/{name}"))
        .await
        .expect(StatusCode::OK)
}

/// The tick that a message is for.
fn tick(message: &Value) -> (String, i64) {
    let headers = &message["headers"];
    (
        headers["postrider-schedule"].as_str().unwrap().to_owned(),
        time(&headers["postrider-scheduled-at"]).timestamp(),
    )
}

/// Receives and acks until each of so many schedules has so many ticks; panics if
/// one comes twice or is left out.
async fn ticks(app: &App, schedules: usize, each: usize) {
    let mut got: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    let deadline = Deadline::start();
    while got.len() < schedules || got.values().any(|ticks| ticks.len() < each) {
        deadline.check(|| format!("{each} ticks of each of {schedules} ought to come: {got:?}"));
        let answer = app
            .post(
                "/v1/queues/q/receive",
                json!({"max_messages": 100, "wait_seconds": 20}),
            )
            .await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            continue;
        }
        for message in answer.expect(StatusCode::OK)["messages"]
            .as_array()
            .unwrap()
        {
            let (schedule, tick) = tick(message);
            let is_new = got.entry(schedule.clone()).or_default().insert(tick);
            assert!(
                is_new || message["attempt"] != 1,
                "{schedule} at {tick} came twice"
            );
        }
    }
    for (schedule, ticks) in got {
        let (first, last) = (ticks.first().unwrap(), ticks.last().unwrap());
        let span = usize::try_from(last - first).unwrap() + 1;
        assert_eq!(span, ticks.len(), "{schedule} left some out: {ticks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_publish_each_of_two_hundred_ticks_once() {
    let app = App::start().await;
    let _other = app.another().await;
    app.queue("q", json!({"lease_seconds": 600})).await;
    for n in 0..20 {
        let settings = json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": n}});
        schedule(&app, &format!("s{n}"), settings).await;
    }
    ticks(&app, 20, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_neither_lose_nor_double_a_tick() {
    let app = App::start().await;
    let _other = app.another().await;
    app.queue("q", json!({"lease_seconds": 600})).await;
    for n in 0..5 {
        let settings = json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": n}});
        schedule(&app, &format!("s{n}"), settings).await;
    }
    let done = AtomicBool::new(false);
    let killer = async {
        while !done.load(Ordering::Relaxed) {
            execute(
                &app.database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'postrider'
                   AND query ~ 'schedules|parked|COMMIT|BEGIN'",
            )
            .await;
            tokio::time::sleep(Duration::from_millis(90)).await;
        }
    };
    let counting = async {
        ticks(&app, 5, 8).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(killer, counting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_comes_at_its_time() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let settings = json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": 1}});
    schedule(&app, "s", settings).await;
    let mut best = f64::MAX;
    for _ in 0..3 {
        let message = app.receive_one("q").await;
        let at = &message["headers"]["postrider-scheduled-at"];
        best = best.min(seconds_between(at, &message["enqueued_at"]));
    }
    assert!((0.0..0.2).contains(&best), "{best}");
    let last = get(&app, "s").await;
    assert!(time(&last["last_run"]) < time(&last["next_run"]), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_one_gateway_counts_at_once_and_a_pause_stops_it() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue("q", json!({})).await;
    let settings = json!({"cron": "0 0 1 1 *", "queue": "q", "message": {"body": 1}});
    let made = schedule(&app, "s", settings).await;
    assert!(
        time(&made["next_run"])
            .to_rfc3339()
            .contains("-01-01T00:00:00")
    );
    other
        .patch("/v1/schedules/s", json!({"cron": EVERY_SECOND}))
        .await
        .expect(StatusCode::OK);
    app.receive_one("q").await;
    let paused = other
        .post("/v1/schedules/s/pause", "")
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        (&paused["paused"], &paused["next_run"]),
        (&json!(true), &Value::Null)
    );
    app.post("/v1/queues/q/purge", json!({}))
        .await
        .expect(StatusCode::OK);
    // Two seconds and more: no tick comes of it.
    let waited = app.receive("q", json!({"wait_seconds": 2.2})).await;
    assert_eq!(waited, Vec::<Value>::new());
    let resumed = app
        .post("/v1/schedules/s/resume", "")
        .await
        .expect(StatusCode::OK);
    assert_eq!(resumed["paused"], false);
    let message = app.receive_one("q").await;
    assert_eq!(
        message["headers"]["postrider-scheduled-at"]
            .as_str()
            .map(|t| time(&json!(t))),
        Some(time(&resumed["next_run"])),
        "those of the pause are not made up for"
    );
    app.delete("/v1/schedules/s")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.post("/v1/queues/q/purge", json!({}))
        .await
        .expect(StatusCode::OK);
    let waited = app.receive("q", json!({"wait_seconds": 1.2})).await;
    assert_eq!(waited, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_policy_says_what_comes() {
    let app = App::start().await;
    for catch_up in ["one", "none", "all"] {
        app.queue(catch_up, json!({})).await;
        let settings = json!({"cron": "@hourly", "queue": catch_up, "catch_up": catch_up,
            "message": {"body": 1}});
        schedule(&app, catch_up, settings).await;
    }
    // As if nobody had been there for five hours and a half.
    execute(
        &app.database,
        "UPDATE postrider.schedules SET next_run = next_run - interval '6 hours'",
    )
    .await;
    eventually("all have moved on", async || {
        let mut on = 0;
        for catch_up in ["one", "none", "all"] {
            let schedule = get(&app, catch_up).await;
            on += usize::from(time(&schedule["next_run"]) > time(&schedule["updated_at"]));
        }
        on == 3
    })
    .await;
    let mut got = BTreeMap::new();
    for catch_up in ["one", "none", "all"] {
        let messages = app.receive(catch_up, json!({"max_messages": 100})).await;
        got.insert(
            catch_up,
            messages.iter().map(|m| tick(m).1).collect::<Vec<_>>(),
        );
    }
    let all = &got["all"];
    assert_eq!(all.len(), 6, "{got:?}");
    assert!(all.is_sorted_by(|a, b| b - a == 3600), "{got:?}");
    assert_eq!(got["one"], all[5..]);
    assert_eq!(got["none"], Vec::<i64>::new());
    assert_eq!(get(&app, "none").await["last_run"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_cannot_be_published_is_told_and_stops_nobody() {
    let app = App::start().await;
    for queue in ["gone", "small", "q"] {
        app.queue(queue, json!({})).await;
    }
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({"filter": {"routing_key": "a.*"}}))
        .await;
    app.put(
        "/v1/topics/system.events/subscriptions/alerts",
        json!({"filter": {"routing_key": "schedule.failed"}}),
    )
    .await
    .expect(StatusCode::CREATED);
    app.queue("full", json!({"max_ready": 1})).await;
    app.publish("full", json!({"body": 0})).await;
    let message = json!({"body": "x".repeat(20)});
    for (name, target) in [
        ("a-gone", "gone"),
        ("b-small", "small"),
        ("c-full", "full"),
        ("d-good", "q"),
    ] {
        let settings = json!({"cron": EVERY_SECOND, "queue": target, "message": message});
        schedule(&app, name, settings).await;
    }
    let settings = json!({"cron": EVERY_SECOND, "topic": "t",
        "message": {"body_base64": "AAE=", "routing_key": "a.b", "key": "k", "headers": {"x": "y"}}});
    schedule(&app, "e-topic", settings).await;
    app.delete("/v1/queues/gone")
        .await
        .expect(StatusCode::NO_CONTENT);
    app.patch("/v1/queues/small", json!({"max_message_bytes": 10}))
        .await
        .expect(StatusCode::OK);
    let code = async |name| get(&app, name).await["last_error"]["code"].clone();
    eventually("they fail", async || {
        [
            code("a-gone").await,
            code("b-small").await,
            code("c-full").await,
        ] == [
            json!("queue-not-found"),
            json!("message-too-large"),
            json!("queue-full"),
        ]
    })
    .await;
    app.receive_one("q").await;
    let routed = app.receive_one("t.s").await;
    assert_eq!(
        [
            &routed["body_base64"],
            &routed["routing_key"],
            &routed["key"],
            &routed["headers"]["x"]
        ],
        [&json!("AAE="), &json!("a.b"), &json!("k"), &json!("y")]
    );
    assert_eq!(code("d-good").await, Value::Null);
    let event = app.receive_one("system.events.alerts").await["body"].clone();
    assert_eq!(event["event"], "schedule.failed");
    // The queue is there again: the next tick is well.
    app.queue("gone", json!({})).await;
    app.receive_one("gone").await;
    eventually("the error is over", async || code("a-gone").await.is_null()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_database_will_not_store_stops_no_other_schedule() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    execute(
        &app.database,
        "ALTER TABLE postrider.messages
            ADD CONSTRAINT no_thirteen CHECK (key IS DISTINCT FROM '13') NOT VALID",
    )
    .await;
    for key in ["12", "13", "14"] {
        let settings =
            json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": 1, "key": key}});
        schedule(&app, &format!("s{key}"), settings).await;
    }
    let mut keys = BTreeSet::new();
    let deadline = Deadline::start();
    while keys.len() < 2 {
        deadline.check(|| format!("12 and 14 ought to come: {keys:?}"));
        keys.insert(app.receive_one("q").await["key"].to_string());
    }
    eventually("it is told", async || {
        get(&app, "s13").await["last_error"]["code"] == "internal"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_are_checked_by_the_schema_of_their_target_and_carry_its_version() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let put = async |schema: Value| {
        let schema = json!({"schema": schema, "compatibility": "none"});
        let put = app.put("/v1/queues/q/schema", schema).await;
        assert!(put.status.is_success(), "{}", put.text);
    };
    put(json!({"type": "object"})).await;
    let settings =
        |body: Value| json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": body}});
    let refused = app.put("/v1/schedules/s", settings(json!(1))).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["code"], "schema-violation");
    assert_eq!(refused["errors"][0]["pointer"], "/message/body");
    schedule(&app, "s", settings(json!({}))).await;
    assert_eq!(app.receive_one("q").await["schema_version"], 1);
    put(json!({"type": "object", "required": ["x"]})).await;
    eventually("it fails", async || {
        get(&app, "s").await["last_error"]["code"] == "schema-violation"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_to_an_ordered_queue_take_their_turns() {
    let app = App::start().await;
    app.queue("q", json!({"ordered": true})).await;
    let settings = json!({"cron": EVERY_SECOND, "queue": "q", "message": {"body": 1, "key": "a"}});
    schedule(&app, "s", settings).await;
    let first = app.receive_one("q").await;
    eventually("another tick was published", async || {
        let last = get(&app, "s").await["last_run"].clone();
        last.is_string()
            && seconds_between(&first["headers"]["postrider-scheduled-at"], &last) > 0.0
    })
    .await;
    let none = app.receive("q", json!({})).await;
    assert!(none.is_empty(), "{none:?}");
    app.settle("ack", "q", &[&first["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    let second = app.receive_one("q").await;
    assert!(tick(&second).1 > tick(&first).1);
}
