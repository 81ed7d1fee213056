//! Clients that go away in the middle.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{App, eventually};

fn request(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_lose_nothing_and_poison_no_connection() {
    let app = App::start().await;
    // What is sent to a socket just closed comes back when its lease ends.
    app.queue("work", json!({"lease_seconds": 5, "max_attempts": 1000}))
        .await;
    let publish = request(
        "/v1/queues/work/messages",
        r#"{"messages":[{"body":1},{"body":2}]}"#,
    );
    let calls = [
        publish.clone(),
        publish[..publish.len() - 5].to_owned(),
        request(
            "/v1/queues/work/receive",
            r#"{"wait_seconds":20,"max_messages":3}"#,
        ),
        request("/v1/queues/work/purge", "{}").replace("POST", "GET"),
        "GET /v1/queues/work HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    for round in 0..150usize {
        let mut stream = TcpStream::connect(app.app.address()).await.unwrap();
        stream
            .write_all(calls[round % calls.len()].as_bytes())
            .await
            .unwrap();
        // From at once to long enough for a statement to be under way.
        tokio::time::sleep(Duration::from_micros((round as u64 * 37) % 4000)).await;
        drop(stream);
    }

    let mut database = app.database.connect().await;
    let (open,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(open, 0, "connections inside a transaction");

    // Every batch is there whole or not at all, every message can be received,
    // and none is stuck with a client that is gone.
    let mut acked = 0;
    eventually("everything is received", async || {
        let messages = app.receive("work", json!({"max_messages": 100})).await;
        for message in &messages {
            app.settle("ack", "work", &[&message["receipt"]], json!({}))
                .await
                .expect(StatusCode::OK);
        }
        acked += messages.len();
        let counts = app.counts("work").await;
        counts["ready"] == 0 && counts["leased"] == 0 && counts["delayed"] == 0
    })
    .await;
    assert!(
        acked > 0 && acked.is_multiple_of(2),
        "{acked} messages of batches of two"
    );
    app.assert_conserved(&app.database, "work").await;
}

/// The lease given to a receiver that has gone is released, and was no attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_receiver_that_has_gone_is_the_next_ones_first_attempt() {
    let app = App::start().await;
    app.queue("work", json!({"lease_seconds": 3600})).await;
    for n in 0..50 {
        let mut stream = TcpStream::connect(app.app.address()).await.unwrap();
        let receive = request("/v1/queues/work/receive", r#"{"wait_seconds":20}"#);
        stream.write_all(receive.as_bytes()).await.unwrap();
        eventually("it waits", async || !app.app.broker().waiting().is_empty()).await;
        drop(stream);
        app.publish("work", json!({"body": n})).await;
        // The gateway may not have noticed that the first one is gone: then the
        // message went to a closed socket, which only the lease's end mends.
        eventually("it is noticed", async || {
            let counts = app.counts("work").await;
            counts["ready"] == 1 || counts["leased"] == 1
        })
        .await;
        if app.counts("work").await["leased"] == 1 {
            let mut database = app.database.connect().await;
            sqlx::query("UPDATE postrider.parked SET wake_at = now()")
                .execute(&mut database)
                .await
                .unwrap();
        }
        let message = app.receive_one("work").await;
        assert_eq!(message["body"], n);
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "work").await;
}

/// A client that never reads does not hold up others.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_never_read_holds_up_nobody() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    let big = "x".repeat(900_000);
    for _ in 0..5 {
        app.publish("work", json!({"body": big})).await;
    }
    let mut deaf = TcpStream::connect(app.app.address()).await.unwrap();
    let receive = request("/v1/queues/work/receive", r#"{"max_messages":4}"#);
    deaf.write_all(receive.as_bytes()).await.unwrap();
    eventually("it has its leases", async || {
        app.counts("work").await["leased"] == 4
    })
    .await;
    let message = app.receive_one("work").await;
    app.settle("ack", "work", &[&message["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    // It can still have its answer.
    let mut answer = vec![0; 12];
    deaf.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}
