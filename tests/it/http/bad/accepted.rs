//! What looks bad and is good: JSON that parsers elsewhere would change, as deep
//! and as long as may be. Up, it is stored and given back byte for byte; down, the
//! answer is 503 and nothing is stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use super::check::{Bench, assert_away};
use crate::support::{Answer, Gateway, Received, Receiver, eventually};

/// A body, and how messages with it are sent.
#[derive(Clone)]
enum Body {
    /// JSON, at most so deep that what stands around it is not too deep.
    Json(String),
    Bytes(Vec<u8>),
}

/// A publish, and what has to stand in the answer of whoever asks for it.
#[derive(Clone)]
struct Publish {
    path: String,
    content_type: &'static str,
    request: Vec<u8>,
    /// Where it is to be received.
    queue: &'static str,
    given_back: String,
    body: Vec<u8>,
}

impl Publish {
    fn json(path: impl Into<String>, queue: &'static str, request: String, body: &str) -> Self {
        Self {
            path: path.into(),
            content_type: "application/json",
            request: request.into_bytes(),
            queue,
            // Where the answer's message ends.
            given_back: format!("\"body\":{body}}}"),
            body: body.as_bytes().to_vec(),
        }
    }

    fn bytes(path: impl Into<String>, queue: &'static str, bytes: &[u8]) -> Self {
        Self {
            path: path.into(),
            content_type: "text/plain",
            request: bytes.to_vec(),
            queue,
            given_back: format!("\"body_base64\":\"{}\"", STANDARD.encode(bytes)),
            body: bytes.to_vec(),
        }
    }

    async fn send(&self, gateway: &Gateway) -> Answer {
        let request = gateway
            .request(Method::POST, &self.path)
            .header("content-type", self.content_type)
            .body(self.request.clone());
        Answer::of(request).await
    }

    /// Sends it, and answers with its id.
    async fn made(&self, gateway: &Gateway) -> String {
        let answer = self.send(gateway).await;
        assert!(
            answer.status.is_success(),
            "{} {}",
            self.shown(),
            answer.text
        );
        let answer = answer.json();
        let id = answer.pointer("/messages/0/id");
        let id = id.or_else(|| answer.pointer("/publishes/0/id"));
        id.unwrap().as_str().unwrap().to_owned()
    }

    fn shown(&self) -> String {
        let start = &self.request[..self.request.len().min(100)];
        format!("{} {}", self.path, String::from_utf8_lossy(start))
    }
}

/// Bodies that parsers elsewhere would change, and the longest and deepest that may
/// be with so many levels around them.
fn bodies(around: usize) -> Vec<Body> {
    let depth = 128 - around;
    let arrays = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let longest = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    let mut bodies: Vec<Body> = [
        r#""\u0000""#,
        r#"{"\u0000": "a\u0000b"}"#,
        r#""\ud800""#,
        "9007199254740993",
        "-9223372036854775809",
        "1.10",
        "-0.0",
        "1e999",
        r#"{"z": 1, "a" :2,"m":[ 1 , 2,3 ],   "Z": 3}"#,
        r#"{"a": 1, "a": 2}"#,
        "{\n\t\"a\":\r\n 1 }",
        &longest,
        &arrays,
        &objects,
    ]
    .map(|json| Body::Json(json.to_owned()))
    .into();
    // As long as the queue takes.
    let bytes = (0..=255).cycle().take(1 << 20).collect();
    bodies.push(Body::Bytes(bytes));
    bodies
}

