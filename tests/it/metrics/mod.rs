//! `/metrics`: what it shows after what has happened.

mod promtool;
mod queues;
mod requests;
mod statements;
mod storage;
mod waits;
mod webhooks;

use std::time::Duration;

use crate::support::Gateway;

/// A scrape.
pub(super) async fn scrape(gateway: &Gateway) -> String {
    gateway.get("/metrics").await.text
}

/// Waits until a scrape has all of these lines. Does not wait until the counts
/// are folded and the scrape asks the database again.
pub(super) async fn shows(gateway: &Gateway, lines: &[&str]) {
    let mut missing = Vec::new();
    let store = gateway.app.store();
    let shown = async {
        loop {
            store.fold().await.unwrap();
            let metrics = store.metrics();
            let reading = store.numbers(metrics.named_queues()).await.unwrap();
            metrics.queues.set(Some(reading));
            let text = scrape(gateway).await;
            missing = lines.to_vec();
            missing.retain(|line| !text.lines().any(|l| l == *line));
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), shown).await;
    assert!(in_time.is_ok(), "never shown: {missing:#?}");
}

/// The value of a series.
pub(super) fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then_some(value)
    });
    line.map(|value| value.parse().unwrap())
}
