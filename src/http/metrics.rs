//! `GET /metrics`.
//!
//! What the process counts is there at once. The rest is asked of the database
//! by the scrape: at most once every [`FRESH`], however many scrapers there are,
//! and without it after [`PATIENCE`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Mutex;

use super::SharedGateway;
use super::extract::{NoParams, Query};

/// How long what the database said is good.
const FRESH: Duration = Duration::from_secs(5);

/// How long a scrape waits for the database. Prometheus waits for ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the database was last asked; locked while it is.
#[derive(Debug, Default)]
pub struct Asked(Arc<Mutex<Option<Instant>>>);

/// Metrics for Prometheus
///
/// Of queues it shows what the database said at most five seconds ago; while the
/// database is away, only what the gateway itself has counted.
#[utoipa::path(
    get, path = "/metrics", tag = "Operations",
    responses((status = 200, description = "Prometheus' text format", body = String,
        content_type = "text/plain; version=0.0.4")),
)]
pub(crate) async fn metrics(
    State(gateway): State<SharedGateway>,
    Query(NoParams {}): Query<NoParams>,
) -> Response {
    let store = gateway.broker.store();
    if tokio::time::timeout(PATIENCE, ask(&gateway)).await.is_err() {
        store.metrics().queues.set(None);
    }
    store.note_pools();
    let text = store.metrics().render();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Asks the database, in a task of its own that goes on if nobody waits for it
/// any more: the next scrape may have use for what it brings.
async fn ask(gateway: &SharedGateway) {
    let mut asked = Arc::clone(&gateway.metrics_asked.0).lock_owned().await;
    if asked.is_some_and(|asked| asked.elapsed() < FRESH) {
        return;
    }
    let store = gateway.broker.store().clone();
    let asking = gateway.tracker.spawn(async move {
        let metrics = store.metrics();
        match store.numbers(metrics.named_queues()).await {
            Ok(reading) => {
                metrics.queues.set(Some(reading));
                *asked = Some(Instant::now());
            }
            Err(error) => {
                tracing::debug!(%error, "the metrics are without those of the database");
                metrics.queues.set(None);
            }
        }
    });
    if let Err(error) = asking.await {
        tracing::error!(%error, "the database was not asked for metrics");
    }
}
