//! Resends and test pushes, the whole way.

use reqwest::StatusCode;
use serde_json::json;

use super::{HOOK, Hook, pushed_id, verifies};
use crate::support::Reply;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_or_is_dead_is_pushed_again_with_its_id() {
    let hook = Hook::start(json!({}), json!({"max_attempts": 1})).await;
    let delivered = hook.publish("orders", json!({"body": 1})).await;
    hook.wait_for_attempts("", 1).await;
    hook.receiver.next(Reply::status(500));
    let dead = hook.publish("orders", json!({"body": 2})).await;
    hook.dead_letter(&dead).await;
    hook.wait_for_attempts("", 2).await;
    hook.drained().await;

    let ids = json!({"message_ids": [delivered, dead]});
    let resent = hook
        .post(&format!("{HOOK}/resend"), ids)
        .await
        .expect(StatusCode::OK);
    assert_eq!(
        resent["results"],
        json!([{"ok": true, "was_dead": false}, {"ok": true, "was_dead": true}])
    );
    let requests = hook.receiver.wait_for(4).await;
    hook.drained().await;
    for id in [&delivered, &dead] {
        let pushed: Vec<_> = requests.iter().filter(|r| pushed_id(r) == id).collect();
        assert_eq!(pushed.len(), 2);
        assert_eq!(pushed[0].body, pushed[1].body);
        assert!(verifies(&hook.secret, pushed[1]));
        assert_eq!(pushed[1].header("postrider-attempt"), Some("1"));
        let attempts = hook.wait_for_attempts(&format!("message_id={id}"), 2).await;
        assert_eq!(attempts[0]["outcome"], "delivered");
    }
    assert_eq!(hook.counts("orders").await["dead"], 0);
    hook.assert_conserved(&hook.database, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_push_goes_out_whatever_the_lane_does() {
    let hook = Hook::start(json!({"max_in_flight": 1}), json!({})).await;
    hook.receiver.next(Reply::hang());
    hook.publish("orders", json!({"body": 1})).await;
    hook.receiver.wait_for(1).await;
    hook.receiver.next(Reply::status(410));
    let tested = hook
        .post(&format!("{HOOK}/test"), "{}")
        .await
        .expect(StatusCode::OK);
    assert_eq!(tested["outcome"], "gone", "{tested}");
    let requests = hook.receiver.wait_for(2).await;
    assert!(verifies(&hook.secret, &requests[1]));
    assert_eq!(tested["webhook_id"], pushed_id(&requests[1]));
    assert_eq!(hook.webhook().await["status"], "active");
    assert!(hook.attempts("").await.is_empty());
}
