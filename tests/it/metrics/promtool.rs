//! What others say of the scrape: Prometheus' own tool, and our table.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use reqwest::StatusCode;
use serde_json::json;

use super::{scrape, shows};
use crate::support::{App, Reply};
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

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_say_after_traffic_of_every_kind() {
    let Some(promtool) = promtool() else {
        println!("skipped: there is no promtool; `make check-metrics` fetches it");
        return;
    };
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
            "postrider_queue_acked_total{queue=\"work\"} 1",
        ],
    )
    .await;

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

#[tokio::test(flavor = "multi_thread")]
async fn the_table_and_the_scrape_name_the_same_metrics() {
    let app = App::start().await;
    let text = scrape(&app).await;
    let shown: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let table = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md"));
    let told: BTreeSet<(String, String)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| {
            let kind = rest.split(' ').next().unwrap();
            (name.to_owned(), kind.to_owned())
        })
        .collect();
    assert!(shown.len() > 30, "{text}");
    assert_eq!(shown, told);
}
