//! HTTP: the only place that knows axum and utoipa.
//!
//! One endpoint is one function: extractors refuse what is not well-formed,
//! [`domain`](crate::domain) what is not valid, the
//! [`Broker`] does it, and every refusal on the way is a
//! [`problem`]. The description of an endpoint for `OpenAPI` stands above it.

mod access;
mod ack;
mod blocked_keys;
mod body;
mod capacity;
mod claims;
mod coding;
mod dead_letters;
mod envelope;
mod extend;
mod extract;
#[cfg(test)]
mod extract_tests;
mod head_limits;
mod health;
mod idempotency;
mod keys;
mod limits;
mod listen;
mod message_input;
mod messages;
mod metrics;
mod nack;
mod openapi;
mod operations;
mod page;
mod precondition;
mod prefer;
mod problem;
mod publish;
mod publish_topic;
mod purge;
mod queue_config;
mod queue_limits;
mod queues;
mod receive;
mod redrive;
mod replies;
mod reply;
mod requests;
mod resource;
mod schedules;
mod schemas;
mod settle;
mod shapes;
mod storage;
mod stream;
mod subscription_config;
mod subscriptions;
mod told;
mod topics;
mod transact;
mod transact_input;
mod waiting;
mod webhooks;
mod whole;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use access::Gate;
pub use capacity::Capacity;
pub use listen::{Options, Tls, TlsError, bind, listen};
pub use metrics::Asked as MetricsAsked;
pub use openapi::document;
pub use waiting::meanwhile;

use crate::batch::Broker;
use crate::domain::{AllowList, QueueName, ReceiptKey, RequestKey, SealingKey};
use crate::spans;
use crate::store::{Kept, Queue, Topic, Topology};
use crate::telemetry::RequestLog;
use crate::webhook::Pusher;
use problem::Problem;
use queue_limits::QueueLimits;

/// What the endpoints work with.
pub struct Gateway {
    /// The hot paths and the store.
    pub broker: Arc<Broker>,
    /// Checks API keys.
    pub gate: Gate,
    /// Writes and reads receipts.
    pub receipts: ReceiptKey,
    /// Writes and reads the correlation ids of requests.
    pub requests: Arc<RequestKey>,
    /// Seals webhooks' secrets; without it no webhook can be made.
    pub sealing: Option<SealingKey>,
    /// This gateway's number among the gateways of the database.
    pub id: i64,
    /// The time, for the sanity of times that clients send; never for what is
    /// visible when.
    pub clock: fn() -> DateTime<Utc>,
    /// The age of a snapshot, in seconds, from which on it is warned of.
    pub snapshot_age_warning: u32,
    /// Promises that the database's settings do not allow.
    pub gaps: Vec<String>,
    /// Pushes the tests of webhooks.
    pub pusher: Arc<Pusher>,
    /// What is in hand, and how much may be.
    pub capacity: Arc<Capacity>,
    /// How fast queues may be used.
    pub limits: Limits,
    /// Which addresses may be pushed to besides public ones.
    pub webhook_allow: AllowList,
    /// Which requests are logged.
    pub log: Arc<RequestLog>,
    /// When the database was asked for metrics.
    pub metrics_asked: MetricsAsked,
    /// Tasks that must end before the gateway does.
    pub tracker: TaskTracker,
    /// Cancelled when the gateway is to end.
    pub stop: CancellationToken,
}

/// How fast what may be used, as this gateway counts.
#[derive(Debug, Default)]
pub struct Limits {
    queues: QueueLimits,
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

    /// The topic of this name, from the database.
    async fn topic_now(&self, name: &QueueName) -> Result<Topic, Problem> {
        self.broker
            .store()
            .topic_now(name)
            .await?
            .ok_or_else(|| Problem::topic_not_found(name))
    }

    /// The topic of this name and its subscriptions.
    async fn topology(&self, name: &QueueName) -> Result<Arc<Topology>, Problem> {
        self.broker
            .store()
            .topology(name)
            .await?
            .ok_or_else(|| Problem::topic_not_found(name))
    }

    /// The same from the database.
    async fn topology_now(&self, name: &QueueName) -> Result<Arc<Topology>, Problem> {
        self.broker
            .store()
            .topology_now(name)
            .await?
            .ok_or_else(|| Problem::topic_not_found(name))
    }
}

/// Runs a request in a task of its own, so that a client that goes away does
/// not stop it half-way through its statements.
async fn uncancelled(
    State(gateway): State<SharedGateway>,
    request: Request,
    next: Next,
) -> Response {
    match gateway.tracker.spawn(spans::carry(next.run(request))).await {
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
    whole_json(status, json)
}

/// A JSON answer with the newline in it, to be kept under an idempotency key.
fn to_keep<T: Serialize>(status: StatusCode, value: &T) -> Kept {
    // What is written here are structs of strings and numbers.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Kept {
        status: status.as_u16(),
        body,
    }
}

fn whole_json(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
