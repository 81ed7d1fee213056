//! `max_in_flight`: how many messages of a queue are leased at a time.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::store::{execute, message_id, number, queue_id};
use crate::support::{App, Database, Gateway, Held, Wire, config, eventually, http_client};

/// Leases there are now.
const LEASED: &str = "SELECT count(*) FROM postrider.parked WHERE token <> 0";

/// Makes a queue of so many messages, at most `bound` of them leased.
async fn bounded(app: &App, bound: u32, messages: usize) {
    let settings = json!({"max_in_flight": bound, "lease_seconds": 600});
    app.queue("work", settings).await;
    fill(app, messages).await;
}

async fn fill(app: &App, messages: usize) {
    let messages: Vec<Value> = (0..messages).map(|n| json!({"body": n})).collect();
    for batch in messages.chunks(1000) {
        app.post("/v1/queues/work/messages", json!({"messages": batch}))
            .await
            .expect(StatusCode::CREATED);
    }
}

fn receipts(messages: &[Value]) -> Vec<&Value> {
    messages.iter().map(|message| &message["receipt"]).collect()
}

/// Looks at the leases again and again until told to stop; the most it has seen.
async fn most_leased(
    mut connection: PgConnection,
    stop: tokio::sync::oneshot::Receiver<()>,
) -> i64 {
    let mut stop = stop;
    let mut most = 0;
    while stop.try_recv().is_err() {
        let leased: i64 = sqlx::query_scalar(LEASED)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        most = most.max(leased);
    }
    most
}

