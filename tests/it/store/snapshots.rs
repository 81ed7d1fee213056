//! Somebody holds a snapshot for an hour: nothing can be vacuumed, dead rows
//! pile up in front of the live ones, and it must cost nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider::config::DatabaseUrl;
use postrider::domain::{Lease, QueueName, QueueSettings, Seconds};
use postrider::store::{Publish, Queue, Receiver, Settled, Store};

use crate::store::execute;
use crate::support::{Database, Wire, message};

/// Messages that go through while the snapshot is held.
const MESSAGES: usize = 30_000;

/// Pages that a statement may read with its floor: some descents of an index.
const FEW: u64 = 150;

/// Pages that it reads without, if it walks over what went through: the test is
/// worth nothing otherwise.
const MANY: u64 = 300;

const LANES: usize = 10;

/// Stores that say, as warnings, what each of their statements read.
struct Explained {
    database: Database,
    wire: Wire,
}

impl Explained {
    async fn start() -> Self {
        let database = Database::migrated().await;
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_level = 'warning'",
            "auto_explain.log_analyze = on",
            "auto_explain.log_timing = off",
            "auto_explain.log_buffers = on",
        ] {
            let name = &database.name;
            execute(&database, format!("ALTER DATABASE {name} SET {setting}")).await;
        }
        let wire = Wire::tap(&database).await;
        Self { database, wire }
    }

    /// A store that has no floors yet.
    fn store(&self) -> Store {
        let url: DatabaseUrl = self.wire.url().parse().unwrap();
        Store::new(url.options(), 2, Store::PARTITION_SIZE)
    }

    fn pages(&self, name: &str) -> u64 {
        pages_of(&self.wire.take_warnings(), name)
    }

    /// Receives a message of each priority, and looks for what is not there: how
    /// many pages each statement read.
    async fn look_around(&self, store: &Store, queue: &Queue) -> Vec<(&'static str, u64)> {
        let leases = claim(store, queue, 2 * LANES, Seconds::new(60)).await;
        assert_eq!(leases.len(), LANES);
        let mut pages = vec![("claim", self.pages("claim"))];
        ack(store, &leases).await;
        let due = store.due(&[queue.id]).await.unwrap();
        assert!(due.woken.is_empty() && due.ended.is_empty());
        pages.push(("due", self.pages("due")));
        store.next_due(Duration::from_secs(5)).await.unwrap();
        pages.push(("next_due", self.pages("next_due")));
        assert!(store.with_ready(&[queue.id]).await.unwrap().is_empty());
        pages.push(("with_ready", self.pages("with_ready")));
        assert!(store.expire().await.unwrap().0.is_empty());
        pages.push(("expire", self.pages("expire")));
        pages
    }
}

/// How many pages the statement of this `.sql` file read, the last time.
fn pages_of(plans: &[String], name: &str) -> u64 {
    let statements = Store::statements();
    let (_, text) = statements.iter().find(|(known, _)| *known == name).unwrap();
    let plan = plans.iter().rfind(|plan| plan.contains(text));
    let plan = plan.unwrap_or_else(|| panic!("{name} was not run: {plans:?}"));
    // The first line of the kind is the whole statement's.
    let buffers = plan
        .lines()
        .find(|line| line.trim_start().starts_with("Buffers:"));
    let buffers = buffers.unwrap_or_else(|| panic!("no buffers: {plan}"));
    buffers
        .split([' ', ','])
        .filter_map(|word| {
            word.strip_prefix("hit=")
                .or_else(|| word.strip_prefix("read="))
        })
        .map(|number| number.parse::<u64>().unwrap())
        .sum()
}

async fn queue(store: &Store) -> Arc<Queue> {
    let name = QueueName::parse("work", "").unwrap();
    let put = store.put_queue(&name, &QueueSettings::default()).await;
    put.unwrap().queue
}

/// Publishes so many messages, over all priorities.
async fn publish(store: &Store, queue: &Arc<Queue>, count: usize) {
    let messages = (0i16..10).cycle().take(count).map(|priority| {
        let mut message = message(1);
        message.priority = priority;
        message
    });
    let batch = Publish {
        queue: Arc::clone(queue),
        messages: Arc::new(messages.collect()),
    };
    let (results, _) = store.publish(&[batch], &HashMap::new()).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().len(), count);
}

async fn claim(store: &Store, queue: &Queue, max_messages: usize, lease: Seconds) -> Vec<Lease> {
    let wish = Receiver {
        max_messages: u32::try_from(max_messages).unwrap(),
        lease,
    };
    let claimed = store.claim(queue.id, &[wish]).await.unwrap();
    claimed.deliveries[0].iter().map(|d| d.lease).collect()
}

async fn ack(store: &Store, leases: &[Lease]) {
    let results = store.ack(leases).await.unwrap();
    assert!(results.iter().all(|result| *result == Settled::Done));
}

/// Somebody's connection with a snapshot.
async fn hold(database: &Database) -> sqlx::PgConnection {
    let mut holder = database.connect().await;
    for statement in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "SELECT count(*) FROM postrider.ready",
    ] {
        sqlx::raw_sql(statement).execute(&mut holder).await.unwrap();
    }
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_held_snapshot_leases_that_were_acked_early_are_not_looked_through() {
    let it = Explained::start().await;
    let store = it.store();
    let queue = queue(&store).await;
    let _holder = hold(&it.database).await;
    for _ in 0..MESSAGES / 1000 {
        publish(&store, &queue, 1000).await;
        let leases = claim(&store, &queue, 1000, Seconds::new(600)).await;
        ack(&store, &leases).await;
    }
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    let pages = it.pages("due_floors");
    assert!(pages <= FEW, "the floors' look reads {pages} pages");
    let soonest = store
        .soonest(&[queue.id], Duration::from_secs(5))
        .await
        .unwrap();
    assert!(soonest.is_empty(), "{soonest:?}");
    let pages = it.pages("due_floors");
    assert!(pages <= FEW, "soonest reads {pages} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_held_snapshot_no_statement_walks_over_what_went_through() {
    let it = Explained::start().await;
    let store = it.store();
    let queue = queue(&store).await;

    let mut holder = hold(&it.database).await;
    for _ in 0..MESSAGES / 1000 {
        publish(&store, &queue, 1000).await;
        // As if it were an hour ago, so that what is due is behind them too.
        let leases = claim(&store, &queue, 1000, Seconds::new(-3600)).await;
        ack(&store, &leases).await;
    }
    // It cannot help, as the control shows.
    store.vacuum_hot_tables().await.unwrap();

    // The first finds the floors, the second goes from them.
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    let from_zero = [("due_floors", it.pages("due_floors"))];
    publish(&store, &queue, LANES).await;
    store.raise_watermarks_after(Duration::ZERO).await.unwrap();
    let warnings = it.wire.take_warnings();
    let floored = [
        ("due_floors", pages_of(&warnings, "due_floors")),
        ("floors", pages_of(&warnings, "floors")),
    ];

    let floored = [&floored[..], &it.look_around(&store, &queue).await].concat();
    let restarted = it.store();
    publish(&restarted, &queue, LANES).await;
    let from_zero = [&from_zero[..], &it.look_around(&restarted, &queue).await].concat();
    for (name, pages) in floored {
        assert!(pages <= FEW, "{name} reads {pages} pages with its floor");
    }
    for (name, pages) in from_zero {
        assert!(pages >= MANY, "{name} reads {pages} pages from zero");
    }
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .unwrap();
}
