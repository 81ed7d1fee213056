//! Lanes of webhooks: each is one gateway's at a time, and its breaker with it.

use std::collections::{BTreeSet, HashMap};

use postrider::domain::{
    Breaker, BreakerSettings, DisableReason, QueueName, QueueSettings, WebhookSettings,
};
use postrider::store::{Lane, Store};

use super::{execute, number};
use crate::support::Database;

const DEAD: &str = "UPDATE postrider.gateways
    SET seen_at = seen_at - interval '11 s', lanes_at = lanes_at - interval '11 s' WHERE id = ";
const RUN_OUT: &str = "UPDATE postrider.webhooks
    SET owner_until = owner_until - interval '11 s' WHERE owner = ";

/// Queues with a webhook each, without a gateway that would take their lanes.
async fn webhooks(count: usize) -> (Database, Store, Vec<i64>) {
    let database = Database::migrated().await;
    let store = database.store(1_000_000);
    let mut ids = Vec::new();
    for n in 0..count {
        let name = QueueName::parse(&format!("q{n:03}"), "").unwrap();
        let queue = store.create_queue(&name, &QueueSettings::default()).await;
        let queue = queue.unwrap().unwrap();
        let settings = WebhookSettings {
            url: format!("http://127.0.0.1:9/{n}"),
            ..WebhookSettings::default()
        };
        let put = store.put_webhook(queue.id, &settings, b"sealed").await;
        assert!(put.unwrap().unwrap().created);
        ids.push(queue.id);
    }
    (database, store, ids)
}

async fn own(store: &Store, gateway: i64) -> Vec<Lane> {
    store.own_lanes(gateway, 1000, &[]).await.unwrap()
}

/// The lanes that a gateway may let new pushes through on.
fn kept(lanes: &[Lane]) -> BTreeSet<i64> {
    lanes
        .iter()
        .filter(|lane| !lane.leaving)
        .map(|lane| lane.webhook.queue_id)
        .collect()
}

fn opened() -> Breaker {
    let settings = BreakerSettings::default();
    let mut breaker = Breaker::default();
    for _ in 0..settings.min_calls {
        let call = breaker.call();
        breaker.record(&settings, call, false, 0, 10);
    }
    breaker
}

