//! No secret and nothing of a message is in the log or in a span: canaries are
//! planted wherever there could be one, every kind of request and failure is
//! driven at the loudest level, and everything is searched for them.

mod again;
mod pushes;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Running, admin_key};
use crate::support::{Answer, Collector, Database, Receiver, Reply};

/// In every canary.
const CANARY: &str = "kanarienvogel";

/// What must not be found: the canary, also as programs print bytes, and the
/// secrets that the gateway itself made.
struct Forbidden(Vec<String>);

impl Forbidden {
    fn new() -> Self {
        let bytes = CANARY.as_bytes();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut all = vec![CANARY.to_owned(), list.join(", "), hex.concat()];
        // In base64 at each offset, without what its neighbours change.
        for offset in 0..3 {
            let padded = [&vec![b'x'; offset][..], bytes].concat();
            let encoded = STANDARD.encode(&padded[..padded.len() / 3 * 3]);
            all.push(encoded[if offset == 0 { 0 } else { 4 }..].to_owned());
        }
        Self(all)
    }

    fn add(&mut self, secret: &Value) {
        let secret = secret.as_str().unwrap();
        assert!(secret.len() > 10, "{secret}");
        self.0.push(secret.to_owned());
    }

    fn assert_not_in(&self, what: &str, text: &str) {
        for forbidden in &self.0 {
            if let Some(at) = text.find(forbidden) {
                let line = text[..at].lines().count();
                let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                panic!("{forbidden} is in {what}: {line}");
            }
        }
    }
}

fn canary(what: &str) -> String {
    format!("{CANARY}-{what}")
}

fn message() -> Value {
    json!({
        "body": {"secret": canary("body")},
        "headers": {canary("header-name"): canary("header")},
        "key": canary("key"), "correlation_id": canary("correlation"),
        "reply_to": canary("reply-to"), "dedup_id": canary("dedup"),
    })
}

/// Sends what carries canaries wherever a request can.
async fn send(running: &Running, method: Method, path: &str, kind: &str, body: String) -> Answer {
    let request = running
        .request(method, path)
        .header("content-type", kind)
        .header("cookie", canary("cookie"))
        .header("traceparent", canary("traceparent"))
        .header("postrider-header-x", canary("property"))
        .body(body);
    Answer::of(request).await
}

async fn post(running: &Running, path: &str, json: &Value) -> Answer {
    send(
        running,
        Method::POST,
        path,
        "application/json",
        json.to_string(),
    )
    .await
}

async fn receive(running: &Running, forbidden: &mut Forbidden) -> Value {
    let wish = json!({"wait_seconds": 20});
    let received = post(running, "/v1/queues/orders/receive", &wish).await;
    let message = received.expect(StatusCode::OK)["messages"][0].clone();
    forbidden.add(&message["receipt"]);
    message["receipt"].clone()
}

/// Keys that are made, and some that are none.
async fn keys(running: &mut Running, admin: String, forbidden: &mut Forbidden) {
    for wrong in [
        canary("key"),
        format!("pr_{CANARY}_{CANARY}"),
        format!("{admin}{CANARY}"),
    ] {
        running.key = Some(wrong);
        let refused = Answer::of(running.request(Method::GET, "/v1/queues")).await;
        refused.expect(StatusCode::UNAUTHORIZED);
    }
    let (_, secret) = admin.rsplit_once('_').unwrap();
    forbidden.add(&json!(secret));
    running.key = Some(admin.clone());
    let wanted = json!({"name": "shop", "scopes": ["publish:orders"]});
    let made = running
        .post("/v1/keys", wanted)
        .await
        .expect(StatusCode::CREATED);
    let (_, secret) = made["key"].as_str().unwrap().rsplit_once('_').unwrap();
    forbidden.add(&json!(secret));
}

