//! The list of attempts.

use postrider::domain::MessageId;
use postrider::store::PushOutcomeKind;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook, record};
use crate::store::queue_id;
use crate::support::App;

async fn list(app: &App, query: &str) -> Vec<Value> {
    app.get(&format!("{HOOK}/attempts{query}"))
        .await
        .expect(StatusCode::OK)["attempts"]
        .as_array()
        .unwrap()
        .clone()
}

fn ids(attempts: &[Value]) -> Vec<i64> {
    attempts
        .iter()
        .map(|attempt| {
            let id = attempt["message_id"].as_str().unwrap();
            MessageId::parse(id).unwrap().0
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_shown_with_all_that_is_known_of_it() {
    let (app, _) = app_with_webhook(json!({})).await;
    let queue = queue_id(&app.database, "orders").await;
    let mut failed = record(queue, 7, 1, Some(500));
    failed.attempt = 3;
    failed.error = Some("answered \0 500".to_owned());
    failed.answer = b"x".repeat(2000);
    let mut bytes = record(queue, 8, 2, Some(200));
    bytes.answer = vec![0xff, 0];
    let mut nothing = record(queue, 9, 3, None);
    nothing.answer = Vec::new();
    let store = app.app.store();
    store
        .record_pushes(&[failed, bytes, nothing])
        .await
        .unwrap();

    let attempts = list(&app, "").await;
    assert_eq!(ids(&attempts), [7, 8, 9]);
    assert_eq!(attempts[0]["attempt"], 3);
    assert_eq!(attempts[0]["outcome"], "failed");
    assert_eq!(attempts[0]["status"], 500);
    assert_eq!(attempts[0]["duration_seconds"], 0.042);
    // What Postgres cannot store is left out, and what is too long cut off.
    assert_eq!(attempts[0]["error"], "answered  500");
    assert_eq!(attempts[0]["answer"], "x".repeat(1024));
    assert_eq!(attempts[1]["answer"], Value::Null);
    assert_eq!(attempts[1]["answer_base64"], "/wA=");
    assert_eq!(attempts[1]["error"], Value::Null);
    assert_eq!(attempts[2]["status"], Value::Null);
    assert_eq!(attempts[2]["answer"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_come_newest_first_in_pages_that_miss_none() {
    let (app, _) = app_with_webhook(json!({})).await;
    let queue = queue_id(&app.database, "orders").await;
    // Over midnight too, and each moment twice.
    let records: Vec<_> = (0..20u64)
        .map(|n| record(queue, i64::try_from(n).unwrap(), n / 2 * 3600, Some(200)))
        .collect();
    app.app.store().record_pushes(&records).await.unwrap();
    let all = ids(&list(&app, "").await);
    assert_eq!(all.len(), 20);
    assert!(all[0] < 2 && all[19] >= 18, "{all:?}");

    let mut seen = Vec::new();
    let mut path = format!("{HOOK}/attempts?limit=7&status=200");
    loop {
        let answer = app.get(&path).await;
        let page = answer.expect(StatusCode::OK);
        seen.extend(ids(page["attempts"].as_array().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(!answer.headers.contains_key("link"));
            break;
        };
        path = format!("{HOOK}/attempts?limit=7&status=200&cursor={cursor}");
        let link = answer.headers["link"].to_str().unwrap();
        assert_eq!(link, format!("<{path}>; rel=\"next\""));
    }
    assert_eq!(seen, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_filtered_by_message_by_status_and_by_what_they_came_to() {
    let (app, _) = app_with_webhook(json!({})).await;
    let queue = queue_id(&app.database, "orders").await;
    app.queue("other", json!({})).await;
    let other = queue_id(&app.database, "other").await;
    let mut waiting = record(queue, 4, 4, Some(503));
    waiting.outcome = PushOutcomeKind::Waiting;
    let records = [
        record(queue, 1, 1, Some(200)),
        record(queue, 2, 2, Some(500)),
        record(queue, 3, 3, Some(410)),
        waiting,
        record(queue, 5, 5, None),
        record(queue, 2, 6, Some(204)),
        record(other, 2, 7, Some(500)),
    ];
    app.app.store().record_pushes(&records).await.unwrap();
    for (query, expected) in [
        ("", &[1, 2, 3, 4, 5, 2][..]),
        ("?status=delivered", &[1, 2]),
        ("?status=failed", &[2, 5]),
        ("?status=gone", &[3]),
        ("?status=waiting", &[4]),
        ("?status=200", &[1]),
        ("?status=500", &[2]),
        ("?status=503", &[4]),
        ("?status=404", &[]),
        (&format!("?message_id={}", MessageId(2)), &[2, 2]),
        (&format!("?message_id={}&status=failed", MessageId(2)), &[2]),
        (&format!("?message_id={}", MessageId(99)), &[]),
    ] {
        assert_eq!(ids(&list(&app, query).await), expected, "{query}");
    }
}
