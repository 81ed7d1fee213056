//! Spans: which there are, what they hang on, and what of them travels.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Running, start};
use crate::support::{Answer, Collector, Receiver, Reply, Span};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

async fn publish(running: &Running, traceparent: &str) -> String {
    let request = running
        .request(Method::POST, "/v1/queues/orders/messages")
        .header("content-type", "application/json")
        .header("traceparent", traceparent)
        .header("tracestate", "vendor=value")
        .body(r#"{"body":{"order":42}}"#);
    let stored = Answer::of(request).await.expect(StatusCode::CREATED);
    stored["messages"][0]["id"].as_str().unwrap().to_owned()
}

async fn receive(running: &Running) -> Value {
    let path = "/v1/queues/orders/receive";
    let received = running.post(path, json!({"wait_seconds": 20})).await;
    received.expect(StatusCode::OK)["messages"][0].clone()
}

#[track_caller]
fn assert_attributes(span: &Span, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(span.attributes.get(name), Some(value), "{name}: {span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_the_caller_over_the_publish_to_the_receive() {
    let collector = Collector::start().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
    ];
    let (_database, running) = start(&[], &variables).await;
    running.queue("orders", json!({})).await;
    let id = publish(&running, &format!("00-{CALLER}-01")).await;
    let message = receive(&running).await;
    let receipts = json!({"receipts": [message["receipt"]]});
    let acked = running.post("/v1/queues/orders/ack", receipts).await;
    acked.expect(StatusCode::OK);
    Answer::of(running.request(Method::GET, "/livez")).await;
    Answer::of(running.request(Method::GET, "/readyz")).await;
    // It does not wait for the batch's time: what is left is sent at the end.
    let log = running.stop();
    assert!(log.contains("traces: exported over OTLP"), "{log}");

    let names = [
        "publish",
        "store.publish",
        "receive",
        "store.claim",
        "ack",
        "store.ack",
    ];
    let [published, stored, received, claimed, acked, ended] = collector.wait_for(names).await;
    assert_eq!(published.parent.as_deref(), Some(CALLER));
    assert_eq!(published.kind, 2, "a server's");
    assert_attributes(
        &published,
        &json!({
            "messaging.system": "postrider",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": "orders",
            "messaging.message.id": id,
            "http.request.method": "POST",
            "http.response.status_code": 201,
            "url.path": "/v1/queues/orders/messages",
            "url.scheme": "http",
        }),
    );
    assert_eq!(published.resource["service.name"], "postrider");
    assert_eq!(published.resource["deployment.environment.name"], "test");

    // Consumers go on from the publish.
    assert_eq!(message["traceparent"], published.traceparent());
    assert_eq!(message["tracestate"], "vendor=value");
    assert_eq!(received.links, [&*published.context]);
    assert_eq!(received.parent, None);
    assert_attributes(
        &received,
        &json!({"messaging.operation.type": "receive", "messaging.message.id": id}),
    );
    assert_attributes(
        &acked,
        &json!({"messaging.operation.type": "settle", "messaging.message.id": id}),
    );
    for (statement, request) in [
        (&stored, &published),
        (&claimed, &received),
        (&ended, &acked),
    ] {
        assert_eq!(statement.parent.as_ref(), Some(&request.context));
        let expected = json!({"db.system.name": "postgresql", "db.operation.batch.size": 1});
        assert_attributes(statement, &expected);
    }
    let spans = collector.spans();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert_eq!((of("put_queue"), of("livez"), of("readyz")), (1, 0, 0));
    for batch in collector.batches() {
        assert_eq!(batch.path, "/v1/traces");
        assert_eq!(batch.header("x-tenant"), Some("blue"));
        assert_eq!(batch.header("content-type"), Some("application/x-protobuf"));
    }
}

/// Publishes to topics, as a request and within transactions: its operation, path and
/// body.
fn other_publishes() -> [(&'static str, &'static str, Value); 4] {
    let part = |to: &str, name: &str| json!({"publishes": [{to: name, "message": {"body": 1}}]});
    let transactions = "/v1/transactions";
    [
        (
            "publish_topic",
            "/v1/topics/shop/messages",
            json!({"body": 1}),
        ),
        ("request", "/v1/queues/orders/requests", json!({"body": 1})),
        ("transact", transactions, part("queue", "orders")),
        ("transact", transactions, part("topic", "shop")),
    ]
}

/// The message that comes out of each, where its publish came with this.
async fn published_otherwise(running: &Running, sent: &str) -> Vec<Value> {
    running.queue("orders", json!({})).await;
    for (path, json) in [
        ("/v1/topics/shop", json!({})),
        (
            "/v1/topics/shop/subscriptions/sub",
            json!({"queue": "orders"}),
        ),
    ] {
        let made = running.send(Method::PUT, path, json).await;
        made.expect(StatusCode::CREATED);
    }
    let mut messages = Vec::new();
    for (operation, path, json) in other_publishes() {
        let request = running
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .header("traceparent", sent)
            .header("tracestate", "vendor=value")
            .body(json.to_string());
        let answer = Answer::of(request).await;
        assert!(answer.status.is_success(), "{operation}: {answer:?}");
        let message = receive(running).await;
        let receipt = &message["receipt"];
        let settled = if operation == "request" {
            let reply = json!({"receipt": receipt, "body": 2});
            running.post("/v1/queues/orders/reply", reply).await
        } else {
            let receipts = json!({"receipts": [receipt]});
            running.post("/v1/queues/orders/ack", receipts).await
        };
        settled.expect(StatusCode::OK);
        messages.push(message);
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_over_topics_requests_and_transactions() {
    let collector = Collector::start().await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint())];
    let (_database, running) = start(&[], &variables).await;
    let messages = published_otherwise(&running, &format!("00-{CALLER}-01")).await;
    running.stop();
    let spans = collector.spans();
    for ((operation, ..), message) in other_publishes().iter().zip(&messages) {
        let parent = message["traceparent"].as_str().unwrap_or_default();
        assert_eq!(parent.get(3..35), Some(TRACE), "{operation}: {message}");
        assert_eq!(message["tracestate"], "vendor=value", "{operation}");
        let published = spans.iter().find(|span| span.traceparent() == parent);
        let published = published.unwrap_or_else(|| panic!("{operation}: {spans:?}"));
        assert_eq!(published.name, *operation);
        assert_eq!(published.parent.as_deref(), Some(CALLER));
    }
    for (name, kind) in [
        ("publish_topic", "send"),
        ("request", "send"),
        ("transact", "settle"),
        ("reply_to_request", "settle"),
    ] {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        let expected = json!({"messaging.operation.type": kind, "messaging.operation.name": name});
        assert_attributes(span, &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_traces_of_its_own_the_gateway_passes_a_callers_context_on() {
    let (_database, running) = start(&[], &[]).await;
    let sent = format!("00-{CALLER}-01");
    let messages = published_otherwise(&running, &sent).await;
    for ((operation, ..), message) in other_publishes().iter().zip(messages) {
        assert_eq!(message["traceparent"], sent, "{operation}");
        assert_eq!(message["tracestate"], "vendor=value", "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_push_is_a_child_of_its_publish_and_the_next_is_linked_to_it() {
    let collector = Collector::start().await;
    let endpoint = format!("{}/v1/traces", collector.endpoint());
    let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint)];
    let (_database, running) = start(&[], &variables).await;
    let receiver = Receiver::start().await;
    receiver.next(Reply::status(500));
    let backoff = json!({"backoff": {"initial_seconds": 0}});
    running.queue("orders", backoff).await;
    let webhook = json!({"url": receiver.url("/hook?token=geheim")});
    let path = "/v1/queues/orders/webhook";
    let made = running.send(Method::PUT, path, webhook).await;
    made.expect(StatusCode::CREATED);
    let id = publish(&running, &format!("00-{CALLER}-01")).await;
    let pushes = receiver.wait_for(2).await;
    running.stop();

    let spans = collector.spans();
    let published = spans.iter().find(|span| span.name == "publish").unwrap();
    assert_eq!(published.trace(), TRACE);
    let spans_of_pushes: Vec<&Span> = spans.iter().filter(|span| span.name == "push").collect();
    let [first, second] = spans_of_pushes[..] else {
        panic!("{spans_of_pushes:?}");
    };
    assert_eq!(first.parent.as_ref(), Some(&published.context));
    assert!(first.is_error && !second.is_error);
    assert_eq!(second.parent, None);
    assert_ne!(second.trace(), TRACE);
    assert_eq!(second.links, [&*published.context]);
    for (attempt, (push, span)) in (1..).zip(pushes.iter().zip([first, second])) {
        assert_eq!(push.header("traceparent"), Some(&*span.traceparent()));
        assert_eq!(span.kind, 3, "a client's");
        let status = if attempt == 1 { 500 } else { 204 };
        assert_attributes(
            span,
            &json!({
                "messaging.operation.name": "push",
                "messaging.destination.name": "orders",
                "messaging.message.id": id,
                "postrider.attempt": attempt,
                "server.address": "127.0.0.1",
                "server.port": receiver.address().port(),
                "http.response.status_code": status,
            }),
        );
    }
    assert_eq!(pushes[0].header("tracestate"), Some("vendor=value"));
    assert_eq!(pushes[1].header("tracestate"), None, "of the other trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_leaves_the_callers_context_and_sends_nothing() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let always_off = ("OTEL_TRACES_SAMPLER", "always_off");
    let by_the_caller = ("OTEL_TRACES_SAMPLER", "parentbased_always_on");
    let disabled = ("OTEL_SDK_DISABLED", "true");
    for (variable, flags) in [(always_off, "01"), (by_the_caller, "00"), (disabled, "01")] {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), variable];
        let (_database, running) = start(&[], &variables).await;
        running.queue("orders", json!({})).await;
        let sent = format!("00-{CALLER}-{flags}");
        publish(&running, &sent).await;
        let message = receive(&running).await;
        assert_eq!(message["traceparent"], sent, "{variable:?}");
        assert_eq!(message["tracestate"], "vendor=value");
        running.stop();
        let spans = collector.spans();
        let of_it = spans.iter().filter(|span| span.trace() == TRACE);
        assert_eq!(of_it.count(), 0, "{variable:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_traces_is_kept_whole() {
    let collector = Collector::start().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let (_database, running) = start(&[], &variables).await;
    running.queue("orders", json!({})).await;
    for _ in 0..64 {
        let message = json!({"body": 1});
        let stored = running.post("/v1/queues/orders/messages", message).await;
        stored.expect(StatusCode::CREATED);
    }
    running.stop();
    let spans = collector.spans();
    let of = |name: &str| spans.iter().filter(|span| span.name == name).count();
    // All or none of 64 is one in 2^63.
    assert!((1..64).contains(&of("publish")), "{}", of("publish"));
    assert_eq!(of("publish"), of("store.publish"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_trace_context_is_as_none() {
    let collector = Collector::start().await;
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint())];
    let (_database, running) = start(&[], &variables).await;
    running.queue("orders", json!({})).await;
    for bad in [
        "nonsense".to_owned(),
        format!("ff-{CALLER}-01"),
        format!("00-{CALLER}"),
    ] {
        publish(&running, &bad).await;
        receive(&running).await;
    }
    running.stop();
    let spans = collector.spans();
    let published: Vec<_> = spans.iter().filter(|span| span.name == "publish").collect();
    assert_eq!(published.len(), 3);
    for span in published {
        assert_eq!(span.parent, None);
        assert_ne!(span.trace(), TRACE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_of_once_and_again_when_it_is_back() {
    let collector = Collector::start().await;
    for _ in 0..3 {
        collector.next(Reply::status(400));
    }
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let (_database, mut running) = start(&[], &variables).await;
    let mut names = 0;
    while collector.batches().len() < 5 {
        names += 1;
        running.queue(&format!("orders{names}"), json!({})).await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    running
        .said("the collector of traces takes them again")
        .await;
    let log = running.stop();
    let away = "the collector of traces takes none: it answered 400";
    assert_eq!(log.matches(away).count(), 1, "{log}");
    assert_eq!(log.matches("takes them again").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_neither_requests_nor_the_end() {
    let silent = Receiver::start().await;
    silent.usually(Reply::status(200).after(std::time::Duration::from_mins(5)));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*silent.url("")),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
    ];
    let (_database, running) = start(&[], &variables).await;
    running.queue("orders", json!({})).await;
    silent.wait_for(1).await;
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        publish(&running, "").await;
    }
    let log = running.stop();
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(9), "{took:?} {log}");
    assert!(log.contains("the last spans were not exported"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_variables_say_wrong_is_said_and_the_gateway_serves() {
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "milliseconds"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "geheim@collector",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not a URL",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "ftp://me:geheim@collector",
            "must begin with http:// or https://",
        ),
    ] {
        let usual = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        let (_database, running) = start(&[], &[usual, (name, value)]).await;
        running.queue("orders", json!({})).await;
        let log = running.stop();
        assert!(log.contains("traces are not exported: "), "{name}: {log}");
        assert!(log.contains(said), "{name}: {log}");
        assert!(!log.contains("geheim"), "{name}: {log}");
    }
}
