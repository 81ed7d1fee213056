//! Canaries in webhooks and in what is pushed to them.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{CANARY, Forbidden, canary, message, post};
use crate::support::{Answer, Receiver, Reply, eventually};
use crate::telemetry::Running;

/// Pushes that are answered well, badly and not at all; secrets in the URL and
/// the headers.
pub(super) async fn webhooks(running: &Running, receiver: &Receiver, forbidden: &mut Forbidden) {
    running
        .queue(
            "pushed",
            json!({"backoff": {"initial_seconds": 0}, "max_attempts": 3}),
        )
        .await;
    let path = "/v1/queues/pushed/webhook";
    let settings = |url: String| {
        json!({"url": url, "headers": {"Authorization": format!("Bearer {CANARY}")},
            "timeout_seconds": 1})
    };
    for url in [
        format!("http://me:{CANARY}@example.com/"),
        format!("http://10.0.0.1/{CANARY}"),
        format!("ftp://{CANARY}"),
        format!("http://no.such.host.invalid/{CANARY}"),
    ] {
        let refused = running.send(Method::PUT, path, settings(url)).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
    }
    let url = receiver.url(&format!("/{CANARY}?token={CANARY}"));
    let made = running.send(Method::PUT, path, settings(url)).await;
    let made = made.expect(StatusCode::CREATED);
    forbidden.add(&made["secret"]);
    receiver.next(Reply::with(
        500,
        &[("x-said", CANARY)],
        canary("answer").as_bytes(),
    ));
    receiver.next(Reply::redirect(302, &format!("/{CANARY}")));
    let publish = "/v1/queues/pushed/messages";
    post(running, publish, &message())
        .await
        .expect(StatusCode::CREATED);
    receiver.wait_for(3).await;
    post(
        running,
        &format!("{path}/test"),
        &json!({"body": canary("test")}),
    )
    .await;
    let rotated = post(running, &format!("{path}/rotate-secret"), &json!({})).await;
    forbidden.add(&rotated.expect(StatusCode::OK)["secret"]);

    // What is pushed before the change is known fails as well.
    receiver.usually(Reply::reset());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = json!({"url": format!("http://{nobody}/{CANARY}")});
    running
        .send(Method::PATCH, path, url)
        .await
        .expect(StatusCode::OK);
    let mut fresh = message();
    fresh["dedup_id"] = json!(canary("fresh"));
    post(running, publish, &fresh)
        .await
        .expect(StatusCode::CREATED);
    eventually("it was given up", async || {
        let queue = running.request(Method::GET, "/v1/queues/pushed");
        Answer::of(queue).await.json()["dead"] == 1
    })
    .await;
}