/// Publishes and settles in every way, and badly.
async fn messages(running: &Running, forbidden: &mut Forbidden) {
    let queue = "/v1/queues/orders";
    running.queue("orders", json!({"max_attempts": 1})).await;
    let publish = format!("{queue}/messages");
    post(running, &publish, &message())
        .await
        .expect(StatusCode::CREATED);
    post(running, &publish, &message())
        .await
        .expect(StatusCode::CREATED);
    let batch = json!({"messages": [{"body": canary("one")}, {"body": canary("two")}]});
    post(running, &publish, &batch)
        .await
        .expect(StatusCode::CREATED);
    let bytes = send(
        running,
        Method::POST,
        &publish,
        "text/plain",
        canary("bytes"),
    )
    .await;
    bytes.expect(StatusCode::CREATED);

    badly(running).await;
    let receipt = receive(running, forbidden).await;
    for verb in ["extend", "ack", "extend"] {
        post(
            running,
            &format!("{queue}/{verb}"),
            &json!({"receipts": [receipt]}),
        )
        .await;
    }
    let receipt = receive(running, forbidden).await;
    let reason = json!({"receipts": [receipt], "reason": canary("reason"), "dead_letter": true});
    post(running, &format!("{queue}/nack"), &reason)
        .await
        .expect(StatusCode::OK);
    for path in ["messages?state=ready", "dead-letters", ""] {
        let path = format!("{queue}/{path}");
        send(
            running,
            Method::GET,
            path.trim_end_matches('/'),
            CANARY,
            String::new(),
        )
        .await;
    }
    let all = json!({"filter": {}});
    post(running, &format!("{queue}/dead-letters/redrive"), &all).await;
}

/// Sends what is refused, of every kind.
async fn badly(running: &Running) {
    let queue = "/v1/queues/orders";
    let publish = format!("{queue}/messages");
    let mut bad = vec![
        (
            publish.clone(),
            "application/json",
            format!("{{\"body\": {CANARY}"),
        ),
        (
            publish.clone(),
            "application/json",
            json!({canary("field"): 1}).to_string(),
        ),
        (
            publish.clone(),
            "application/json",
            json!({"body": 1, "priority": canary("p")}).to_string(),
        ),
        (
            publish.clone(),
            "application/json",
            json!({"body_base64": canary("!")}).to_string(),
        ),
        (
            publish.clone(),
            "application/json",
            json!({"body": 1, "key": canary("\u{0}")}).to_string(),
        ),
        (
            format!("{publish}?{CANARY}={CANARY}"),
            "application/json",
            message().to_string(),
        ),
        (publish.clone(), "text/plain", "x".repeat(2 * 1024 * 1024)),
    ];
    for verb in [
        "ack",
        "nack",
        "extend",
        "receive",
        "purge",
        "dead-letters/redrive",
    ] {
        let garbage = json!({"receipts": [canary("receipt")], canary("field"): 1});
        bad.push((
            format!("{queue}/{verb}"),
            "application/json",
            garbage.to_string(),
        ));
        bad.push((format!("{queue}/{verb}"), CANARY, garbage.to_string()));
    }
    bad.push((
        format!("{queue}/ack"),
        "application/json",
        json!({"receipts": [canary("receipt")]}).to_string(),
    ));
    for (path, kind, body) in bad {
        let refused = send(running, Method::POST, &path, kind, body).await;
        assert!(refused.status.is_client_error(), "{path}: {refused:?}");
    }
}

async fn topics(running: &Running) {
    running
        .send(Method::PUT, "/v1/topics/shop", json!({}))
        .await
        .expect(StatusCode::CREATED);
    let filter = json!({"queue": "orders", "filter": {
        "routing_key": canary("routing").to_lowercase(), "headers": {"x": canary("filter")}}});
    let path = "/v1/topics/shop/subscriptions/all";
    running
        .send(Method::PUT, path, filter)
        .await
        .expect(StatusCode::CREATED);
    let mut message = message();
    message["routing_key"] = json!(canary("routing"));
    message["mandatory"] = json!(true);
    for verb in ["messages", "explain"] {
        post(running, &format!("/v1/topics/shop/{verb}"), &message).await;
    }
}

/// The database refuses a row, and says what is in it; then it hangs up.
async fn trouble(running: &Running, database: &Database) {
    let mut admin = database.connect().await;
    sqlx::query("ALTER TABLE postrider.messages ADD CHECK (reply_to <> 'refused') NOT VALID")
        .execute(&mut admin)
        .await
        .unwrap();
    let mut refused = message();
    refused["reply_to"] = json!("refused");
    refused["dedup_id"] = json!(canary("refused"));
    let failed = post(running, "/v1/queues/orders/messages", &refused).await;
    failed.expect(StatusCode::INTERNAL_SERVER_ERROR);
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    post(running, "/v1/queues/orders/messages", &message()).await;
}

