//! Receivers that hang, lie, flood and vanish: a push ends in bounded time, with
//! bounded memory, and says what happened.

use std::time::{Duration, Instant};

use postrider::webhook::{KEPT, PushOutcome, Pushed};

use super::support::{PATIENT, push, pusher};
use crate::support::{Receiver, Reply};

const SHORT: Duration = Duration::from_millis(700);

/// Pushes to a receiver that answers so; fails if it takes longer than it may.
async fn push_at(reply: Reply, timeout: Duration) -> Pushed {
    let receiver = Receiver::start().await;
    receiver.usually(reply);
    let began = Instant::now();
    let pushed = push(&pusher(), &receiver.url("/"), timeout).await;
    let took = began.elapsed();
    assert!(
        took < timeout + Duration::from_secs(2),
        "{took:?}: {pushed:?}"
    );
    assert!(pushed.duration <= took);
    assert!(pushed.answer.len() <= KEPT);
    // Whatever it was, it was not tried again.
    assert_eq!(receiver.requests().len(), 1);
    pushed
}

#[track_caller]
fn assert_failed(pushed: &Pushed, status: Option<u16>, why: &str) {
    assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
    assert_eq!(pushed.status, status, "{pushed:?}");
    let error = pushed.error.as_deref().unwrap();
    assert!(error.contains(why), "{error}");
    assert!(!error.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn the_deadline_holds_before_the_head() {
    let waiting = "timed out after 0.7 s while waiting for the answer's head";
    for reply in [
        Reply::hang(),
        Reply::drip_head(),
        Reply::status(200).after(Duration::from_secs(5)),
    ] {
        assert_failed(&push_at(reply, SHORT).await, None, waiting);
    }
}

#[tokio::test]
async fn the_deadline_holds_for_the_body() {
    let reading = "timed out after 0.7 s while reading the answer's body";
    for reply in [Reply::drip(), Reply::promise()] {
        assert_failed(&push_at(reply, SHORT).await, Some(200), reading);
    }
}

#[tokio::test]
async fn the_deadline_holds_for_connecting() {
    // A listener whose queue is full: connections to it hang.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(connection)) = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        filling.push(connection);
        if filling.len() == 100 {
            // A kernel that takes all of them; they hang later.
            break;
        }
    }
    let began = Instant::now();
    let pushed = push(&pusher(), &format!("http://{address}/"), SHORT).await;
    assert_failed(&pushed, None, "timed out after 0.7 s");
    assert!(began.elapsed() < SHORT + Duration::from_secs(2));
}

#[tokio::test]
async fn of_a_body_without_an_end_the_status_counts() {
    let pushed = push_at(Reply::endless(200), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
    assert!(pushed.answer == [b'z'; KEPT]);
    let pushed = push_at(Reply::endless(500), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
    assert_eq!(pushed.status, Some(500));
    assert_eq!(pushed.error, None);
}

#[tokio::test]
async fn a_head_without_an_end_is_cut_off() {
    let pushed = push_at(Reply::endless_head(), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
    assert!(pushed.duration < Duration::from_secs(10), "{pushed:?}");
    assert_eq!(pushed.status, None);
}

#[tokio::test]
async fn a_gzip_bomb_stays_packed() {
    let pushed = push_at(Reply::gzip_bomb(), PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
    assert_eq!(pushed.answer[..3], [0x1f, 0x8b, 8]);
    assert_eq!(pushed.answer.len(), KEPT);
    // Unpacked it is nothing but zeros.
    assert!(pushed.answer[20..].iter().any(|byte| *byte != 0));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start().await;
    for status in [301, 302, 303, 307, 308] {
        let reply = Reply::redirect(status, &elsewhere.url("/"));
        let pushed = push_at(reply, PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
        assert_eq!(pushed.status, Some(status));
        assert_eq!(pushed.answer, b"over there");
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn resets_and_early_ends_are_failures() {
    let pushed = push_at(Reply::reset(), PATIENT).await;
    assert_failed(&pushed, None, "the connection was");
    let pushed = push_at(Reply::raw(b""), PATIENT).await;
    assert_failed(&pushed, None, "the connection was closed");
    let pushed = push_at(Reply::raw(b"HTTP/1.1 200 OK\r\nx: "), PATIENT).await;
    assert_failed(&pushed, None, "the connection was closed");
    let pushed = push_at(Reply::reset_after_head(), PATIENT).await;
    assert_failed(&pushed, Some(200), "the connection was");
    assert_eq!(pushed.answer, b"half");
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let pushed = push_at(Reply::raw(half), PATIENT).await;
    assert_failed(&pushed, Some(200), "the connection was closed");
}

#[tokio::test]
async fn what_is_not_http_is_said_so() {
    for bytes in [&b"220 mail.example ESMTP\r\n"[..], b"SSH-2.0-x\r\n\r\n"] {
        let pushed = push_at(Reply::raw(bytes), PATIENT).await;
        assert_failed(&pushed, None, "the answer is not HTTP");
    }
}

#[tokio::test]
async fn nobody_listening_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let pushed = push(&pusher(), &format!("http://{address}/"), PATIENT).await;
    assert_failed(&pushed, None, "connection refused");
}
