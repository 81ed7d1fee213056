//! Pushes.

use reqwest::StatusCode;
use serde_json::json;

use super::{scrape, shows};
use crate::support::{Reply, eventually};
use crate::workers::push::Hook;

#[tokio::test(flavor = "multi_thread")]
async fn pushes_are_counted_by_outcome_and_the_breaker_shows_until_the_webhook_is_deleted() {
    let breaker = json!({"circuit_breaker": {
        "failure_rate": 0.6, "window": 10, "min_calls": 5, "open_seconds": 600,
    }});
    let hook = Hook::start(breaker, json!({"max_attempts": 1})).await;
    for (n, status) in [204, 500, 204, 500].into_iter().enumerate() {
        hook.receiver.next(Reply::status(status));
        hook.publish("orders", json!({"body": n})).await;
        hook.wait_for_attempts("", n + 1).await;
    }
    shows(
        &hook,
        &[
            "postrider_webhook_attempts_total{queue=\"orders\",outcome=\"delivered\"} 2",
            "postrider_webhook_attempts_total{queue=\"orders\",outcome=\"failed\"} 2",
            "postrider_webhook_attempts_total{queue=\"orders\",outcome=\"gone\"} 0",
            "postrider_webhook_attempts_total{queue=\"orders\",outcome=\"waiting\"} 0",
            "postrider_webhook_attempt_duration_seconds_count{queue=\"orders\"} 4",
            "postrider_webhook_breaker_state{queue=\"orders\"} 0",
            "postrider_queue_acked_total{queue=\"orders\"} 2",
            "postrider_queue_nacked_total{queue=\"orders\"} 2",
        ],
    )
    .await;
    hook.receiver.usually(Reply::status(500));
    for n in 4..6 {
        hook.publish("orders", json!({"body": n})).await;
    }
    shows(
        &hook,
        &["postrider_webhook_breaker_state{queue=\"orders\"} 2"],
    )
    .await;

    hook.delete("/v1/queues/orders/webhook")
        .await
        .expect(StatusCode::NO_CONTENT);
    eventually("its series are gone", async || {
        !scrape(&hook)
            .await
            .contains("postrider_webhook_attempts_total{")
    })
    .await;
    eventually("its breaker is gone", async || {
        !scrape(&hook)
            .await
            .contains("postrider_webhook_breaker_state{")
    })
    .await;
}
