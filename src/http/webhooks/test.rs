//! `POST .../webhook/test`.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::AnswerBody;
use super::secret;
use crate::domain::{MessageId, Seconds, sign};
use crate::http::extract::{InQueue, NoParams, OptionalJson, Query};
use crate::http::problem::Problem;
use crate::http::{SharedGateway, reply};
use crate::spans::Span;
use crate::webhook::{Push, PushOutcome, Pushed};

/// What to push.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookTest, example = json!({"body": {"hello": "webhook"}}))]
pub(crate) struct TestRequest {
    /// Any JSON value; by default `{"test": true}`.
    body: Option<serde_json::Value>,
}

/// What the endpoint answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookTested)]
pub(crate) struct Tested {
    /// The `webhook-id` that was sent; of no message.
    #[schema(example = "test_000000000001a")]
    webhook_id: String,
    /// `delivered` (2xx), `failed`, `gone` (410) or `waiting` (429 or 503 with
    /// `Retry-After`).
    #[schema(example = "delivered")]
    outcome: &'static str,
    /// The status of the answer; null if none came.
    #[schema(example = 204)]
    status: Option<u16>,
    /// How long it took.
    #[schema(value_type = f64, example = 0.042)]
    duration_seconds: Seconds,
    /// What went wrong.
    error: Option<String>,
    #[serde(flatten)]
    answer: AnswerBody,
}

impl Tested {
    fn new(webhook_id: String, pushed: Pushed) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            webhook_id,
            outcome: match pushed.outcome {
                PushOutcome::Delivered => "delivered",
                PushOutcome::Gone => "gone",
                PushOutcome::Wait(_) => "waiting",
                PushOutcome::Failed => "failed",
            },
            status: pushed.status,
            duration_seconds: Seconds::from_millis(millis(pushed.duration)),
            error: pushed.error,
            answer: AnswerBody::of(pushed.answer),
        }
    }
}

/// Test a webhook
///
/// Pushes once, signed like any push, with an id that is no message's, and shows
/// what the endpoint answered: 200 whatever that was. It changes nothing: neither
/// the circuit breaker nor the attempts know of it, and a 410 disables nothing.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/webhook/test", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders")),
    request_body(content = TestRequest, description = "May be left out"),
    responses(
        (status = 200, description = "What came of it", body = Tested),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 409, description = "`secret-key-missing`, `secret-key-wrong`, `secret-damaged`"),
        (status = 422, description = "`invalid`, `url-forbidden`, `url-unresolvable`, `url-unusable`"),
    ),
)]
pub(crate) async fn test_webhook(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    OptionalJson(request): OptionalJson<TestRequest>,
) -> Result<Response, Problem> {
    let (_, webhook) = gateway.webhook(&name).await?;
    let settings = &webhook.settings;
    let secrets = secret::opened(&gateway, &webhook)?;
    let url = gateway.webhook_url(settings).await?;
    let body = request
        .body
        .unwrap_or_else(|| serde_json::json!({"test": true}));
    let body = Bytes::from(body.to_string());
    // Digits like those of a message, so that a receiver that looks at them is
    // tested too.
    let id = MessageId(rand::random::<i64>() & i64::MAX)
        .to_string()
        .replace("msg_", "test_");
    let timestamp = (gateway.clock)().timestamp();
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    let mut headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        ("postrider-queue".to_owned(), name.to_string()),
        ("postrider-attempt".to_owned(), "1".to_owned()),
    ];
    if let Some((parent, state)) = Span::current().and_then(|span| span.carried()) {
        headers.push(("traceparent".to_owned(), parent));
        headers.extend(state.map(|state| ("tracestate".to_owned(), state)));
    }
    headers.extend(settings.headers.clone());
    let pushed = gateway
        .pusher
        .push(Push {
            url: &url,
            headers,
            id: &id,
            timestamp,
            signature: sign(&secrets, &id, timestamp, &body),
            body,
            timeout: settings.timeout.to_duration(),
        })
        .await;
    Ok(reply(StatusCode::OK, &Tested::new(id, pushed)))
}