/// Receives up to `wish` at once, and settles, until the queue has nothing more.
async fn work(url: String, wish: u32, verb: usize) -> usize {
    let client = http_client();
    let post = |path: &str, json: Value| {
        client
            .post(format!("{url}/v1/queues/work/{path}"))
            .header("content-type", "application/json")
            .body(json.to_string())
            .send()
    };
    let mut done = 0;
    loop {
        let request = json!({"max_messages": wish, "wait_seconds": 1});
        let answer = post("receive", request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let messages = answer["messages"].as_array().unwrap();
        if messages.is_empty() {
            return done;
        }
        let settle = json!({"receipts": receipts(messages)});
        let verb = if (done + verb).is_multiple_of(5) {
            "nack"
        } else {
            "ack"
        };
        let settled = post(verb, settle).await.unwrap();
        assert_eq!(settled.status(), StatusCode::OK);
        done += messages.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_gateways_that_claim_at_once_never_lease_more_than_the_bound() {
    let app = App::start().await;
    let other = app.another().await;
    app.queue(
        "work",
        json!({"max_in_flight": 5, "backoff": {"initial_seconds": 0}, "max_attempts": 1000}),
    )
    .await;
    fill(&app, 400).await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let mut watch = JoinSet::new();
    watch.spawn(most_leased(app.database.connect().await, stopped));
    let mut workers = JoinSet::new();
    for worker in 0..16 {
        let gateway: &Gateway = if worker % 2 == 0 { &app } else { &other };
        let wish = [1, 3, 10][worker % 3];
        workers.spawn(work(gateway.url(""), wish, worker));
    }
    let mut done = 0;
    while let Some(worked) = workers.join_next().await {
        done += worked.unwrap();
    }
    stop.send(()).unwrap();
    let most = watch.join_next().await.unwrap().unwrap();
    assert!(done >= 400, "{done} were settled");
    assert_eq!(number(&app.database, LEASED).await, 0);
    assert_eq!(most, 5, "leased at a time");
    app.assert_conserved(&app.database, "work").await;
}

/// Both claims begin before any of them ends: they wait for the turn, which this
/// has, with the snapshots that they began with.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waited_for_another_counts_what_that_one_leased() {
    let app = App::start().await;
    let other = app.another().await;
    bounded(&app, 3, 10).await;
    let queue = queue_id(&app.database, "work").await;
    let turn =
        format!("SELECT pg_advisory_xact_lock(hashtextextended('postrider claim', {queue}))");
    let held = Held::by(&app.database, &turn).await;
    let wish = json!({"max_messages": 2, "wait_seconds": 0.5});
    let (here, there, ()) = tokio::join!(
        app.receive("work", wish.clone()),
        other.receive("work", wish),
        async {
            // Both are under way.
            app.database.until_stuck("-- claim", 2).await;
            held.let_go().await;
        }
    );
    let mut counts = [here.len(), there.len()];
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    assert_eq!(number(&app.database, LEASED).await, 3);
}

/// Waits on this gateway, for one message; whether it came within a second of
/// what `ends` does.
async fn woken(gateway: &Gateway, ends: impl Future<Output = ()>) -> Value {
    let waiting = gateway.receive("work", json!({"wait_seconds": 30}));
    let ending = async {
        gateway.until_waiting(1).await;
        ends.await;
        std::time::Instant::now()
    };
    let (messages, ended) = tokio::join!(waiting, ending);
    assert!(
        ended.elapsed() < Duration::from_secs(1),
        "{:?}",
        ended.elapsed()
    );
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_a_lease_wakes_who_waits_for_room_at_any_gateway() {
    let app = App::start().await;
    let other = app.another().await;
    eventually("the gateways know of each other", async || {
        number(&app.database, "SELECT count(*) FROM postrider.gateways").await == 2
    })
    .await;
    bounded(&app, 1, 10).await;
    let mut held = app.receive_one("work").await;
    assert!(app.receive("work", json!({})).await.is_empty());
    for gateway in [&app.gateway, &other] {
        for verb in ["ack", "nack", "delete", "purge"] {
            let end = async {
                let receipt = [&held["receipt"]];
                let answer = match verb {
                    "delete" => {
                        let id = held["id"].as_str().unwrap();
                        app.delete(&format!("/v1/queues/work/messages/{id}")).await
                    }
                    "purge" => {
                        let answer = app.post("/v1/queues/work/purge", json!({})).await;
                        fill(&app, 20).await;
                        answer
                    }
                    verb => app.settle(verb, "work", &receipt, json!({})).await,
                };
                assert!(answer.status.is_success(), "{verb}: {answer:?}");
            };
            held = woken(gateway, end).await;
        }
        // Or it runs out.
        let soon = app
            .settle(
                "extend",
                "work",
                &[&held["receipt"]],
                json!({"lease_seconds": 0.3}),
            )
            .await;
        soon.expect(StatusCode::OK);
        held = woken(gateway, async {
            let runs = format!(
                "SELECT count(*) FROM postrider.parked
                 WHERE message_id = {} AND token <> 0 AND wake_at > now() + interval '50 ms'",
                message_id(held["id"].as_str().unwrap())
            );
            eventually("the lease is over", async || {
                number(&app.database, runs.as_str()).await == 0
            })
            .await;
        })
        .await;
    }
    // Or the bound is wider.
    woken(&app, async {
        app.patch("/v1/queues/work", json!({"max_in_flight": 2}))
            .await
            .expect(StatusCode::OK);
    })
    .await;
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_bound_counts_what_was_leased_before() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    fill(&app, 20).await;
    let first = app.receive("work", json!({"max_messages": 8})).await;
    assert_eq!(first.len(), 8);
    app.patch("/v1/queues/work", json!({"max_in_flight": 5}))
        .await
        .expect(StatusCode::OK);
    let more = json!({"max_messages": 10});
    assert!(app.receive("work", more.clone()).await.is_empty());
    app.settle("ack", "work", &receipts(&first[..6]), json!({}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(app.receive("work", more.clone()).await.len(), 3);
    app.patch("/v1/queues/work", json!({"max_in_flight": null}))
        .await
        .expect(StatusCode::OK);
    assert_eq!(app.receive("work", more).await.len(), 9);
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_outlived_its_time_takes_no_place() {
    let app = App::start().await;
    bounded(&app, 2, 6).await;
    execute(
        &app.database,
        "UPDATE postrider.ready SET expires_at = now() - interval '1 s'
         WHERE position IN (SELECT position FROM postrider.ready ORDER BY position LIMIT 4)",
    )
    .await;
    let messages = app
        .receive("work", json!({"max_messages": 10, "wait_seconds": 5}))
        .await;
    assert!(!messages.is_empty());
    for message in &messages {
        assert!(message["body"].as_i64().unwrap() >= 4, "{message}");
    }
    eventually("what has outlived its time is gone", async || {
        number(
            &app.database,
            "SELECT count(*) FROM postrider.parked WHERE token = 0",
        )
        .await
            == 0
    })
    .await;
    app.assert_conserved(&app.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_the_bound_is_claimed_from_by_the_same_statement_as_ever() {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    gateway.queue("free", json!({})).await;
    gateway.queue("bound", json!({"max_in_flight": 1})).await;
    for queue in ["free", "bound"] {
        gateway.publish(queue, json!({"body": 1})).await;
        gateway.receive_one(queue).await;
    }
    // The first counts both.
    assert_eq!((wire.count("claim"), wire.count("claim_bounded")), (2, 1));
}
