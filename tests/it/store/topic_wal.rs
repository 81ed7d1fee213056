//! What a fan-out costs in write-ahead log, beside as many publishes.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::execute;
use crate::support::{App, Database};

async fn wal(database: &Database) -> i64 {
    super::number(
        database,
        "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint",
    )
    .await
}

async fn send(app: &App, path: &str, messages: usize, body: &str) {
    let messages: Vec<Value> = (0..messages).map(|_| json!({"body": body})).collect();
    app.post(path, json!({"messages": messages}))
        .await
        .expect(StatusCode::CREATED);
}

/// Nobody else is on its server, but the gateway's own workers are: the least of some
/// rounds is what the statement itself writes.
async fn cost(app: &App, mut round: impl AsyncFnMut()) -> i64 {
    let mut least = i64::MAX;
    for _ in 0..10 {
        let before = wal(&app.database).await;
        round().await;
        least = least.min(wal(&app.database).await - before);
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_subscriptions_cost_at_most_a_third_of_ten_publishes() {
    let app = App::start_on(Database::alone("topic-wal").await).await;
    app.topic("shop", json!({})).await;
    for n in 0..10 {
        app.subscription("shop", &format!("s{n}"), json!({})).await;
    }
    let body = "x".repeat(1022);
    // One at a time and in batches. Images of whole pages after a checkpoint are
    // not what is compared: all pages have been touched once.
    execute(&app.database, "CHECKPOINT").await;
    for batch in [1, 100] {
        let fan_out = cost(&app, async || {
            send(&app, "/v1/topics/shop/messages", batch, &body).await;
        })
        .await;
        let ten = cost(&app, async || {
            for n in 0..10 {
                send(
                    &app,
                    &format!("/v1/queues/shop.s{n}/messages"),
                    batch,
                    &body,
                )
                .await;
            }
        })
        .await;
        println!("{batch} a batch: {fan_out} beside {ten} bytes, {:.3}", {
            #[expect(clippy::cast_precision_loss, reason = "to look at")]
            {
                fan_out as f64 / ten as f64
            }
        });
        assert!(
            fan_out * 3 <= ten,
            "{batch} a batch: {fan_out} beside {ten}"
        );
    }
}
