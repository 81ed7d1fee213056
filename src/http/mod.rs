//! HTTP: the only place that knows axum and utoipa.
//!
//! One endpoint is one function: extractors refuse what is not well-formed,
//! [`domain`](crate::domain) what is not valid, the
//! [`Broker`] does it, and every refusal on the way is a
//! [`problem`]. The description of an endpoint for `OpenAPI` stands above it.

mod ack;
mod dead_letters;
mod extend;
mod extract;
mod health;
mod messages;
mod metrics;
mod nack;
mod openapi;
mod page;
mod problem;
mod publish;
mod purge;
mod queue_config;
mod queues;
mod receive;
mod settle;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, serve};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

pub use openapi::document;

use crate::batch::Broker;
use crate::domain::{QueueName, ReceiptKey};
use crate::store::Queue;
use problem::Problem;

/// What the endpoints work with.
pub struct Gateway {
    /// The hot paths and the store.
    pub broker: Arc<Broker>,
    /// Writes and reads receipts.
    pub receipts: ReceiptKey,
    /// This gateway's number among the gateways of the database.
    pub id: i64,
    /// The time, for the sanity of times that clients send; never for what is
    /// visible when.
    pub clock: fn() -> DateTime<Utc>,
    /// Promises that the database's settings do not allow.
    pub gaps: Vec<String>,
    /// Tasks that must end before the gateway does.
    pub tracker: TaskTracker,
    /// Cancelled when the gateway is to end.
    pub stop: CancellationToken,
}

type SharedGateway = Arc<Gateway>;

impl Gateway {
    /// The queue of this name.
    async fn queue(&self, name: &QueueName) -> Result<Arc<Queue>, Problem> {
        self.broker
            .store()
            .queue(name)
            .await?
            .ok_or_else(|| Problem::queue_not_found(name))
    }
}

/// The whole HTTP interface.
pub fn router(gateway: &Arc<Gateway>) -> Router {
    let (router, document) = openapi::routes(gateway).split_for_parts();
    let document = openapi::complete(document);
    router
        .with_state(Arc::clone(gateway))
        .merge(openapi::swagger_ui(document))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| {
                Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
            },
        ))
        .layer(middleware::from_fn(envelope))
}

/// Serves until the gateway is told to stop, then until the requests in hand
/// are answered.
///
/// # Errors
/// If the listener fails for good.
pub async fn listen(listener: TcpListener, gateway: Arc<Gateway>) -> std::io::Result<()> {
    let stop = gateway.stop.clone();
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // An answer is one small write; waiting to fill a packet only delays it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    serve(listener, router(&gateway))
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

/// The outermost layer: gives each request an id and each error its shape.
async fn envelope(request: Request, next: Next) -> Response {
    let request_id = request_id(&request);
    // Only if it will be written: this is on the way of every request.
    let line = tracing::enabled!(tracing::Level::DEBUG).then(|| {
        (
            Instant::now(),
            request.method().clone(),
            request.uri().path().to_owned(),
        )
    });
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| {
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        is_error.then(|| Problem::of_status(response.status()))
    });
    if let Some(problem) = &problem {
        response = problem.render(request_id.to_str().unwrap_or_default(), response);
    }
    if let Some((started, method, path)) = line {
        tracing::debug!(
            %method,
            path,
            status = response.status().as_u16(),
            code = problem.as_ref().map(Problem::code),
            detail = problem.as_ref().map(Problem::detail),
            request_id = request_id.to_str().ok(),
            milliseconds = started.elapsed().as_secs_f64() * 1000.0,
            "request"
        );
    }
    response.headers_mut().insert(X_REQUEST_ID, request_id);
    response
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's id if it is sane (1 to 128 visible ASCII characters without
/// quotes), a fresh one otherwise.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|c| c.is_ascii_graphic() && !b"\"\\<>".contains(c))
    };
    request
        .headers()
        .get(X_REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::from_str(&format!("{:032x}", rand::random::<u128>()))
                .unwrap_or(HeaderValue::from_static("none"))
        })
}

/// Runs a request in a task of its own, so that a client that goes away does
/// not stop it half-way through its statements.
async fn uncancelled(
    State(gateway): State<SharedGateway>,
    request: Request,
    next: Next,
) -> Response {
    match gateway.tracker.spawn(next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response(),
    }
}

/// A JSON answer.
fn reply<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => json_bytes(status, json),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response()
        }
    }
}

/// A JSON answer that is written already. It ends with a newline, for people
/// with curl.
fn json_bytes(status: StatusCode, mut json: Vec<u8>) -> Response {
    json.push(b'\n');
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
