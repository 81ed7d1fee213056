//! More than the gateway may have in hand, and more than its database can take.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Answer, Database, Gateway, Held, Process, config, eventually, http_client};

const MESSAGES: &str = "/v1/queues/work/messages";

/// What is answered within this is answered at once.
const AT_ONCE: Duration = Duration::from_millis(100);

async fn start(max_requests: u32, body_memory_mib: u32) -> (Database, Gateway) {
    let database = Database::migrated().await;
    let mut config = config(&database.url());
    config.max_requests = max_requests;
    config.body_memory_mib = body_memory_mib;
    let gateway = Gateway::start(&config).await;
    gateway.queue("work", json!({})).await;
    (database, gateway)
}

fn call(gateway: &Gateway, path: &str, json: &Value) -> impl Future<Output = Answer> + use<> {
    let request = gateway.request(Method::POST, path);
    let request = request.header("content-type", "application/json");
    Answer::of(request.body(json.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_requests_in_hand_all_are_refused_at_once_but_for_operations() {
    let (database, gateway) = start(4, 128).await;
    // Those who wait do not count.
    let mut receivers = JoinSet::new();
    for _ in 0..10 {
        let wait = json!({"wait_seconds": 60});
        receivers.spawn(call(&gateway, "/v1/queues/work/receive", &wait));
    }
    gateway.until_waiting(10).await;
    let held = Held::table(&database, "messages", "ACCESS EXCLUSIVE").await;
    let mut publishers = JoinSet::new();
    for n in 0..3 {
        publishers.spawn(call(&gateway, MESSAGES, &json!({"body": n})));
    }
    database.until_stuck("-- publish", 1).await;
    // A body that does not come is in hand, too.
    let mut upload = TcpStream::connect(gateway.app.address()).await.unwrap();
    upload
        .write_all(
            b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\n\
              Content-Type: application/json\r\nContent-Length: 11\r\n\r\n{\"body\"",
        )
        .await
        .unwrap();
    eventually("there is no room", async || {
        gateway.get("/v1/queues").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    for path in ["/v1/queues", "/nowhere", "/docs"] {
        eventually("it is refused at once", async || {
            let began = Instant::now();
            gateway.get(path).await.expect_problem(503, "overloaded");
            began.elapsed() < AT_ONCE
        })
        .await;
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.get(path).await.status, StatusCode::OK, "{path}");
    }
    // The rest of it makes room again, in the end.
    held.let_go().await;
    upload.write_all(b":1}x").await.unwrap();
    while let Some(answer) = publishers.join_next().await {
        answer.unwrap().expect(StatusCode::CREATED);
    }
    eventually("there is room", async || {
        gateway.get("/v1/queues").await.status == StatusCode::OK
    })
    .await;
    for _ in 0..10 {
        gateway.publish("work", json!({"body": 1})).await;
    }
    while let Some(answer) = receivers.join_next().await {
        answer.unwrap().expect(StatusCode::OK);
    }
}

/// Publishes a body that is over the queue's limit, if it is read at all; `None` if
/// the connection was closed in the middle of it, as it may be when it is not.
async fn large(gateway: &Gateway) -> Option<StatusCode> {
    let request = gateway
        .request(Method::POST, MESSAGES)
        .header("content-type", "text/plain")
        .body(vec![b'x'; 7_000_000]);
    Some(request.send().await.ok()?.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_memory_for_them_are_refused_and_small_ones_pass() {
    let (_database, gateway) = start(4096, 16).await;
    let mut upload = TcpStream::connect(gateway.app.address()).await.unwrap();
    let head = b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\n\
        Content-Type: text/plain\r\nContent-Length: 12000000\r\n\r\n";
    upload.write_all(head).await.unwrap();
    upload.write_all(&vec![b'x'; 11_000_000]).await.unwrap();
    eventually("there is no room", async || {
        large(&gateway).await == Some(StatusCode::SERVICE_UNAVAILABLE)
    })
    .await;
    // One whose length nobody knows is refused when there is no room for more.
    let mut unknown = TcpStream::connect(gateway.app.address()).await.unwrap();
    let head = b"POST /v1/queues/work/messages HTTP/1.1\r\nHost: x\r\n\
        Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    unknown.write_all(head).await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 0x10_0000], b"\r\n"].concat();
    for _ in 0..8 {
        // It may hang up before the last.
        let _ = unknown.write_all(&chunk).await;
    }
    let mut answer = [0; 12];
    if unknown.read_exact(&mut answer).await.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
    gateway.publish("work", json!({"body": "small"})).await;
    // Whoever goes away leaves the room.
    drop(upload);
    eventually("there is room", async || {
        large(&gateway).await == Some(StatusCode::PAYLOAD_TOO_LARGE)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_not_wait_is_not_kept_by_a_claim_that_is_stuck() {
    let (database, gateway) = start(4096, 128).await;
    gateway.publish("work", json!({"body": 1})).await;
    let held = Held::table(&database, "ready", "ACCESS EXCLUSIVE").await;
    let began = Instant::now();
    let mut first = JoinSet::new();
    first.spawn(call(&gateway, "/v1/queues/work/receive", &json!({})));
    database.until_stuck("-- claim", 1).await;
    eventually("who comes is refused at once", async || {
        let began = Instant::now();
        let answer = call(&gateway, "/v1/queues/work/receive", &json!({})).await;
        answer.expect_problem(503, "overloaded");
        began.elapsed() < AT_ONCE
    })
    .await;
    // Nor does the one in front wait for ever.
    let answer = first.join_next().await.unwrap().unwrap();
    answer.expect_problem(503, "overloaded");
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    // Who waits anyway, does; and gets what the other was not there for.
    let patient = gateway.receive("work", json!({"wait_seconds": 30}));
    let (messages, ()) = tokio::join!(patient, held.let_go());
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["attempt"], 1, "no attempt was used up");
    gateway.assert_conserved(&database, "work").await;
}

/// Each publish statement takes so long, so that what the database can take is
/// known.
async fn slow(database: &Database, milliseconds: u32) {
    let trigger = format!(
        "CREATE FUNCTION postrider.slow() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN PERFORM pg_sleep({milliseconds}::float8 / 1000); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER INSERT ON postrider.messages
         FOR EACH STATEMENT EXECUTE FUNCTION postrider.slow()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
        .execute(&mut database.connect().await)
        .await
        .unwrap();
}

/// What became of a request, and how long it took.
type Outcome = (StatusCode, Duration);

async fn timed(request: reqwest::RequestBuilder) -> Outcome {
    let began = Instant::now();
    let answer = Answer::of(request).await;
    if answer.status != StatusCode::CREATED {
        answer.expect_problem(503, "overloaded");
    }
    (answer.status, began.elapsed())
}

fn p99(outcomes: &[Outcome], of: StatusCode) -> Duration {
    let mut times: Vec<Duration> = outcomes
        .iter()
        .filter(|(status, _)| *status == of)
        .map(|(_, took)| *took)
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Two statements of ten batches of a hundred in 150 ms: 133 batches a second.
const CAPACITY: u32 = 133;

/// No accepted request takes longer.
const SLOWEST: Duration = Duration::from_secs(3);

/// No accepted one does on a machine that is busy with other tests.
const SLOWEST_OF_ALL: Duration = Duration::from_secs(10);

/// What came of an overload.
struct Overload {
    accepted: u32,
    refused: u32,
    /// Of the accepted, all but one in a hundred.
    in_time: Duration,
    /// Of the refused, all but one in a hundred.
    at_once: Duration,
    /// Of the accepted, all.
    slowest: Duration,
}

impl Overload {
    /// Some were accepted, none far too late, and the others refused.
    #[track_caller]
    fn of(outcomes: &[Outcome]) -> Self {
        let count = |of| u32::try_from(outcomes.iter().filter(|(s, _)| *s == of).count()).unwrap();
        let accepted = count(StatusCode::CREATED);
        let refused = count(StatusCode::SERVICE_UNAVAILABLE);
        assert!(accepted > 0, "all {refused} refused");
        assert!(refused > 0, "all {accepted} accepted");
        let taken = outcomes.iter().filter(|(s, _)| *s == StatusCode::CREATED);
        let slowest = taken.map(|(_, took)| *took).max().unwrap();
        assert!(slowest < SLOWEST_OF_ALL, "{slowest:?}");
        Self {
            accepted,
            refused,
            in_time: p99(outcomes, StatusCode::CREATED),
            at_once: p99(outcomes, StatusCode::SERVICE_UNAVAILABLE),
            slowest,
        }
    }
}

/// Three times as much as can be taken, for so many seconds.
async fn overload(gateway: &Gateway, seconds: u32) -> Overload {
    let batch = json!({"messages": vec![json!({"body": 1}); 100]}).to_string();
    let rate = 3 * CAPACITY;
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..seconds * rate {
        let due = Duration::from_secs(1) * n / rate;
        tokio::time::sleep_until((began + due).into()).await;
        let request = gateway
            .request(Method::POST, MESSAGES)
            .header("content-type", "application/json")
            .body(batch.clone());
        calls.spawn(timed(request));
    }
    Overload::of(&calls.join_all().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_three_times_capacity_the_accepted_are_in_time_and_the_rest_know_at_once() {
    let (database, gateway) = start(4096, 128).await;
    slow(&database, 150).await;
    let (seconds, mut stored, mut tries) = (4, 0, 0);
    loop {
        let Overload {
            accepted,
            refused,
            in_time,
            at_once,
            slowest,
        } = overload(&gateway, seconds).await;
        stored += accepted;
        tries += 1;
        let what = format!(
            "{accepted} accepted, p99 {in_time:?}, all {slowest:?}; \
             {refused} refused, p99 {at_once:?}"
        );
        let good = accepted > seconds * CAPACITY / 2
            && refused > seconds * CAPACITY
            && in_time < Duration::from_secs(1)
            && slowest < SLOWEST
            && at_once < AT_ONCE;
        if good {
            break;
        }
        // A machine that is busy with other tests may be slow; not every time.
        assert!(tries < 3, "{what}");
    }
    // What was accepted is there, what was refused is not.
    assert_eq!(gateway.counts("work").await["ready"], 100 * stored);
    gateway.assert_conserved(&database, "work").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_three_times_capacity_memory_is_bounded() {
    // Four bodies of a megabyte in a statement that takes 150 ms: 27 a second.
    const CAPACITY: u32 = 27;
    const SECONDS: u32 = 8;
    /// What it may grow by, in MiB: a third of what is refused.
    const MOST: u64 = 144;
    let database = Database::migrated().await;
    slow(&database, 150).await;
    let process = Process::start(&["--database-url", &database.url()]);
    let queue = format!("{}/v1/queues/work", process.url);
    let client = http_client();
    let made = client.put(&queue).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let before = process.peak_mib();
    let body = bytes::Bytes::from(vec![b'x'; 1_000_000]);
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..SECONDS * 3 * CAPACITY {
        let due = Duration::from_secs(1) * n / (3 * CAPACITY);
        tokio::time::sleep_until((began + due).into()).await;
        let request = client
            .post(format!("{queue}/messages"))
            .header("content-type", "text/plain")
            .body(body.clone());
        calls.spawn(timed(request));
    }
    let Overload {
        accepted, refused, ..
    } = Overload::of(&calls.join_all().await);
    let grown = process.peak_mib() - before;
    assert!(u64::from(refused) > 2 * MOST, "{refused}");
    assert!(grown < MOST, "{accepted}, {refused}: {grown} MiB");
}
