//! What a gateway remembers of a queue or topic that another has just changed.
//! Without a gateway: the test looks at the door itself.

use postrider::domain::{QueueName, QueueSettings, TopicSettings};
use postrider::store::{DoorLook, DoorMoved, Store};

use super::rows;
use crate::support::Database;

fn name(name: &str) -> QueueName {
    QueueName::parse(name, "").unwrap()
}

/// Moves all that is there; how many were stored, and which were refused.
async fn pass(store: &Store) -> (usize, Vec<(&'static str, String)>) {
    let (mut pass, mut stored, mut refused) = (store.door_pass(), 0, Vec::new());
    let mut note = |moved: DoorMoved| {
        stored += moved.arrived.queues.len();
        refused.extend(moved.refused);
    };
    loop {
        match store.look_at_door(&mut pass).await.unwrap() {
            DoorLook::Busy => panic!("nobody else is there"),
            DoorLook::More(moved) => note(moved),
            DoorLook::Empty(moved) => {
                note(moved);
                return (stored, refused);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_or_topic_that_has_just_changed_costs_no_message_its_place() {
    let database = Database::migrated().await;
    let store = database.store(Store::PARTITION_SIZE);
    let other = database.store(Store::PARTITION_SIZE);
    let mut settings = QueueSettings::default();
    for queue in ["anew", "ordered"] {
        store.create_queue(&name(queue), &settings).await.unwrap();
    }
    let topic = TopicSettings::default();
    store.create_topic(&name("t"), &topic).await.unwrap();
    // It is known from now on.
    store.topology(&name("t")).await.unwrap().unwrap();

    other
        .delete_queue(&name("anew"), None, false)
        .await
        .unwrap();
    other.create_queue(&name("anew"), &settings).await.unwrap();
    other.delete_topic(&name("t"), None).await.unwrap();
    other.create_topic(&name("t"), &topic).await.unwrap();
    let ordered = other.queue(&name("ordered")).await.unwrap().unwrap();
    settings.ordered = true;
    other
        .update_queue(&name("ordered"), &settings, ordered.version)
        .await
        .unwrap();
    database
        .execute(
            "SELECT postrider.publish('anew', '1'), postrider.publish_topic('t', '2'),
                postrider.publish('ordered', '3', key => 'a')",
        )
        .await;
    assert_eq!(pass(&store).await, (2, Vec::new()));
    assert_eq!(rows(&database).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_gone_is_looked_for_once_more_and_its_message_put_aside() {
    let database = Database::migrated().await;
    let store = database.store(Store::PARTITION_SIZE);
    let other = database.store(Store::PARTITION_SIZE);
    let settings = QueueSettings::default();
    for queue in ["gone", "there"] {
        store.create_queue(&name(queue), &settings).await.unwrap();
    }
    let calls = "SELECT postrider.publish('gone', '1'), postrider.publish('there', '2')";
    database.execute(calls).await;
    other
        .delete_queue(&name("gone"), None, false)
        .await
        .unwrap();
    let refused = vec![("queue-not-found", "gone".to_owned())];
    assert_eq!(pass(&store).await, (1, refused));
    assert_eq!(rows(&database).await, (0, 1));
}
