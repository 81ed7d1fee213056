//! Publishes and acks that become one statement.

use std::sync::Arc;

use postrider::domain::{Lease, Message, QueueName, Seconds};
use postrider::store::{Error, Fate, Publish, PublishResult, Queue, Receiver, Refusal, Settled};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::store::{execute, number};
use crate::support::{Answer, Begun, Database, Gateway, Held, Wire, begin, begun, config, message};

/// Lets nobody write to a table, until it is let go.
async fn hold(database: &Database, table: &str) -> Held {
    Held::table(database, table, "SHARE").await
}

/// A gateway, what it says to its database, and a queue of it.
struct Tapped {
    database: Database,
    wire: Wire,
    gateway: Gateway,
    work: Arc<Queue>,
}

async fn start() -> Tapped {
    let database = Database::migrated().await;
    let wire = Wire::tap(&database).await;
    let gateway = Gateway::start(&config(wire.url())).await;
    gateway.queue("work", json!({})).await;
    let work = queue(&gateway, "work").await;
    Tapped {
        database,
        wire,
        gateway,
        work,
    }
}

impl Tapped {
    /// Publishes so that the writer is stuck, and what comes next has to wait.
    async fn occupy(&self) -> Begun<'_, Result<PublishResult, Error>> {
        let call = publishing(&self.gateway, &self.work, vec![message("0")]).await;
        self.database.until_stuck("-- publish:", 1).await;
        call
    }
}

pub(super) async fn queue(gateway: &Gateway, name: &str) -> Arc<Queue> {
    let name = QueueName::parse(name, "").unwrap();
    gateway.app.store().queue(&name).await.unwrap().unwrap()
}

/// A publish that waits for its batch.
pub(super) async fn publishing<'a>(
    gateway: &'a Gateway,
    queue: &Arc<Queue>,
    messages: Vec<Message>,
) -> Begun<'a, Result<PublishResult, Error>> {
    let request = Publish {
        queue: Arc::clone(queue),
        messages: Arc::new(messages),
    };
    begun(gateway.app.broker().publish(request)).await
}

/// Each caller's ids are those of its own messages, in its order.
async fn assert_stored(database: &Database, result: &PublishResult, bodies: &[String]) {
    let published = result.as_ref().unwrap();
    let ids: Vec<i64> = published.iter().map(|message| message.id).collect();
    let stored: Vec<(String,)> = sqlx::query_as(
        "SELECT convert_from(m.body, 'UTF8')
         FROM unnest($1::bigint[]) WITH ORDINALITY AS i (id, ord)
         JOIN postrider.messages AS m USING (id) ORDER BY ord",
    )
    .bind(ids)
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    let stored: Vec<String> = stored.into_iter().map(|(body,)| body).collect();
    assert_eq!(stored, bodies);
}

