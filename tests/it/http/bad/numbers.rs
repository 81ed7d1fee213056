//! Numbers outside their range, negative, zero, huge and in fractions, wherever a
//! request has one. Those of messages and of receivers are in `fields`.

use serde_json::{Value, json};

use super::super::counts::{ranges, ranges_of_limits};
use super::MESSAGES;
use super::check::check;
use super::table::{Row, post, send};

/// An object with this value at a pointer, in an object.
fn with(pointer: &str, value: &Value, mut object: Value) -> Value {
    let names = pointer[1..].split('/');
    let place = names.fold(&mut object, |place, name| &mut place[name]);
    *place = value.clone();
    object
}

/// Pointers and what may not stand there, one by one; `null` apart, which in a
/// patch means the default.
fn each<'a>(
    outside: &'a [(&'a str, Value)],
    with_null: bool,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    outside.iter().flat_map(move |(pointer, values)| {
        let values = values.as_array().unwrap().iter();
        values
            .filter(move |value| with_null || !value.is_null())
            .map(|value| (*pointer, value))
    })
}

fn queues() -> Vec<Row> {
    let all = ranges().into_iter().chain(ranges_of_limits());
    let outside: Vec<(&str, Value)> = all
        .map(|(pointer, _, outside)| (pointer, outside))
        .collect();
    let mut rows = Vec::new();
    for (pointer, value) in each(&outside, true) {
        let settings = with(pointer, value, json!({})).to_string();
        for queue in ["new", "orders"] {
            let row = send("PUT", format!("/v1/queues/{queue}"));
            rows.push(row.json(settings.clone()).invalid(pointer));
        }
    }
    for (pointer, value) in each(&outside, false) {
        let settings = with(pointer, value, json!({})).to_string();
        let row = send("PATCH", "/v1/queues/orders").json(settings);
        rows.push(row.invalid(pointer).needs_postgres());
    }
    rows
}

fn topics() -> Vec<Row> {
    let outside = [
        (
            "/retention_seconds",
            json!([-1, -0.001, 31_536_000.001, 1e300, "1", null]),
        ),
        (
            "/max_message_bytes",
            json!([-1, 0, 0.5, 8_388_609, 1e300, null]),
        ),
        (
            "/dedup_window_seconds",
            json!([-1, 0, 604_800.001, 1e300, null]),
        ),
    ];
    let mut rows = Vec::new();
    for (pointer, value) in each(&outside, true) {
        let settings = with(pointer, value, json!({})).to_string();
        for topic in ["new", "shop"] {
            let row = send("PUT", format!("/v1/topics/{topic}"));
            rows.push(row.json(settings.clone()).invalid(pointer));
        }
    }
    for (pointer, value) in each(&outside, false) {
        let settings = with(pointer, value, json!({})).to_string();
        let row = send("PATCH", "/v1/topics/shop").json(settings);
        rows.push(row.invalid(pointer).needs_postgres());
    }
    rows
}

fn webhooks() -> Vec<Row> {
    let outside = [
        (
            "/timeout_seconds",
            json!([-1, 0, 0.099, 300.001, 1e300, "15", null]),
        ),
        (
            "/max_in_flight",
            json!([-1, 0, 1.5, 1001, 1e300, "1", null]),
        ),
        (
            "/rate_limit_per_second",
            json!([-1, 0, 0.009, 100_000.5, 1e300, "1"]),
        ),
        (
            "/disable_after_seconds",
            json!([-1, 0, 59.999, 31_536_000.001, 1e300]),
        ),
        (
            "/circuit_breaker/failure_rate",
            json!([-1, 0, 0.009, 1.01, 1e300, "1"]),
        ),
        ("/circuit_breaker/window", json!([-1, 0, 1.5, 1001, 1e300])),
        // 21 is more than the window has.
        ("/circuit_breaker/min_calls", json!([-1, 0, 1.5, 21, 1e300])),
        (
            "/circuit_breaker/open_seconds",
            json!([-1, 0, 0.099, 86_400.001, 1e300]),
        ),
    ];
    let url = json!({"url": "https://1.1.1.1/"});
    let mut rows = Vec::new();
    for (pointer, value) in each(&outside, true) {
        let webhook = with(pointer, value, url.clone());
        for queue in ["orders", "pushed"] {
            let row = send("PUT", format!("/v1/queues/{queue}/webhook")).json(webhook.to_string());
            // What is no such number is refused unasked, what is one but out of
            // range once the queue is known.
            rows.push(row.invalid(pointer).or_unavailable());
        }
        let owned = json!({"webhook": webhook}).to_string();
        let row = send("PUT", "/v1/topics/shop/subscriptions/n").json(owned);
        rows.push(row.invalid(format!("/webhook{pointer}")));
    }
    for (pointer, value) in each(&outside, false) {
        let patch = with(pointer, value, json!({})).to_string();
        let row = send("PATCH", "/v1/queues/pushed/webhook").json(patch);
        rows.push(row.invalid(pointer).needs_postgres());
    }
    rows
}

