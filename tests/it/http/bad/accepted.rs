//! What looks bad and is good: JSON that parsers elsewhere would change, as deep
//! and as long as may be. Up, it is stored and given back byte for byte; down, the
//! answer is 503 and nothing is stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use super::check::{Bench, assert_away};
use crate::support::{Answer, Gateway};

/// Of its own, away from what the rows are about.
const MESSAGES: &str = "/v1/queues/other/messages";

/// A publish, and what has to stand in the answer of whoever asks for it.
#[derive(Clone)]
struct Publish {
    content_type: &'static str,
    body: Vec<u8>,
    given_back: String,
}

impl Publish {
    fn json(request: String, body: &str) -> Self {
        Self {
            content_type: "application/json",
            body: request.into_bytes(),
            // Where the answer's message ends.
            given_back: format!("\"body\":{body}}}"),
        }
    }

    async fn send(&self, gateway: &Gateway) -> Answer {
        let request = gateway
            .request(Method::POST, MESSAGES)
            .header("content-type", self.content_type)
            .body(self.body.clone());
        Answer::of(request).await
    }
}

fn publishes() -> Vec<Publish> {
    let arrays = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let longest = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    let mut publishes = Vec::new();
    for body in [
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
    ] {
        publishes.push(Publish::json(format!("{{ \"body\" : {body}\n}}"), body));
        let batch = format!(r#"{{"messages": [{{"body": {body} }}]}}"#);
        publishes.push(Publish::json(batch, body));
    }
    // 128 deep with what stands around them.
    for (one, in_a_batch) in [(arrays(127), arrays(125)), (objects(127), objects(125))] {
        publishes.push(Publish::json(format!(r#"{{"body":{one}}}"#), &one));
        let batch = format!(r#"{{"messages":[{{"body":{in_a_batch}}}]}}"#);
        publishes.push(Publish::json(batch, &in_a_batch));
    }
    // As long as the queue takes.
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    publishes.push(Publish {
        content_type: "text/plain",
        given_back: format!("\"body_base64\":\"{}\"", STANDARD.encode(&bytes)),
        body: bytes,
    });
    publishes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_bad_and_is_good_comes_back_byte_for_byte_or_is_not_stored() {
    let mut bench = Bench::start(|_| {}).await;
    let publishes = publishes();
    for publish in &publishes {
        let made = publish.send(&bench.gateway).await;
        let shown = String::from_utf8_lossy(&publish.body[..publish.body.len().min(100)]);
        assert_eq!(made.status, StatusCode::CREATED, "{shown}");
        let id = made.json()["messages"][0]["id"].clone();
        let one = format!("{MESSAGES}/{}", id.as_str().unwrap());
        let receive = json!({"lease_seconds": 3600});
        for answer in [
            bench.gateway.get(&one).await,
            bench
                .gateway
                .post("/v1/queues/other/receive", receive)
                .await,
        ] {
            assert_eq!(answer.status, StatusCode::OK, "{shown}");
            let is_whole = answer.text.contains(&publish.given_back);
            assert!(
                is_whole && answer.text.contains(id.as_str().unwrap()),
                "{shown}"
            );
        }
    }
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
