//! How much is on its way, and how fast, whatever is changed meanwhile.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, Hook, attempts, drained, hook, publish_many, pushed_id, verifies};
use crate::support::{App, Receiver, Reply, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn no_more_are_on_their_way_than_may_be_whoever_runs_the_lane() {
    let hook = Hook::start(json!({"max_in_flight": 3}), json!({})).await;
    let other = hook.another().await;
    hook.receiver
        .usually(Reply::status(204).after(Duration::from_millis(20)));
    let mut ids = hook.publish_many(100).await;
    ids.extend(publish_many(&other, "orders", 100).await);
    hook.drained().await;
    assert_eq!(hook.receiver.most_at_once(), 3);
    let requests = hook.receiver.requests();
    let pushed: HashSet<&str> = requests.iter().map(pushed_id).collect();
    assert_eq!(pushed, ids.iter().map(String::as_str).collect());
    assert_eq!(requests.len(), 200, "none twice");

    // Also while the lane goes from one to the other, in the middle of it.
    let slow = Reply::status(204).after(Duration::from_millis(50));
    hook.receiver.usually(slow);
    let Hook { app, receiver, .. } = hook;
    let App { database, gateway } = app;
    publish_many(&other, "orders", 100).await;
    receiver.wait_for(220).await;
    gateway.app.shut_down().await.unwrap();
    drained(&other, "orders").await;
    assert_eq!(receiver.most_at_once(), 3);
    assert_eq!(receiver.requests().len(), 300, "none twice");
    other.assert_conserved(&database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_lanes_are_shared_by_two_gateways_and_each_keeps_its_bound() {
    let app = App::start().await;
    let other = app.another().await;
    let mut receivers = Vec::new();
    for n in 0..5 {
        let receiver = Receiver::start().await;
        receiver.usually(Reply::status(204).after(Duration::from_millis(10)));
        let settings = json!({"max_in_flight": 2});
        hook(
            &app,
            &format!("q{n}"),
            &receiver.url("/"),
            settings,
            json!({}),
        )
        .await;
        receivers.push(receiver);
    }
    let owners = async || {
        crate::store::number(
            &app.database,
            "SELECT count(DISTINCT owner) FROM postrider.webhooks WHERE owner_until > now()",
        )
        .await
    };
    eventually("both have lanes", async || owners().await == 2).await;
    for n in 0..5 {
        publish_many(&other, &format!("q{n}"), 100).await;
    }
    for (n, receiver) in receivers.iter().enumerate() {
        drained(&app, &format!("q{n}")).await;
        assert_eq!(receiver.requests().len(), 100);
        assert!(receiver.most_at_once() <= 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_and_is_used() {
    let settings = json!({"rate_limit_per_second": 20, "max_in_flight": 1000});
    let hook = Hook::start(settings, json!({"max_attempts": 1})).await;
    let _other = hook.another().await;
    hook.publish_many(100).await;
    hook.drained().await;
    let requests = hook.receiver.requests();
    assert_eq!(requests.len(), 100, "none twice");
    let begun = requests[0].at;
    let took = requests[99].at - begun;
    assert!(took >= Duration::from_millis(4700), "{took:?}");
    assert!(took <= Duration::from_secs(8), "{took:?}");
    // In no second more than in a second, and the burst of 50 ms.
    for (at, first) in requests.iter().enumerate() {
        let within = |r: &&crate::support::Received| r.at - first.at < Duration::from_secs(1);
        let count = requests[at..].iter().take_while(within).count();
        assert!(count <= 23, "{count} from {at} on");
    }
    assert_eq!(hook.counts("orders").await["dead"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_limit_leases_nothing_for_longer_than_a_lease() {
    // With room for all on their way: but each would have to wait for its turn.
    let settings = json!({"rate_limit_per_second": 1, "max_in_flight": 1000});
    let hook = Hook::start(settings, json!({})).await;
    hook.publish_many(50).await;
    hook.receiver.wait_for(3).await;
    let leased = hook.counts("orders").await["leased"].as_i64().unwrap();
    assert!(leased <= 2, "{leased}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_and_a_resume_goes_on() {
    let settings = json!({"rate_limit_per_second": 50});
    let hook = Hook::start(settings, json!({})).await;
    let other = hook.another().await;
    hook.publish_many(200).await;
    hook.receiver.wait_for(10).await;
    hook.post(&format!("{HOOK}/pause"), "{}")
        .await
        .expect(StatusCode::OK);
    // Either gateway may run the lane; it hears within two seconds, and what it
    // has leased it gives back. Between two pushes it may look so before.
    let mut pushed = 0;
    eventually("nothing goes out and all has come back", async || {
        pushed = hook.receiver.requests().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let counts = hook.counts("orders").await;
        hook.receiver.requests().len() == pushed
            && counts["leased"] == 0
            && counts["ready"].as_u64() == Some(200 - pushed as u64)
    })
    .await;
    assert!(pushed < 200, "{pushed}");

    other
        .post(&format!("{HOOK}/resume"), "{}")
        .await
        .expect(StatusCode::OK);
    hook.drained().await;
    let requests = hook.receiver.requests();
    assert_eq!(requests.len(), 200, "none twice");
    assert!(
        requests
            .iter()
            .all(|r| r.header("postrider-attempt") == Some("1"))
    );
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_rotated_under_load_loses_no_push() {
    let hook = Hook::start(json!({"rate_limit_per_second": 200}), json!({})).await;
    let other = hook.another().await;
    let ids = hook.publish_many(600).await;
    let before = hook.receiver.wait_for(50).await;
    assert!(before[..50].iter().all(|r| verifies(&hook.secret, r)));
    let rotated = other
        .post(&format!("{HOOK}/rotate-secret"), "{}")
        .await
        .expect(StatusCode::OK);
    let new = rotated["secret"].as_str().unwrap();
    hook.drained().await;
    let requests = hook.receiver.requests();
    let pushed: HashSet<&str> = requests.iter().map(pushed_id).collect();
    assert_eq!(pushed, ids.iter().map(String::as_str).collect());
    // The old secret signs along, so who knows only that one takes all too.
    assert!(requests.iter().all(|r| verifies(&hook.secret, r)));
    let last = requests.last().unwrap();
    assert!(verifies(new, last), "the new one is used in the end");
    let first_new = requests.iter().position(|r| verifies(new, r)).unwrap();
    assert!(requests[first_new + 50..].iter().all(|r| verifies(new, r)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_changed_under_load_moves_the_pushes_and_loses_none() {
    let hook = Hook::start(json!({"rate_limit_per_second": 200}), json!({})).await;
    let ids = hook.publish_many(400).await;
    hook.receiver.wait_for(50).await;
    let next = Receiver::start().await;
    hook.patch(HOOK, json!({"url": next.url("/next")}))
        .await
        .expect(StatusCode::OK);
    next.wait_for(1).await;
    hook.drained().await;
    let (old, new) = (hook.receiver.requests(), next.requests());
    let pushed: HashSet<&str> = old.iter().chain(&new).map(pushed_id).collect();
    assert_eq!(pushed, ids.iter().map(String::as_str).collect());
    assert_eq!(old.len() + new.len(), 400, "none twice");
    let last_old = old.last().unwrap().at;
    let first_new = new[0].at;
    assert!(
        last_old < first_new + Duration::from_millis(500),
        "the old one is left at once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_made_anew_has_nothing_of_the_one_before() {
    let breaker = json!({"failure_rate": 0.5, "window": 4, "min_calls": 2, "open_seconds": 3600});
    let hook = Hook::start(json!({"circuit_breaker": breaker}), json!({})).await;
    hook.receiver.usually(Reply::status(500));
    hook.publish_many(2).await;
    eventually("it is open", async || {
        hook.webhook().await["breaker"]["state"] == "open"
    })
    .await;
    hook.receiver.usually(Reply::status(204));
    hook.delete(HOOK).await.expect(StatusCode::NO_CONTENT);
    let settings: Value = json!({"url": hook.receiver.url("/anew")});
    hook.put(HOOK, settings).await.expect(StatusCode::CREATED);
    hook.drained().await;
    assert_eq!(hook.webhook().await["breaker"]["state"], "closed");
    let delivered = attempts(&hook, "orders", "status=delivered").await;
    assert!(delivered.len() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_deleted_under_load_ends_its_pushes_and_harms_no_other() {
    let hook = Hook::start(json!({"max_in_flight": 20}), json!({})).await;
    let slow = Reply::status(204).after(Duration::from_millis(50));
    hook.receiver.usually(slow);
    hook.publish_many(500).await;
    hook.receiver.wait_for(40).await;
    hook.delete("/v1/queues/orders")
        .await
        .expect(StatusCode::NO_CONTENT);
    let url = hook.receiver.url("/other");
    super::hook(&hook, "other", &url, json!({}), json!({})).await;
    publish_many(&hook, "other", 20).await;
    drained(&hook, "other").await;
    // Under its name there may be another, which gets nothing of the old.
    let url = hook.receiver.url("/again");
    super::hook(&hook, "orders", &url, json!({}), json!({})).await;
    publish_many(&hook, "orders", 20).await;
    drained(&hook, "orders").await;
    let requests = hook.receiver.requests();
    let on = |path: &str| requests.iter().filter(|r| r.path == path).count();
    assert_eq!((on("/other"), on("/again")), (20, 20));
    assert!(on("/hook") < 200, "{}", on("/hook"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_with_slow_pushes_on_their_way_keeps_its_bound_while_it_goes_over() {
    let app = App::start().await;
    let mut receivers = Vec::new();
    for n in 0..2 {
        let receiver = Receiver::start().await;
        // Longer than an owner has its lane without renewing it.
        receiver.usually(Reply::status(204).after(Duration::from_secs(13)));
        let settings = json!({"max_in_flight": 2});
        hook(
            &app,
            &format!("q{n}"),
            &receiver.url("/"),
            settings,
            json!({}),
        )
        .await;
        publish_many(&app, &format!("q{n}"), 3).await;
        receiver.wait_for(2).await;
        receivers.push(receiver);
    }
    let _other = app.another().await;
    for receiver in &receivers {
        receiver.wait_for(3).await;
        assert_eq!(receiver.most_at_once(), 2);
    }
    let owners = "SELECT count(DISTINCT owner) FROM postrider.webhooks";
    assert_eq!(crate::store::number(&app.database, owners).await, 2);
}
