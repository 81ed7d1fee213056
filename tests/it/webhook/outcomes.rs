//! What each answer means, and what a receiver gets to see.

use std::time::Duration;

use bytes::Bytes;
use postrider::domain::{Seconds, WebhookUrl};
use postrider::webhook::{KEPT, Push, PushOutcome};

use super::support::{BODY, PATIENT, allow, now, push, pusher, secret};
use crate::support::{Receiver, Reply};

#[tokio::test]
async fn each_status_has_its_outcome() {
    let receiver = Receiver::start().await;
    let pusher = pusher();
    let soon = Seconds::new(7);
    for (status, headers, expected) in [
        (200, &[][..], PushOutcome::Delivered),
        (201, &[], PushOutcome::Delivered),
        (204, &[], PushOutcome::Delivered),
        (299, &[("retry-after", "7")], PushOutcome::Delivered),
        (300, &[], PushOutcome::Failed),
        (304, &[], PushOutcome::Failed),
        (400, &[], PushOutcome::Failed),
        (404, &[("retry-after", "7")], PushOutcome::Failed),
        (410, &[], PushOutcome::Gone),
        (410, &[("retry-after", "7")], PushOutcome::Gone),
        (429, &[("retry-after", "7")], PushOutcome::Wait(soon)),
        (429, &[], PushOutcome::Failed),
        (429, &[("retry-after", "soon")], PushOutcome::Failed),
        (429, &[("retry-after", "-7")], PushOutcome::Failed),
        (500, &[("retry-after", "7")], PushOutcome::Failed),
        (503, &[("retry-after", "7")], PushOutcome::Wait(soon)),
        (
            503,
            &[("retry-after", "0")],
            PushOutcome::Wait(Seconds::new(1)),
        ),
        (
            503,
            &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")],
            PushOutcome::Wait(Seconds::new(1)),
        ),
        (
            503,
            &[("retry-after", "999999999999")],
            PushOutcome::Wait(Seconds::YEAR),
        ),
        (503, &[], PushOutcome::Failed),
    ] {
        receiver.next(Reply::with(status, headers, b""));
        let pushed = push(&pusher, &receiver.url("/hook"), PATIENT).await;
        assert_eq!(pushed.outcome, expected, "{status} {headers:?}: {pushed:?}");
        assert_eq!(pushed.status, Some(status));
        assert_eq!(pushed.error, None);
    }
    // All of them over one connection.
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_date_to_retry_after_is_seen_from_the_pushs_time() {
    let receiver = Receiver::start().await;
    let at = chrono::DateTime::from_timestamp(now() + 90, 0).unwrap();
    let date = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    receiver.next(Reply::with(503, &[("retry-after", &date)], b""));
    let pushed = push(&pusher(), &receiver.url("/"), PATIENT).await;
    let PushOutcome::Wait(wait) = pushed.outcome else {
        panic!("{pushed:?}");
    };
    assert!(
        (Seconds::new(60)..=Seconds::new(90)).contains(&wait),
        "{wait}"
    );
}

#[tokio::test]
async fn the_reference_library_accepts_what_a_receiver_gets() {
    let receiver = Receiver::start().await;
    let pushed = push(&pusher(), &receiver.url("/hook?token=1"), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");

    let request = receiver.requests().remove(0);
    assert_eq!(request.method, "POST");
    assert_eq!(request.path, "/hook?token=1");
    assert_eq!(request.body, BODY);
    assert_eq!(request.header("webhook-id"), Some("12345"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let agent = concat!("postrider/", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent));
    let host = receiver.address().to_string();
    assert_eq!(request.header("host"), Some(host.as_str()));
    for unasked in ["accept-encoding", "referer", "transfer-encoding", "cookie"] {
        assert_eq!(request.header(unasked), None);
    }

    let headers = request.headers.iter().map(|(name, value)| {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        (name, value.parse().unwrap())
    });
    let reference = standardwebhooks::Webhook::new(&secret().reveal()).unwrap();
    reference.verify(&request.body, &headers.collect()).unwrap();
}

#[tokio::test]
async fn headers_of_the_webhook_are_sent_but_ours_stay_ours() {
    let receiver = Receiver::start().await;
    let url = WebhookUrl::parse(&receiver.url("/"), &allow(&["127.0.0.1/32"])).unwrap();
    let push = |headers: &[(&str, &str)]| Push {
        url: &url,
        headers: headers
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect(),
        id: "1",
        timestamp: 2,
        signature: "v1,xyz".to_owned(),
        body: Bytes::new(),
        timeout: PATIENT,
    };
    let pusher = pusher();
    let pushed = pusher
        .push(push(&[
            ("user-agent", "other"),
            ("x-shop", "grün"),
            ("X-Twice", "1"),
            ("x-twice", "2"),
            ("Webhook-Id", "forged"),
            ("webhook-signature", "forged"),
        ]))
        .await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
    let request = receiver.requests().remove(0);
    for (name, value) in [
        ("user-agent", "other"),
        ("x-shop", "grün"),
        ("x-twice", "2"),
        ("webhook-id", "1"),
        ("webhook-timestamp", "2"),
        ("webhook-signature", "v1,xyz"),
        ("content-length", "0"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
    assert_eq!(request.body, b"");

    for header in [("x", "a\r\nb: c"), ("a b", "c"), ("", "c"), ("x", "a\0")] {
        let pushed = pusher.push(push(&[header])).await;
        assert_eq!(pushed.outcome, PushOutcome::Failed);
        assert!(pushed.error.unwrap().contains("cannot be sent"));
    }
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn the_first_of_an_answer_is_kept_as_it_came() {
    let receiver = Receiver::start().await;
    let pusher = pusher();
    for (status, length) in [
        (200, 0),
        (500, 5),
        (200, KEPT),
        (200, KEPT + 1),
        (400, 16 * 1024),
    ] {
        let body: Vec<u8> = (0..=250).cycle().take(length).collect();
        receiver.next(Reply::with(status, &[], &body));
        let pushed = push(&pusher, &receiver.url("/"), PATIENT).await;
        assert_eq!(pushed.status, Some(status));
        assert!(pushed.answer == body[..length.min(KEPT)], "{length}");
        assert_eq!(pushed.error, None);
    }
}

#[tokio::test]
async fn pushes_at_the_same_time_do_not_wait_for_each_other() {
    let receiver = Receiver::start().await;
    receiver.usually(Reply::status(200).after(Duration::from_millis(300)));
    let pusher = pusher();
    let url = receiver.url("/");
    let began = std::time::Instant::now();
    let all = (0..20).map(|_| push(&pusher, &url, PATIENT));
    for pushed in futures_util::future::join_all(all).await {
        assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
        assert!(pushed.duration >= Duration::from_millis(300));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(receiver.most_at_once(), 20);
}

#[tokio::test]
async fn receivers_on_one_host_are_told_apart_by_their_paths() {
    let receiver = Receiver::start().await;
    receiver.usually_on("/gone", Reply::status(410));
    receiver.next_on("/flaky", Reply::status(500));
    let pusher = pusher();
    for (path, expected) in [
        ("/flaky", PushOutcome::Failed),
        ("/flaky", PushOutcome::Delivered),
        ("/gone", PushOutcome::Gone),
        ("/", PushOutcome::Delivered),
    ] {
        let pushed = push(&pusher, &receiver.url(path), PATIENT).await;
        assert_eq!(pushed.outcome, expected, "{path}: {pushed:?}");
    }
    let requests = receiver.wait_for(4).await;
    assert!(requests.is_sorted_by_key(|request| request.at));
}
