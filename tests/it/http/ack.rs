//! `POST /v1/queues/{queue}/ack`.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::App;

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_message_is_gone_and_the_same_ack_is_fine_twice() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let id = app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
    assert_eq!(message["id"], id.as_str());
    for _ in 0..2 {
        let answer = app
            .settle("ack", "orders", &[&message["receipt"]], json!({}))
            .await;
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({"results": [{"ok": true}]})
        );
    }
    let counts = app.counts("orders").await;
    assert_eq!(
        (&counts["ready"], &counts["leased"]),
        (&json!(0), &json!(0))
    );
    app.assert_conserved(&app.database, "orders").await;
}
