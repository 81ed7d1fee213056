//! Fields outside their range: the exact answer, and nothing stored.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::MESSAGES;
use super::check::check;
use super::table::{Row, post};
use crate::support::App;

/// So many headers.
fn headers(count: usize) -> Value {
    (0..count)
        .map(|n| (format!("h{n}"), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Messages with one field outside its range, and where that is.
fn numbers_and_texts() -> Vec<(Value, String)> {
    let long = "x".repeat(257);
    let mut cases: Vec<(Value, String)> = Vec::new();
    let mut wrong = |field: &str, values: Value| {
        for value in values.as_array().unwrap() {
            cases.push((json!({"body": 1, field: value}), format!("/{field}")));
        }
    };
    wrong(
        "priority",
        json!([-1, 10, 1.5, 1e300, "5", 99_999, -65_536, 65_536, null]),
    );
    wrong(
        "delay_seconds",
        json!([-1, -0.001, 31_536_000.001, 1e300, "5"]),
    );
    wrong(
        "ttl_seconds",
        json!([-1, 0, 0.0001, 31_536_001, -1e300, true]),
    );
    wrong(
        "deliver_at",
        json!([
            "2999-01-01T00:00:00Z",
            "2020-01-01",
            "",
            1_700_000_000,
            "2020-13-01T00:00:00Z",
            "+262142-01-01T00:00:00Z"
        ]),
    );
    for text in ["key", "dedup_id", "correlation_id", "reply_to"] {
        wrong(
            text,
            json!([
                "",
                long,
                "a\u{0}b",
                "\u{0}",
                "a\r\nb",
                "\u{7f}",
                "\u{85}",
                1,
                []
            ]),
        );
    }
    wrong("headers", json!([headers(65), "a: b", [["a", "b"]]]));
    wrong("fair", json!(["true", 1, []]));
    cases
}

/// Messages with headers and bodies that are none, and where that is.
fn headers_and_bodies() -> Vec<(Value, String)> {
    let long = "x".repeat(257);
    let mut cases: Vec<(Value, String)> = Vec::new();
    for (name, value) in [
        ("a\u{0}", "b"),
        ("", "b"),
        ("a b", "b"),
        ("a:", "b"),
        ("ä", "b"),
        ("a\r\n", "b"),
        ("a", "b\u{0}"),
        ("a", "b\r\nc: d"),
        ("a", "\n"),
        (&"n".repeat(129), "b"),
        ("a", &"v".repeat(4097)),
    ] {
        cases.push((
            json!({"body": 1, "headers": {name: value}}),
            format!("/headers/{name}"),
        ));
    }
    for (content_type, pointer) in [
        ("", "/content_type"),
        ("a\u{0}", "/content_type"),
        ("a\r\nb", "/content_type"),
        ("tëxt/plain", "/content_type"),
        (&long, "/content_type"),
    ] {
        let message = json!({"body_base64": "", "content_type": content_type});
        cases.push((message, pointer.to_owned()));
    }
    for base64 in ["?", "YQ", "YQ=", "YQ==\n", "Y Q==", "-_-_", "\u{0}"] {
        cases.push((json!({"body_base64": base64}), "/body_base64".to_owned()));
    }
    cases.push((
        json!({"body": 1, "body_base64": ""}),
        "/body_base64".to_owned(),
    ));
    cases.push((
        json!({"body": 1, "content_type": "text/plain"}),
        "/content_type".to_owned(),
    ));
    cases.push((
        json!({"body": 1, "delay_seconds": 1, "deliver_at": "2020-01-01T00:00:00Z"}),
        "/deliver_at".to_owned(),
    ));
    cases.push((json!({"headers": {}}), "/body".to_owned()));
    cases.push((json!({"messages": []}), "/messages".to_owned()));
    let many: Vec<Value> = (0..1001).map(|n| json!({"body": n})).collect();
    cases.push((json!({"messages": many}), "/messages".to_owned()));
    cases
}

/// Publishes, and where they are wrong.
fn publishes() -> Vec<Row> {
    let cases = numbers_and_texts().into_iter().chain(headers_and_bodies());
    let mut rows: Vec<Row> = cases
        .map(|(message, pointer)| {
            post(MESSAGES, message.to_string())
                .invalid(pointer)
                .needs_postgres()
        })
        .collect();
    // One byte over; of a batch, one that is good stays unstored, too.
    let large = json!("x".repeat((1 << 20) - 1));
    for (message, pointer) in [
        (json!({"body": large}), "/body"),
        (
            json!({"messages": [{"body": 1}, {"body": large}]}),
            "/messages/1/body",
        ),
    ] {
        let row = post(MESSAGES, message.to_string()).refused(413, "message-too-large");
        rows.push(row.at(pointer).needs_postgres());
    }
    let one_bad = json!({"messages": [{"body": 1}, {"body": 1, "priority": 10}, {"body": 1}]});
    let row = post(MESSAGES, one_bad.to_string()).invalid("/messages/1/priority");
    rows.push(row.needs_postgres());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_a_messages_ranges_are_in_them() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let most = "x".repeat(256);
    let message = json!({
        "body": 1, "priority": 9, "delay_seconds": 31_536_000, "ttl_seconds": 31_536_000,
        "key": most, "dedup_id": most, "correlation_id": most, "reply_to": most,
        "headers": headers(64),
    });
    app.publish("orders", message).await;
    let header = json!({("n".repeat(128)): "v".repeat(4096), "!#$%&'*+-.^_`|~09": ""});
    app.publish(
        "orders",
        json!({"body": 1, "headers": header, "ttl_seconds": 0.001}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_do_not_repeat_what_was_sent_at_length() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let long = "q".repeat(100_000);
    let name = format!("/v1/queues/{}", "q".repeat(5000));
    let headers: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("a {n}"), json!("v")))
        .collect();
    for (path, json) in [
        (MESSAGES, json!({"body": 1, (long.clone()): 1})),
        (
            MESSAGES,
            json!({"body": 1, "headers": {(long.clone()): "v"}}),
        ),
        (MESSAGES, json!({"body": 1, "headers": {(long.clone()): 1}})),
        (MESSAGES, json!({"body": 1, "headers": headers})),
        (MESSAGES, json!({"body": 1, "deliver_at": long})),
        (&format!("{name}/ack"), json!({"receipts": ["r"]})),
        ("/v1/queues/orders/receive", json!({"max_messages": long})),
    ] {
        let json = json.to_string();
        let answer = app.post(path, &json).await;
        let problem = answer.expect_problem(422, "invalid");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.matches('q').count() <= 101,
            "{} {detail}",
            detail.len()
        );
        assert!(answer.text.len() < 20_000, "{path}: {}", answer.text.len());
    }
}

/// Requests besides publishes, and where they are wrong.
fn others() -> Vec<Row> {
    let receipts = |count: usize| json!(vec!["r"; count]);
    let [receive, ack, nack, extend] =
        ["receive", "ack", "nack", "extend"].map(|verb| format!("/v1/queues/orders/{verb}"));
    let unblock = "/v1/queues/orders/unblock";
    let redrive = "/v1/queues/orders/dead-letters/redrive";
    let mut cases: Vec<(&str, Value, &str)> = Vec::new();
    for n in [json!(-1), json!(0), json!(1001), json!(1.5), json!(1e300)] {
        cases.push((&receive, json!({"max_messages": n}), "/max_messages"));
    }
    for n in [json!(-1), json!(60.001), json!(1e300), json!("1")] {
        cases.push((&receive, json!({"wait_seconds": n}), "/wait_seconds"));
    }
    for n in [json!(-1), json!(0), json!(43_200.001), json!(1e300)] {
        cases.push((&receive, json!({"lease_seconds": n}), "/lease_seconds"));
        let request = json!({"receipts": ["r"], "lease_seconds": n});
        cases.push((&extend, request, "/lease_seconds"));
    }
    for n in [json!(-1), json!(31_536_000.001), json!(1e300)] {
        let request = json!({"receipts": ["r"], "delay_seconds": n});
        cases.push((&nack, request, "/delay_seconds"));
    }
    let both = json!({"receipts": ["r"], "delay_seconds": 1, "dead_letter": true});
    cases.push((&nack, both, "/delay_seconds"));
    for reason in ["x".repeat(1001), "a\u{0}b".to_owned()] {
        cases.push((
            &nack,
            json!({"receipts": ["r"], "reason": reason}),
            "/reason",
        ));
    }
    for path in [&ack, &nack, &extend] {
        for count in [0, 1001] {
            cases.push((path, json!({"receipts": receipts(count)}), "/receipts"));
        }
        cases.push((path, json!({}), ""));
    }
    for count in [0, 1001] {
        cases.push((redrive, json!({"ids": receipts(count)}), "/ids"));
    }
    for n in [-1, 0, 10_001] {
        cases.push((redrive, json!({"filter": {}, "limit": n}), "/limit"));
    }
    for n in [-1.0, 0.0, 0.0001, 1000.1, 1e300] {
        cases.push((
            redrive,
            json!({"filter": {}, "per_second": n}),
            "/per_second",
        ));
    }
    for count in [0, 1001] {
        cases.push((unblock, json!({"keys": receipts(count)}), "/keys"));
    }
    for key in ["", "a\u{0}b", "a\nb", &"x".repeat(257)] {
        cases.push((unblock, json!({"keys": ["k", key]}), "/keys/1"));
    }
    cases.push((redrive, json!({}), ""));
    cases.push((redrive, json!({"ids": ["i"], "filter": {}}), "/filter"));
    cases.push((
        redrive,
        json!({"filter": {}, "to_queue": "a b"}),
        "/to_queue",
    ));
    cases
        .into_iter()
        .map(|(path, request, pointer)| {
            let row = post(path, request.to_string()).invalid(pointer);
            let is_no_time = request["lease_seconds"] == json!(1e300);
            // Looked at once the queue is known, whose settings they stand beside.
            match pointer {
                "/lease_seconds" if is_no_time => row,
                "/receipts" | "/lease_seconds" | "/to_queue" => row.needs_postgres(),
                _ => row,
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_outside_their_range_are_refused() {
    check(|_| [publishes(), others()].concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letters_filter_may_name_any_time() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    for time in [
        "-9999-01-01T00:00:00Z",
        "%2B200000-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
    ] {
        for field in ["since", "until"] {
            let path = format!("/v1/queues/orders/dead-letters?{field}={time}");
            app.get(&path).await.expect(StatusCode::OK);
            let filter = json!({"filter": {field: time.replace("%2B", "+")}});
            for verb in ["redrive", "purge"] {
                let path = format!("/v1/queues/orders/dead-letters/{verb}");
                app.post(&path, &filter).await.expect(StatusCode::OK);
            }
        }
    }
}
