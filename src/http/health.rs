//! `/livez`, `/readyz`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{NoParams, Query};
use super::problem::Problem;
use super::{SharedGateway, reply};

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    /// The gateway's version; with `?verbose` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    /// The Postgres server's version; with `?verbose` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<String>,
    /// Promises that the database's settings do not allow; with `?verbose`
    /// only.
    #[serde(skip_serializing_if = "Option::is_none")]
    promises_off: Option<Vec<String>>,
}

/// Whether the gateway runs
///
/// Never asks the database: restarting the gateway would not bring that back.
#[utoipa::path(
    get, path = "/livez", tag = "Operations",
    responses((status = 200, description = "It runs", body = Health)),
)]
pub(crate) async fn livez(Query(NoParams {}): Query<NoParams>) -> Response {
    lives()
}

/// The answer of a gateway that runs.
pub(super) fn lives() -> Response {
    let health = Health {
        status: "ok",
        version: None,
        postgres: None,
        promises_off: None,
    };
    reply(StatusCode::OK, &health)
}

/// How much to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadyParams {
    /// Tell versions, and promises that the database's settings do not allow.
    verbose: Option<String>,
}

/// Whether the gateway can serve
///
/// Asks the database whether it can be written to, over a connection of its own,
/// and answers within two seconds.
#[utoipa::path(
    get, path = "/readyz", tag = "Operations",
    params(ReadyParams),
    responses((status = 200, description = "It can", body = Health)),
)]
pub(crate) async fn readyz(
    State(gateway): State<SharedGateway>,
    Query(params): Query<ReadyParams>,
) -> Result<Response, Problem> {
    if gateway.stop.is_cancelled() {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "shutting-down",
            "The gateway is shutting down.",
        )
        .retry_after(1));
    }
    let store = gateway.broker.store();
    let mut health = Health {
        status: "ok",
        version: None,
        postgres: None,
        promises_off: None,
    };
    let postgres = store.ready().await?;
    if params.verbose.is_some() {
        health.version = Some(env!("CARGO_PKG_VERSION"));
        health.postgres = Some(postgres);
        health.promises_off = Some(gateway.gaps.clone());
    }
    Ok(reply(StatusCode::OK, &health))
}
