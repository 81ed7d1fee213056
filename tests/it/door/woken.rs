//! Who waits for a message has it when the transaction commits: endpoints of
//! webhooks, and receivers at whichever gateway.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::run;
use crate::support::{App, Gateway, Received, Receiver};

/// Who is woken has its message within this; the poll is every two seconds.
const WOKEN: Duration = Duration::from_secs(1);

fn bodies(requests: &[Received]) -> Vec<Value> {
    let bodies = requests.iter();
    let bodies = bodies.map(|request| serde_json::from_slice(&request.body).unwrap());
    bodies.collect()
}

/// Publishes with this function to this queue or topic, which has a webhook, in
/// transactions that stay open, are rolled back and commit. What others publish in
/// the meantime is pushed: so the gateways have looked, and let lie what is open.
async fn is_pushed_after_the_commit_only(app: &App, receiver: &Receiver, function: &str, to: &str) {
    let call = |body: &str| format!("SELECT postrider.{function}('{to}', '\"{body}\"')");
    let mut application = app.database.connect().await;
    let mut others = app.database.connect().await;

    let begun = format!("BEGIN; {}", call("rolled back"));
    run(&mut application, &begun).await;
    run(&mut others, &call("while open")).await;
    assert_eq!(bodies(&receiver.wait_for(1).await), ["while open"]);
    run(&mut application, "ROLLBACK").await;
    run(&mut others, &call("after the rollback")).await;
    assert_eq!(
        bodies(&receiver.wait_for(2).await)[1..],
        ["after the rollback"]
    );

    let begun = format!("BEGIN; {}", call("committed"));
    run(&mut application, &begun).await;
    run(&mut others, &call("while open again")).await;
    assert_eq!(
        bodies(&receiver.wait_for(3).await)[2..],
        ["while open again"]
    );
    let committed = Instant::now();
    run(&mut application, "COMMIT").await;
    let requests = receiver.wait_for(4).await;
    assert_eq!(bodies(&requests)[3..], ["committed"]);
    let took = requests[3].at - committed;
    assert!(took < WOKEN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_a_message_after_the_commit_and_only_then() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.queue("orders", json!({})).await;
    let hook = json!({"url": receiver.url("/hook")});
    app.put("/v1/queues/orders/webhook", hook)
        .await
        .expect(reqwest::StatusCode::CREATED);
    is_pushed_after_the_commit_only(&app, &receiver, "publish", "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_of_a_subscription_gets_a_message_after_the_commit_and_only_then() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.topic("shop", json!({})).await;
    let hook = json!({"webhook": {"url": receiver.url("/hook")}});
    app.subscription("shop", "pushed", hook).await;
    is_pushed_after_the_commit_only(&app, &receiver, "publish_topic", "shop").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_commit_wakes_receivers_of_two_queues_at_two_gateways() {
    let app = App::start().await;
    let other = app.another().await;
    app.until_acquainted(&other).await;
    app.queue("one", json!({})).await;
    app.queue("two", json!({})).await;
    let mut application = app.database.connect().await;
    let arrived = async |gateway: &Gateway, queue: &str| {
        let message = gateway.receive_one(queue).await;
        assert_eq!(message["body"], queue);
        Instant::now()
    };
    // Either gateway may be the one that takes them out of the door.
    for (here, there) in [("one", "two"), ("two", "one")] {
        run(
            &mut application,
            r#"BEGIN; SELECT postrider.publish('one', '"one"');
             SELECT postrider.publish('two', '"two"')"#,
        )
        .await;
        let commit = async {
            tokio::join!(app.until_waiting(1), other.until_waiting(1));
            let committed = Instant::now();
            run(&mut application, "COMMIT").await;
            committed
        };
        let (one, two, committed) =
            tokio::join!(arrived(&app, here), arrived(&other, there), commit);
        let took = one.max(two) - committed;
        assert!(took < WOKEN, "{took:?}");
    }
}
