//! What may not be connected to is not, whatever was stored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use postrider::domain::{AllowList, WebhookUrl};
use postrider::webhook::{Error, Names, PushOutcome, Pusher};

use super::support::{PATIENT, allow, push, pusher};
use crate::support::Receiver;

/// Without a list.
fn strict() -> Pusher {
    Pusher::new(AllowList::default()).unwrap()
}

#[tokio::test]
async fn a_literal_address_is_checked_again_before_each_push() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    // Stored when the list still had it.
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ] {
        let pushed = push(&strict(), &format!("http://{host}:{port}/"), PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Failed);
        let error = pushed.error.unwrap();
        assert!(error.starts_with("address forbidden: "), "{error}");
        assert!(error.contains("--webhook-allow"), "{error}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn the_list_is_held_to_its_ports() {
    let (named, other) = (Receiver::start().await, Receiver::start().await);
    let entry = format!("127.0.0.1/32:{}", named.address().port());
    let pusher = Pusher::new(allow(&[&entry])).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let url = |receiver: &Receiver| receiver.url("/").replace("127.0.0.1", host);
        let pushed = push(&pusher, &url(&other), PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Failed, "{host}");
        let error = pushed.error.unwrap();
        assert!(error.starts_with("address forbidden: "), "{error}");
    }
    assert_eq!(other.connections(), 0);
    let pushed = push(&pusher, &named.url("/"), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
}

#[tokio::test]
async fn a_name_that_resolves_to_a_forbidden_address_is_not_connected_to() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    // On the port, but not for loopback.
    let pusher = Pusher::new(allow(&[&format!("192.0.2.0/24:{port}")])).unwrap();
    let url = format!("http://localhost:{port}/");
    let url = WebhookUrl::parse(&url, &allow(&["0.0.0.0/0"])).unwrap();
    let checked = pusher.check(&url).await;
    assert!(matches!(checked, Err(Error::Name { .. })), "{checked:?}");
    let pushed = push(&pusher, &url.to_string(), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed);
    let error = pushed.error.unwrap();
    assert!(error.contains("localhost resolves to "), "{error}");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn an_allowed_name_is_checked_and_pushed_to() {
    let receiver = Receiver::start().await;
    let url = receiver.url("/").replace("127.0.0.1", "localhost");
    let parsed = WebhookUrl::parse(&url, &allow(&["127.0.0.0/8"])).unwrap();
    pusher().check(&parsed).await.unwrap();
    // A check never connects.
    assert_eq!(receiver.connections(), 0);
    let pushed = push(&pusher(), &url, PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_said_so() {
    // RFC 6761: never there.
    let url = WebhookUrl::parse("https://hooks.invalid/", &AllowList::default()).unwrap();
    let checked = strict().check(&url).await;
    assert!(
        matches!(checked, Err(Error::Unresolved { .. })),
        "{checked:?}"
    );
    let pushed = push(&strict(), "http://hooks.invalid/?token=s3cret", PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed);
    let error = pushed.error.unwrap();
    assert!(error.contains("hooks.invalid does not resolve"), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
}

/// Somebody who answers so, one after the other, and with the last of them for ever;
/// and how often they were asked.
fn changing(answers: &[SocketAddr]) -> (Names, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (answers, count) = (answers.to_vec(), Arc::clone(&asked));
    let names = Names::new(move |_, _| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        let answer = answers[at.min(answers.len() - 1)];
        async move { Ok(vec![answer]) }.boxed()
    });
    (names, asked)
}

#[tokio::test]
async fn a_name_that_moves_to_a_forbidden_address_after_its_check_is_not_connected_to() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let public = format!("1.1.1.1:{port}").parse().unwrap();
    let (names, asked) = changing(&[public, receiver.address()]);
    // On the port, but not for loopback.
    let list = allow(&[&format!("1.1.1.1/32:{port}")]);
    let pusher = Pusher::with_names(list.clone(), names).unwrap();
    let url = format!("http://hooks.example:{port}/");
    pusher
        .check(&WebhookUrl::parse(&url, &list).unwrap())
        .await
        .unwrap();
    let pushed = push(&pusher, &url, PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed);
    let error = pushed.error.unwrap();
    assert!(
        error.contains("hooks.example resolves to 127.0.0.1"),
        "{error}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn the_address_that_is_connected_to_is_the_one_that_was_checked() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    // Where nobody listens, and then where the receiver does.
    let checked = format!("127.0.0.2:{port}").parse().unwrap();
    let (names, asked) = changing(&[checked, receiver.address()]);
    let pusher = Pusher::with_names(allow(&["127.0.0.2/32"]), names).unwrap();
    let url = format!("http://hooks.example:{port}/");
    let pushed = push(&pusher, &url, PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed);
    // It did get as far as that, and asked nobody again.
    let error = pushed.error.unwrap();
    assert!(!error.contains("resolve"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(receiver.connections(), 0);
}