/// Alone, and in a batch, to be received from a queue.
fn to(path: &str, queue: &'static str) -> Vec<Publish> {
    let mut publishes = Vec::new();
    for body in bodies(1) {
        publishes.push(match body {
            Body::Json(body) => {
                let one = format!("{{ \"body\" : {body}\n}}");
                Publish::json(path, queue, one, &body)
            }
            Body::Bytes(bytes) => Publish::bytes(path, queue, &bytes),
        });
    }
    for body in bodies(3) {
        if let Body::Json(body) = body {
            let batch = format!(r#"{{"messages": [{{"body": {body} }}]}}"#);
            publishes.push(Publish::json(path, queue, batch, &body));
        }
    }
    publishes
}

/// In a transaction, to a queue and to a topic.
fn in_a_transaction() -> Vec<Publish> {
    let mut publishes = Vec::new();
    for body in bodies(4) {
        let message = match &body {
            Body::Json(body) => format!(r#"{{ "body" :{body} }}"#),
            Body::Bytes(bytes) => json!({"body_base64": STANDARD.encode(bytes)}).to_string(),
        };
        for (to, queue) in [
            (r#""queue": "other""#, "other"),
            (r#""topic": "wide""#, "fed"),
        ] {
            let path = "/v1/transactions";
            let steps = format!(r#"{{"publishes": [{{{to}, "message": {message}}}]}}"#);
            publishes.push(match &body {
                Body::Json(body) => Publish::json(path, queue, steps, body),
                Body::Bytes(bytes) => Publish {
                    content_type: "application/json",
                    request: steps.into_bytes(),
                    ..Publish::bytes(path, queue, bytes)
                },
            });
        }
    }
    publishes
}

/// With a topic that feeds `fed`; and `other`, away from what the rows are about.
async fn bench() -> Bench {
    let bench = Bench::start(|_| {}).await;
    bench.gateway.queue("fed", json!({})).await;
    bench.gateway.topic("wide", json!({})).await;
    let fed = json!({"queue": "fed"});
    bench.gateway.subscription("wide", "fed", fed).await;
    bench
}

/// With Postgres down none of them is stored.
async fn assert_none_is_stored(mut bench: Bench, publishes: Vec<Publish>) {
    bench.remember().await;
    bench.cut().await;
    let mut sending = JoinSet::new();
    for publish in publishes {
        let gateway = bench.gateway.clone();
        sending.spawn(async move { assert_away(&publish.send(&gateway).await) });
    }
    sending.join_all().await;
    bench.mend().await;
    bench.assert_unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_bad_and_is_good_comes_back_byte_for_byte_or_is_not_stored() {
    let bench = bench().await;
    let publishes = [
        to("/v1/queues/other/messages", "other"),
        to("/v1/topics/wide/messages", "fed"),
        in_a_transaction(),
    ]
    .concat();
    for publish in &publishes {
        let id = publish.made(&bench.gateway).await;
        let shown = publish.shown();
        let queue = format!("/v1/queues/{}", publish.queue);
        let one = format!("{queue}/messages/{id}");
        let receive = json!({"lease_seconds": 3600, "wait_seconds": 20});
        for answer in [
            bench.gateway.get(&one).await,
            bench
                .gateway
                .post(&format!("{queue}/receive"), receive)
                .await,
        ] {
            assert_eq!(answer.status, StatusCode::OK, "{shown}");
            let is_whole = answer.text.contains(&publish.given_back);
            assert!(is_whole && answer.text.contains(&id), "{shown}");
        }
    }
    assert_none_is_stored(bench, publishes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_bad_and_is_good_is_pushed_byte_for_byte() {
    let bench = bench().await;
    let gateway = &bench.gateway;
    let receiver = Receiver::start().await;
    let hook = json!({"url": receiver.url("/hook"), "max_in_flight": 4});
    for queue in ["other", "fed"] {
        let path = format!("/v1/queues/{queue}/webhook");
        let put = gateway.put(&path, &hook).await;
        put.expect(StatusCode::CREATED);
    }
    let publishes = [
        to("/v1/queues/other/messages", "other"),
        to("/v1/topics/wide/messages", "fed"),
        in_a_transaction(),
    ]
    .concat();
    let mut ids = Vec::new();
    for publish in &publishes {
        ids.push(publish.made(gateway).await);
    }
    let pushed = receiver.wait_for(publishes.len()).await;
    for (publish, id) in publishes.iter().zip(&ids) {
        let shown = publish.shown();
        let is_it = |push: &&Received| push.header("webhook-id") == Some(id);
        let Some(push) = pushed.iter().find(is_it) else {
            panic!("not pushed: {shown}");
        };
        // Not assert_eq: some are long.
        assert!(push.body == publish.body, "{shown}");
    }
    eventually("all are done with", async || {
        let (other, fed) = (gateway.counts("other").await, gateway.counts("fed").await);
        [
            &other["ready"],
            &other["leased"],
            &fed["ready"],
            &fed["leased"],
        ]
        .iter()
        .all(|count| **count == 0)
    })
    .await;
}