fn subscriptions() -> Vec<Row> {
    let mut rows = Vec::new();
    for numeric in [
        json!(["<", "1"]),
        json!(["<", null]),
        json!(["=>", 1]),
        json!(["<"]),
        json!([1]),
        json!([]),
        json!(1),
        json!([">", 2, "<", 1]),
    ] {
        let filter = json!({"filter": {"body": {"price": [{"numeric": numeric}]}}}).to_string();
        for (method, name) in [("PUT", "n"), ("PATCH", "s")] {
            let row = send(method, format!("/v1/topics/shop/subscriptions/{name}"));
            let row = row.json(filter.clone()).refused(422, "invalid");
            rows.push(if method == "PATCH" {
                row.needs_postgres()
            } else {
                row
            });
        }
    }
    // What no number can hold.
    let huge = r#"{"filter": {"body": {"price": [1e999]}}}"#;
    let row = send("PUT", "/v1/topics/shop/subscriptions/n").json(huge);
    rows.push(row.refused(422, "invalid"));
    rows
}

fn keys() -> Vec<Row> {
    let outside = [
        (
            "/expires_in_seconds",
            json!([-1, 0, 0.999, 315_360_000.001, 1e300, "1"]),
        ),
        (
            "/rate_limit/requests_per_second",
            json!([-1, 0, 0.0009, 1_000_000.5, 1e300, "1", null]),
        ),
        (
            "/rate_limit/burst",
            json!([-1, 0, 1.5, 1_000_001, 1e300, "1"]),
        ),
    ];
    let mut rows = Vec::new();
    for (pointer, value) in each(&outside, true) {
        let mut key = json!({"name": "x", "scopes": ["monitor"]});
        if pointer.starts_with("/rate_limit") {
            key["rate_limit"] = json!({"requests_per_second": 1});
        }
        let key = with(pointer, value, key).to_string();
        rows.push(post("/v1/keys", key).invalid(pointer));
    }
    for overlap in [json!(-1), json!(-0.001), json!(2_592_000.001), json!(1e300)] {
        let rotate = json!({"overlap_seconds": overlap}).to_string();
        let row = post("/v1/keys/000000000000/rotate", rotate);
        rows.push(row.invalid("/overlap_seconds"));
    }
    rows
}

/// Numbers in headers.
fn headers() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, values) in [
        ("priority", &["-1", "10", "1.5", "99999", "1e300", ""][..]),
        ("delay-seconds", &["-1", "31536000.001", "1e300", "inf", ""]),
        (
            "ttl-seconds",
            &["-1", "0", "0.0001", "31536001", "1e300", "NaN", ""],
        ),
        ("deliver-at", &["1700000000", "2999-01-01T00:00:00Z", ""]),
    ] {
        for value in values {
            for path in [MESSAGES, "/v1/topics/shop/messages"] {
                let row = send("POST", path).typed("text/plain", "x");
                let row = row.header(&format!("postrider-{name}"), value);
                rows.push(row.refused(422, "invalid").needs_postgres());
            }
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_outside_their_range_are_refused_wherever_they_stand() {
    check(|_| {
        [
            queues(),
            topics(),
            webhooks(),
            subscriptions(),
            keys(),
            headers(),
        ]
        .concat()
    })
    .await;
}