/// Twelve callers, every third or so of whom is refused: of `lost` messages each,
/// for a queue that is gone when they get to it, or of three for a full one.
async fn refuse_some(lost: usize) {
    let it = start().await;
    it.gateway.queue("gone", json!({})).await;
    it.gateway.queue("full", json!({"max_ready": 2})).await;
    let gone = queue(&it.gateway, "gone").await;
    let full = queue(&it.gateway, "full").await;
    let before = it.wire.count("publish");

    let held = hold(&it.database, "messages").await;
    let first = it.occupy().await;
    let mut calls = Vec::new();
    for caller in 0..12 {
        let (to, count) = match caller % 4 {
            1 => (&gone, lost),
            2 => (&full, 3),
            _ => (&it.work, 3),
        };
        let bodies: Vec<String> = (0..count).map(|n| format!("[{caller},{n}]")).collect();
        let messages = bodies.iter().map(message).collect();
        calls.push((bodies, publishing(&it.gateway, to, messages).await));
    }
    // Elsewhere, so that this gateway does not know.
    execute(
        &it.database,
        "DELETE FROM postrider.queues WHERE name = 'gone'",
    )
    .await;
    held.let_go().await;

    first.await.unwrap().unwrap();
    for (caller, (bodies, call)) in calls.into_iter().enumerate() {
        let result = call.await.unwrap();
        match caller % 4 {
            1 => assert_eq!(result, Err(Refusal::NoQueue)),
            2 => assert_eq!(result, Err(Refusal::Full { max_ready: 2 })),
            _ => assert_stored(&it.database, &result, &bodies).await,
        }
    }
    assert_eq!(it.wire.count("publish") - before, 2);
    it.gateway.assert_conserved(&it.database, "work").await;
    it.gateway.assert_conserved(&it.database, "full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_do_not_disturb_those_they_share_a_statement_with() {
    refuse_some(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_for_a_queue_that_is_gone_shift_nobodys_answers() {
    refuse_some(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_postgres_refuses_fails_alone() {
    let it = start().await;
    // Something that no check in front of the database knows of.
    execute(
        &it.database,
        "ALTER TABLE postrider.messages
         ADD CONSTRAINT unknown CHECK (correlation_id IS DISTINCT FROM 'bad')",
    )
    .await;
    let held = hold(&it.database, "messages").await;
    let first = it.occupy().await;
    let mut calls = Vec::new();
    for caller in 0..9 {
        let bodies: Vec<String> = (0..3).map(|n| format!("[{caller},{n}]")).collect();
        let mut messages: Vec<Message> = bodies.iter().map(message).collect();
        if caller == 4 {
            messages[2].correlation_id = Some("bad".to_owned());
        }
        calls.push((bodies, publishing(&it.gateway, &it.work, messages).await));
    }
    held.let_go().await;

    first.await.unwrap().unwrap();
    for (caller, (bodies, call)) in calls.into_iter().enumerate() {
        let result = call.await;
        if caller == 4 {
            assert!(matches!(result, Err(Error::Inconsistent(_))), "{result:?}");
        } else {
            assert_stored(&it.database, &result.unwrap(), &bodies).await;
        }
    }
    // All or none: the two good messages of the bad request are not there.
    let stored = "SELECT count(*) FROM postrider.ready";
    assert_eq!(number(&it.database, stored).await, 1 + 8 * 3);
    it.gateway.assert_conserved(&it.database, "work").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_that_share_a_statement_are_answered_each_in_its_order() {
    let it = start().await;
    let messages = (0..20).map(message).collect();
    let stored = publishing(&it.gateway, &it.work, messages).await;
    stored.await.unwrap().unwrap();
    let wish = Receiver {
        max_messages: 20,
        lease: Seconds::new(600),
    };
    let store = it.gateway.app.store();
    let claimed = store.claim(it.work.id, &[wish]).await.unwrap();
    let leases: Vec<Lease> = claimed.deliveries[0].iter().map(|d| d.lease).collect();
    let broker = it.gateway.app.broker();

    let held = hold(&it.database, "parked").await;
    let first = begin(broker.ack(leases[..1].to_vec())).await.ok().unwrap();
    it.database.until_stuck("-- ack:", 1).await;
    let mut calls = Vec::new();
    for caller in 0..6 {
        let mut mine = leases[1 + caller * 3..][..3].to_vec();
        // One of each three is somebody else's.
        mine[caller % 3].token ^= 2;
        calls.push(begin(broker.ack(mine)).await.ok().unwrap());
    }
    held.let_go().await;

    assert_eq!(first.await.unwrap(), [Settled::Done]);
    for (caller, call) in calls.into_iter().enumerate() {
        let mut expected = [Settled::Done; 3];
        expected[caller % 3] = Settled::Not(Fate::Lost);
        assert_eq!(call.await.unwrap(), expected, "{caller}");
    }
    assert_eq!(it.wire.count("ack"), 2);
    it.gateway.assert_conserved(&it.database, "work").await;
}

/// Bodies of a million bytes: 67 of them fit into what may wait, 64 MiB.
const FIT: usize = 67;

fn large(gateway: &Gateway) -> impl Future<Output = Answer> + use<> {
    let request = gateway.request(Method::POST, "/v1/queues/work/messages");
    Answer::of(
        request
            .header("content-type", "application/octet-stream")
            .body(vec![b'x'; 1_000_000]),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_beyond_what_may_wait_are_refused_at_once_and_the_others_are_stored() {
    let it = start().await;
    let gateway = &it.gateway;
    gateway.publish("work", json!({"body": "before"})).await;
    let held = hold(&it.database, "messages").await;
    let first = it.occupy().await;
    let mut publishers = JoinSet::new();
    for _ in 0..FIT + 20 {
        publishers.spawn(large(gateway));
    }
    // While Postgres does not answer: whoever is answered now is refused.
    for _ in 0..20 {
        let answer = publishers.join_next().await.unwrap().unwrap();
        answer.expect_problem(503, "overloaded");
    }
    // Those who wait to publish hold up nobody else.
    let message = gateway.receive_one("work").await;
    gateway
        .settle("ack", "work", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    held.let_go().await;

    first.await.unwrap().unwrap();
    // Some came when the first had waited for too long already.
    let mut stored = 0;
    while let Some(answer) = publishers.join_next().await {
        let answer = answer.unwrap();
        if answer.status == StatusCode::CREATED {
            stored += 1;
        } else {
            answer.expect_problem(503, "overloaded");
        }
    }
    assert!((1..=FIT).contains(&stored), "{stored}");
    gateway.publish("work", json!({"body": "after"})).await;
    assert_eq!(gateway.counts("work").await["ready"], stored + 2);
    gateway.assert_conserved(&it.database, "work").await;
}
