//! Pushes of tests.

use std::time::Duration;

use bytes::Bytes;
use postrider::domain::{AllowEntry, AllowList, WebhookSecret, WebhookUrl, sign};
use postrider::webhook::{Push, Pushed, Pusher};

pub(super) fn allow(entries: &[&str]) -> AllowList {
    let parsed = entries.iter().map(|text| text.parse::<AllowEntry>());
    parsed.map(Result::unwrap).collect()
}

/// One that may reach loopback.
pub(super) fn pusher() -> Pusher {
    Pusher::new(allow(&["127.0.0.0/8", "[::1]/128"])).unwrap()
}

pub(super) fn secret() -> WebhookSecret {
    WebhookSecret::new([42; 32])
}

/// The time of this machine, which receivers compare with.
#[expect(clippy::disallowed_methods, reason = "there is no database here")]
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

pub(super) const BODY: &[u8] = br#"{"order": 7, "note": "gr\u00fcn"}"#;

/// Pushes [`BODY`], signed by [`secret`].
pub(super) async fn push(pusher: &Pusher, url: &str, timeout: Duration) -> Pushed {
    let everything = allow(&["0.0.0.0/0", "[::]/0"]);
    push_to(
        pusher,
        &WebhookUrl::parse(url, &everything).unwrap(),
        timeout,
    )
    .await
}

pub(super) async fn push_to(pusher: &Pusher, url: &WebhookUrl, timeout: Duration) -> Pushed {
    let timestamp = now();
    let push = Push {
        url,
        headers: vec![("content-type".into(), "application/json".into())],
        id: "12345",
        timestamp,
        signature: sign(&[secret().as_bytes()], "12345", timestamp, BODY),
        body: Bytes::from_static(BODY),
        timeout,
    };
    pusher.push(push).await
}

/// Long enough for everything that answers.
pub(super) const PATIENT: Duration = Duration::from_secs(20);