/// What no client library sends.
async fn raw(running: &Running) {
    let address = running.process.url.strip_prefix("http://").unwrap();
    for request in [
        format!("GET /v1/queues HTTP/1.1\r\nAuthorization: {CANARY}\r\nbad header\r\n\r\n"),
        format!("GET /v1/queues HTTP/1.1\r\nhost: x\r\nx-a: {CANARY}\u{0}\r\n\r\n"),
        format!("{CANARY}\r\n\r\n"),
        format!(
            "POST /v1/queues/orders/messages HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n\
             content-length: 1000\r\n\r\n{CANARY}"
        ),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
}

async fn no_canary_is_told(format: &str) {
    let collector = Collector::start().await;
    let receiver = Receiver::start().await;
    let database = Database::migrated().await;
    let password = format!("postgres:{}@", canary("password"));
    let url = database.url().replace("postgres@", &password);
    let endpoint = collector
        .endpoint()
        .replace("http://", &format!("http://me:{CANARY}@"));
    let headers = format!("x-token={}", canary("otlp"));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", &*headers),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    collector.next(Reply::with(400, &[], canary("collector").as_bytes()));
    let args = [
        "--log",
        "trace,hyper=trace,h2=trace,sqlx=trace,sqlx::query=trace,reqwest=trace",
        "--log-requests",
        "all",
        "--log-format",
        format,
        "--auth",
        "required",
    ];
    let mut running = Running::start(&url, &args, &variables);
    let mut forbidden = Forbidden::new();
    keys(&mut running, admin_key(&url), &mut forbidden).await;
    messages(&running, &mut forbidden).await;
    topics(&running).await;
    pushes::webhooks(&running, &receiver, &mut forbidden).await;
    again::transactions(&running, &mut forbidden).await;
    again::requests(&running, &mut forbidden).await;
    again::claims(&running, &mut forbidden).await;
    again::blocked_keys(&running, &mut forbidden).await;
    again::schemas(&running).await;
    again::schedules(&running).await;
    again::door(&running, &database).await;
    raw(&running).await;
    trouble(&running, &database).await;
    let log = running.stop();

    // It was loud, and everything was there to be found.
    for said in [
        "publish",
        "receive",
        "dead-letters/redrive",
        "the database refused a statement",
        "/v1/transactions",
        "/v1/claims/",
        "/v1/replies/",
        "schema-violation",
        "put_schedule",
        "unblock",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let names: Vec<String> = collector
        .spans()
        .into_iter()
        .map(|span| span.name)
        .collect();
    for name in [
        "publish",
        "receive",
        "nack",
        "push",
        "store.publish",
        "store.settle",
        "transact",
        "request",
        "reply_to_request",
        "get_reply",
        "give_up_claim",
        "put_schedule",
        "put_queue_schema",
        "unblock",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    assert!(
        receiver
            .requests()
            .iter()
            .any(|push| push.path.contains(CANARY))
    );
    forbidden.assert_not_in("the log", &log);
    for batch in collector.batches() {
        assert_eq!(batch.header("x-token"), Some(&*canary("otlp")));
        let batch = String::from_utf8_lossy(&batch.body);
        forbidden.assert_not_in("a batch of spans", &batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_in_the_log_for_people_or_in_a_span() {
    no_canary_is_told("human").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_canary_is_in_the_log_for_programs_or_in_a_span() {
    no_canary_is_told("json").await;
}

#[test]
fn the_search_finds_what_is_hidden() {
    let forbidden = Forbidden::new();
    for text in [
        format!("x {CANARY} y"),
        format!("{:?}", canary("x").as_bytes()),
        STANDARD.encode(canary("x")),
        STANDARD.encode(format!("a{CANARY}b")),
        STANDARD.encode(format!("ab{CANARY}")),
    ] {
        let found = std::panic::catch_unwind(|| forbidden.assert_not_in("it", &text));
        assert!(found.is_err(), "{text}");
    }
}
