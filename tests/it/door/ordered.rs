//! The door of ordered and fair queues.

use serde_json::json;

use super::{rows, run};
use crate::order::{ack, ack_next, bodies, ordered, receive_now};
use crate::support::{App, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_key_come_in_the_order_of_their_calls_and_each_when_its_turn_has_come() {
    let app = App::start().await;
    app.queue("q", ordered()).await;
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({"queue": "q"})).await;
    // Before any comes: it is woken by the turn.
    let mut application = app.database.connect().await;
    let first = "SELECT postrider.publish('q', '1', key => 'a')";
    let (one, ()) = tokio::join!(app.receive_one("q"), run(&mut application, first));
    assert_eq!(one["body"], 1);
    let calls: String = (2..=40)
        .map(|body| match body % 4 {
            0 => format!("SELECT postrider.publish('q', '{body}', key => 'b');"),
            _ => format!("SELECT postrider.publish('q', '{body}', key => 'a');"),
        })
        .collect();
    run(&mut application, &format!("BEGIN; {calls} COMMIT")).await;
    let last = "SELECT postrider.publish_topic('t', '41', key => 'a')";
    run(&mut application, last).await;
    eventually("all are there", async || {
        rows(&app.database).await == (0, 0) && app.counts("q").await["ready"] == 40
    })
    .await;
    // The first of `a` is leased.
    let four = receive_now(&app, "q").await;
    assert_eq!(bodies(&four), [4]);
    ack(&app, "q", &one).await;
    for body in (2..=40).filter(|body| body % 4 != 0) {
        ack_next(&app, "q", body).await;
    }
    ack_next(&app, "q", 41).await;
    ack(&app, "q", &four[0]).await;
    for body in (8..=40).step_by(4) {
        ack_next(&app, "q", body).await;
    }
    app.assert_conserved(&app.database, "q").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_ordered_queue_drops_lets_the_next_of_its_key_through() {
    let app = App::start().await;
    let mut settings = ordered();
    settings["max_ready"] = json!(1);
    settings["overflow"] = json!("drop_oldest");
    app.queue("q", settings).await;
    let mut application = app.database.connect().await;
    run(
        &mut application,
        "SELECT postrider.publish('q', '1', key => 'a'), postrider.publish('q', '2', key => 'a'),
            postrider.publish('q', '3', key => 'a')",
    )
    .await;
    eventually("two were dropped", async || {
        rows(&app.database).await == (0, 0) && app.counts("q").await["ready"] == 1
    })
    .await;
    ack_next(&app, "q", 3).await;
}
