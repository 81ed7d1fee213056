//! What others say of the scrape: Prometheus' own tool, and our table.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;

use super::{scrape, shows, value};
use crate::http::idempotency::keyed;
use crate::support::Reply;
use crate::workers::push::Hook;

/// promtool, where it is: CI and `make check-metrics` name it, and then it must
/// be there.
fn promtool() -> Option<OsString> {
    let named = std::env::var_os("PROMTOOL");
    named.or_else(|| {
        let found = Command::new("promtool").arg("--version").output();
        found.is_ok().then(|| "promtool".into())
    })
}

/// A gateway after traffic of every kind.
async fn traffic() -> Hook {
    let hook = Hook::start(json!({}), json!({})).await;
    hook.receiver.next(Reply::status(500));
    hook.publish_many(3).await;
    hook.drained().await;
    hook.queue("work", json!({})).await;
    hook.topic("shop", json!({})).await;
    hook.subscription("shop", "all", json!({"queue": "work"}))
        .await;
    let message = json!({"body": 1, "routing_key": "a"});
    hook.publish_topic("shop", message).await;
    for body in 0..3 {
        hook.publish("work", json!({"body": body})).await;
    }
    for verb in ["extend", "ack", "nack"] {
        let message = hook.receive_one("work").await;
        hook.settle(verb, "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    in_one_step(&hook).await;
    hook.receive("orders", json!({"wait_seconds": 0.01})).await;
    hook.get("/nowhere").await;
    assert!(
        hook.app
            .gateway
            .app
            .store()
            .vacuum_hot_tables()
            .await
            .unwrap()
    );
    shows(
        &hook,
        &[
            "postrider_queue_acked_total{queue=\"orders\"} 3",
            "postrider_queue_acked_total{queue=\"work\"} 2",
        ],
    )
    .await;
    hook
}

/// What is done once or not at all: transactions, requests and replies, and a publish
/// with an idempotency key.
async fn in_one_step(hook: &Hook) {
    hook.queue("asked", json!({})).await;
    let asked = hook.post("/v1/queues/asked/requests", json!({"body": 1}));
    let asked = asked.await.expect(StatusCode::ACCEPTED);
    let receipt = hook.receive_one("asked").await["receipt"].clone();
    let reply = json!({"receipt": receipt, "body": 2});
    hook.post("/v1/queues/asked/reply", reply)
        .await
        .expect(StatusCode::OK);
    let path = format!("/v1/replies/{}", asked["correlation_id"].as_str().unwrap());
    hook.get(&path).await.expect(StatusCode::OK);

    let receipt = hook.receive_one("work").await["receipt"].clone();
    let steps = json!({
        "acks": [{"queue": "work", "receipt": receipt}],
        "publishes": [{"queue": "asked", "message": {"body": 1}}],
    });
    hook.post("/v1/transactions", steps)
        .await
        .expect(StatusCode::OK);
    let asked = "/v1/queues/asked/messages";
    keyed(hook, asked, "once", json!({"body": 1}))
        .await
        .expect(StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_say_after_traffic_of_every_kind() {
    let Some(promtool) = promtool() else {
        println!("skipped: there is no promtool; `make check-metrics` fetches it");
        return;
    };
    let hook = traffic().await;
    let text = scrape(&hook).await;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

/// What dashboards and alerts rest on, kind and labels: what goes from here is
/// gone for those who use it. Other than in the table and the code, it stands here
/// so that nothing vanishes from both.
const PROMISED: [(&str, &str, &[&str]); 28] = [
    (
        "postrider_http_requests_total",
        "counter",
        &["operation", "status"],
    ),
    (
        "postrider_http_request_duration_seconds",
        "histogram",
        &["operation"],
    ),
    ("postrider_queue_messages", "gauge", &["queue", "state"]),
    (
        "postrider_queue_oldest_ready_age_seconds",
        "gauge",
        &["queue"],
    ),
    ("postrider_queue_consumers", "gauge", &["queue"]),
    ("postrider_queue_published_total", "counter", &["queue"]),
    ("postrider_queue_delivered_total", "counter", &["queue"]),
    ("postrider_queue_acked_total", "counter", &["queue"]),
    ("postrider_queue_nacked_total", "counter", &["queue"]),
    ("postrider_queue_expired_total", "counter", &["queue"]),
    ("postrider_queue_dead_lettered_total", "counter", &["queue"]),
    (
        "postrider_publish_to_first_delivery_seconds",
        "histogram",
        &[],
    ),
    ("postrider_lease_to_ack_seconds", "histogram", &[]),
    (
        "postrider_webhook_attempts_total",
        "counter",
        &["queue", "outcome"],
    ),
    (
        "postrider_webhook_attempt_duration_seconds",
        "histogram",
        &["queue"],
    ),
    ("postrider_webhook_breaker_state", "gauge", &["queue"]),
    ("postrider_batch_rows", "histogram", &["verb"]),
    ("postrider_batch_duration_seconds", "histogram", &["verb"]),
    ("postrider_batch_wait_seconds", "histogram", &["verb"]),
    ("postrider_database_up", "gauge", &[]),
    (
        "postrider_database_connections",
        "gauge",
        &["pool", "state"],
    ),
    ("postrider_database_connections_max", "gauge", &["pool"]),
    (
        "postrider_database_acquire_duration_seconds",
        "histogram",
        &["pool"],
    ),
    (
        "postrider_watermark_violations_total",
        "counter",
        &["table"],
    ),
    ("postrider_vacuums_total", "counter", &[]),
    ("postrider_vacuum_duration_seconds", "histogram", &[]),
    ("postrider_dead_rows", "gauge", &["table"]),
    ("postrider_oldest_snapshot_age_seconds", "gauge", &[]),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_shown_with_its_labels() {
    let hook = Hook::start(json!({}), json!({})).await;
    hook.publish_many(1).await;
    hook.drained().await;
    shows(&hook, &["postrider_queue_acked_total{queue=\"orders\"} 1"]).await;
    let text = scrape(&hook).await;
    for (name, kind, labels) in PROMISED {
        let head = format!("# TYPE {name} {kind}");
        assert!(text.lines().any(|line| line == head), "{head}: {text}");
        let suffix = if kind == "histogram" { "_count" } else { "" };
        let series = match labels {
            [] => format!("{name}{suffix} "),
            labels => format!("{name}{suffix}{{{}=\"", labels[0]),
        };
        let line = text.lines().find(|line| line.starts_with(&series));
        let line = line.unwrap_or_else(|| panic!("no {series}: {text}"));
        for label in labels {
            assert!(line.contains(&format!("{label}=\"")), "{line}");
        }
        assert_eq!(line.matches("=\"").count(), labels.len(), "{line}");
    }
    for state in ["ready", "leased", "delayed", "dead"] {
        let series = format!("postrider_queue_messages{{queue=\"orders\",state=\"{state}\"}} ");
        assert!(text.contains(&series), "{series}: {text}");
    }
}

/// What is told of a metric: its kind and the names of its labels.
type Told = (String, BTreeSet<String>);

/// The words in a cell that are code.
fn codes(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// By the table, and the verbs that it names.
fn table() -> (BTreeMap<String, Told>, Vec<String>) {
    let table = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md"));
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut verbs = Vec::new();
    let told = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, tells, ..] = cells[..] else {
            panic!("{row}");
        };
        let name = codes(name).next().unwrap();
        if name == "postrider_batch_rows" {
            // The others in there are no verbs: a header.
            verbs.extend(codes(tells).filter(|code| !code.contains('-')));
        }
        (name, (kind.to_owned(), codes(labels).collect()))
    });
    (told.collect(), verbs)
}

/// The names of labels of a series, whose values here have no quotes; `le` is every
/// histogram's.
fn labels(series: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = series.split_once('{').map_or("", |(_, rest)| rest);
    while let Some((name, value)) = rest.split_once("=\"") {
        names.insert(name.trim_start_matches(',').to_owned());
        rest = value.split_once('"').unwrap().1;
    }
    names.remove("le");
    names
}

/// By a scrape; a metric without series has no labels.
fn shown(text: &str) -> BTreeMap<String, Told> {
    let mut shown = BTreeMap::new();
    let mut latest = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            name.clone_into(&mut latest);
            shown.insert(latest.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (_, found): &mut Told = shown.get_mut(&latest).unwrap();
            found.extend(labels(line));
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_and_the_scrape_name_the_same_metrics_and_labels() {
    let hook = traffic().await;
    let text = scrape(&hook).await;
    let (told, verbs) = table();
    let shown = shown(&text);
    assert!(shown.len() > 30, "{text}");
    assert_eq!(shown, told);
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in verbs {
        let series = format!("postrider_batch_rows_count{{verb=\"{verb}\"}}");
        assert!(value(&text, &series) > Some(0.0), "{series}: {text}");
    }
    for operation in ["transact", "request", "reply_to_request", "get_reply"] {
        let series = format!("postrider_http_requests_total{{operation=\"{operation}\",");
        assert!(text.contains(&series), "{series}: {text}");
    }
}
