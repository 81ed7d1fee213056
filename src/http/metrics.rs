//! `GET /metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::SharedGateway;
use super::extract::{NoParams, Query};

/// Metrics for Prometheus
///
/// Never asks the database.
#[utoipa::path(
    get, path = "/metrics", tag = "Operations",
    responses((status = 200, description = "Prometheus' text format", body = String,
        content_type = "text/plain; version=0.0.4")),
)]
pub(crate) async fn metrics(
    State(gateway): State<SharedGateway>,
    Query(NoParams {}): Query<NoParams>,
) -> Response {
    let text = gateway.broker.store().metrics().render();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