fn half_open(breaker: &Breaker) -> Breaker {
    let mut probing = breaker.clone();
    let begun = probing.begin_probe(&BreakerSettings::default(), 1_000_000, 2_000_000);
    assert!(begun.is_some());
    probing
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gateway_owns_all_lanes_and_two_share_them_evenly_without_a_lane_in_common() {
    let (database, store, ids) = webhooks(7).await;
    let all: BTreeSet<i64> = ids.iter().copied().collect();
    assert_eq!(kept(&own(&store, 1).await), all);

    // The second comes: nothing is free until the first lets go.
    assert!(own(&store, 2).await.is_empty());
    let first = own(&store, 1).await;
    assert_eq!(kept(&first).len(), 4);
    let leaving: Vec<i64> = first
        .iter()
        .filter(|lane| lane.leaving)
        .map(|lane| lane.webhook.queue_id)
        .collect();
    assert_eq!(leaving, ids[4..]);
    assert!(
        own(&store, 2).await.is_empty(),
        "they are still the first's"
    );
    // One is done with at once, the others run out.
    store.release_lane(leaving[0], 1).await.unwrap();
    assert_eq!(kept(&own(&store, 2).await), BTreeSet::from([leaving[0]]));
    let run_out = format!("{RUN_OUT} 1 AND queue_id > {}", ids[3]);
    execute(&database, run_out).await;

    let second = kept(&own(&store, 2).await);
    let first = kept(&own(&store, 1).await);
    assert_eq!((first.len(), second.len()), (4, 3));
    assert!(first.is_disjoint(&second));
    assert_eq!(&first | &second, all);
    // And so it stays.
    assert_eq!(kept(&own(&store, 2).await), second);
    assert_eq!(kept(&own(&store, 1).await), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_gateways_that_ask_at_once_never_own_a_lane_together() {
    let (database, store, ids) = webhooks(20).await;
    for round in 0..5 {
        let gateways: Vec<i64> = (1..=4).collect();
        let lanes =
            futures_util::future::join_all(gateways.iter().map(|id| own(&store, *id))).await;
        let mut seen = BTreeSet::new();
        for lane in lanes.iter().flatten() {
            assert!(
                seen.insert(lane.webhook.queue_id),
                "round {round}: owned twice"
            );
        }
        execute(
            &database,
            "UPDATE postrider.webhooks SET owner = NULL, owner_until = NULL",
        )
        .await;
    }
    let lanes = futures_util::future::join_all((1..=4).map(|id| own(&store, id))).await;
    // What one let lie in passing, the next round gives out.
    let again = futures_util::future::join_all((1..=4).map(|id| own(&store, id))).await;
    let owned: usize = again.iter().map(|lanes| kept(lanes).len()).sum();
    assert_eq!(owned, ids.len(), "{lanes:?}");
    for lanes in again {
        assert_eq!(kept(&lanes).len(), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_gateway_dies_the_other_takes_its_lanes_over_once_they_have_run_out() {
    let (database, store, ids) = webhooks(4).await;
    own(&store, 1).await;
    own(&store, 2).await;
    own(&store, 1).await;
    execute(&database, format!("{RUN_OUT} 1 AND queue_id > {}", ids[1])).await;
    assert_eq!(kept(&own(&store, 2).await).len(), 2);

    // No heartbeat for a while: the share grows, but what is owned is owned.
    execute(&database, format!("{DEAD} 1")).await;
    assert_eq!(kept(&own(&store, 2).await).len(), 2);
    execute(&database, format!("{RUN_OUT} 1")).await;
    assert_eq!(kept(&own(&store, 2).await).len(), 4);
    // It comes back, and does not believe that it owns anything.
    assert!(own(&store, 1).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ends_leaves_its_lanes_at_once() {
    let (_database, store, ids) = webhooks(3).await;
    own(&store, 1).await;
    own(&store, 2).await;
    store.release_lanes(1).await.unwrap();
    assert_eq!(kept(&own(&store, 2).await).len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_never_asks_has_no_share_and_nobody_has_more_than_it_wants() {
    let (_database, store, ids) = webhooks(4).await;
    // It lives, but has no key to the secrets.
    store.heartbeat(3, &HashMap::new()).await.unwrap();
    assert_eq!(store.own_lanes(1, 2, &[]).await.unwrap().len(), 2);
    assert_eq!(kept(&own(&store, 1).await).len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_has_all_that_its_worker_needs() {
    let (database, store, ids) = webhooks(1).await;
    store.rotate_webhook_secret(ids[0], b"new").await.unwrap();
    let lane = own(&store, 1).await.remove(0);
    assert_eq!(lane.webhook.settings.url, "http://127.0.0.1:9/0");
    assert_eq!(lane.webhook.secrets, [b"new".to_vec(), b"sealed".to_vec()]);
    assert_eq!(lane.failing_since_ms, None);
    let now = "SELECT (extract(epoch FROM now()) * 1000)::bigint";
    assert!((number(&database, now).await - lane.now_ms).abs() < 60_000);

    let later = "UPDATE postrider.webhooks SET old_secret_until = now()";
    execute(&database, later).await;
    assert_eq!(own(&store, 1).await[0].webhook.secrets, [b"new".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_lane_is_told_to_its_owner_until_it_runs_out_and_then_nobody_has_it() {
    let (database, store, ids) = webhooks(2).await;
    own(&store, 1).await;
    store.pause_webhook(ids[0]).await.unwrap();
    let lanes = own(&store, 1).await;
    assert!(lanes[0].leaving);
    assert_eq!(lanes[0].webhook.status.as_str(), "paused");
    assert_eq!(kept(&lanes), BTreeSet::from([ids[1]]));
    // What was on its way may still end.
    assert!(
        store
            .save_breaker(ids[0], 1, &opened(), None)
            .await
            .unwrap()
    );
    execute(&database, format!("{RUN_OUT} 1 AND queue_id = {}", ids[0])).await;
    assert_eq!(own(&store, 1).await.len(), 1);

    store.resume_webhook(ids[0]).await.unwrap();
    assert_eq!(own(&store, 1).await.len(), 2);
    store
        .disable_webhook(ids[0], DisableReason::Gone)
        .await
        .unwrap();
    assert_eq!(kept(&own(&store, 1).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_is_kept_for_the_next_owner_and_only_the_owner_writes_it() {
    let (database, store, ids) = webhooks(1).await;
    let breaker = opened();
    assert!(!store.save_breaker(ids[0], 1, &breaker, None).await.unwrap());
    own(&store, 1).await;
    let since = 1_700_000_000_123;
    assert!(
        store
            .save_breaker(ids[0], 1, &breaker, Some(since))
            .await
            .unwrap()
    );

    execute(&database, format!("{RUN_OUT} 1")).await;
    // Not even before another has taken it.
    assert!(!store.save_breaker(ids[0], 1, &breaker, None).await.unwrap());
    execute(&database, format!("{DEAD} 1")).await;
    let lane = own(&store, 2).await.remove(0);
    assert_eq!(lane.webhook.breaker, breaker);
    assert_eq!(lane.failing_since_ms, Some(since));
    assert!(!store.save_breaker(ids[0], 1, &breaker, None).await.unwrap());
    assert!(store.save_breaker(ids[0], 2, &breaker, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_that_try_one_begins_the_probe() {
    let (database, store, ids) = webhooks(1).await;
    own(&store, 1).await;
    let open = opened();
    store.save_breaker(ids[0], 1, &open, None).await.unwrap();
    let probing = half_open(&open);
    let begun =
        futures_util::future::join_all((0..10).map(|_| store.begin_probe(ids[0], 1, &probing)))
            .await;
    assert_eq!(
        begun.into_iter().filter(|b| *b.as_ref().unwrap()).count(),
        1
    );

    // An owner that slept through its time tries again with what it remembers.
    execute(&database, format!("{RUN_OUT} 1")).await;
    execute(&database, format!("{DEAD} 1")).await;
    let lane = own(&store, 2).await.remove(0);
    assert_eq!(lane.webhook.breaker, probing);
    assert!(
        !store
            .begin_probe(ids[0], 1, &half_open(&open))
            .await
            .unwrap()
    );
    // The new owner waits until the probe counts as lost.
    assert_eq!(
        lane.webhook
            .breaker
            .allowance(&BreakerSettings::default(), 1_999_999, 10),
        0
    );
    let mut next = lane.webhook.breaker.clone();
    assert!(
        next.begin_probe(&BreakerSettings::default(), 2_000_000, 3_000_000)
            .is_some()
    );
    assert!(store.begin_probe(ids[0], 2, &next).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_wins_over_whatever_the_owner_still_remembers() {
    let (_database, store, ids) = webhooks(1).await;
    own(&store, 1).await;
    let open = opened();
    store.save_breaker(ids[0], 1, &open, Some(1)).await.unwrap();
    store.resume_webhook(ids[0]).await.unwrap();
    // It did not hear of it yet.
    assert!(
        !store
            .save_breaker(ids[0], 1, &half_open(&open), Some(1))
            .await
            .unwrap()
    );
    assert!(
        !store
            .begin_probe(ids[0], 1, &half_open(&open))
            .await
            .unwrap()
    );
    let lane = own(&store, 1).await.remove(0);
    assert_eq!(lane.webhook.breaker.state().as_str(), "closed");
    assert!(lane.webhook.breaker.epoch() > open.epoch());
    assert_eq!(lane.failing_since_ms, None);
    assert!(
        store
            .save_breaker(ids[0], 1, &lane.webhook.breaker, None)
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_webhook_is_not_probed() {
    let (_database, store, ids) = webhooks(1).await;
    own(&store, 1).await;
    let open = opened();
    store.save_breaker(ids[0], 1, &open, None).await.unwrap();
    store.pause_webhook(ids[0]).await.unwrap();
    assert!(
        !store
            .begin_probe(ids[0], 1, &half_open(&open))
            .await
            .unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_given_up_stays_its_owners_while_pushes_are_on_their_way() {
    let (database, store, ids) = webhooks(2).await;
    own(&store, 1).await;
    own(&store, 2).await;
    let busy = [ids[1]];
    let almost_over = "UPDATE postrider.webhooks
        SET owner_until = now() + interval '1 s' WHERE owner = 1";
    execute(&database, almost_over).await;
    let first = store.own_lanes(1, 1000, &busy).await.unwrap();
    assert_eq!(kept(&first), BTreeSet::from([ids[0]]));
    assert!(first[1].leaving);
    let renewed = "SELECT count(*) FROM postrider.webhooks
        WHERE owner = 1 AND owner_until > now() + interval '8 s'";
    assert_eq!(number(&database, renewed).await, 2);
    assert!(own(&store, 2).await.is_empty());

    // Once they have ended, it runs out.
    execute(&database, almost_over).await;
    own(&store, 1).await;
    assert_eq!(number(&database, renewed).await, 1);
    execute(&database, format!("{RUN_OUT} 1 AND queue_id = {}", ids[1])).await;
    assert_eq!(kept(&own(&store, 2).await), BTreeSet::from([ids[1]]));
}
