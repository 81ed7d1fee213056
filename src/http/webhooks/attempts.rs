//! `GET .../webhook/attempts`.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::AnswerBody;
use crate::domain::{MessageId, Seconds};
use crate::http::extract::{InQueue, Query};
use crate::http::page;
use crate::http::problem::Problem;
use crate::http::{SharedGateway, reply};
use crate::store::{AttemptFilter, Cursor, PushAttempt, PushOutcomeKind};

/// One attempt to push a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PushAttempt)]
pub(crate) struct AttemptView {
    /// The message.
    #[schema(value_type = String, example = "msg_000000000001a")]
    message_id: MessageId,
    /// 1 first.
    attempt: i32,
    /// When it began.
    started_at: DateTime<Utc>,
    /// How long it took.
    #[schema(value_type = f64, example = 0.042)]
    duration_seconds: Seconds,
    /// `delivered` (2xx), `failed`, `gone` (410: the webhook was disabled) or
    /// `waiting` (429 or 503 with `Retry-After`: no attempt was used up).
    #[schema(example = "delivered")]
    outcome: String,
    /// The status of the answer; null if none came.
    #[schema(example = 204)]
    status: Option<i16>,
    /// What went wrong.
    error: Option<String>,
    #[serde(flatten)]
    answer: AnswerBody,
}

/// A page of attempts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PushAttemptList)]
pub(crate) struct AttemptList {
    attempts: Vec<AttemptView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Which attempts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AttemptParams {
    /// Only those of this message.
    #[param(pattern = "^msg_[0-7][0-9a-hjkmnp-tv-z]{12}$")]
    message_id: Option<String>,
    /// Only those answered with this status (`500`), or that came to this:
    /// `delivered`, `failed`, `gone`, `waiting`.
    #[param(pattern = "^([1-9][0-9]{2}|delivered|failed|gone|waiting)$")]
    status: Option<String>,
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl AttemptParams {
    fn filter(&self) -> Result<AttemptFilter, Problem> {
        let mut filter = AttemptFilter::default();
        if let Some(id) = &self.message_id {
            let id = MessageId::parse(id)
                .ok_or_else(|| Problem::bad_request("invalid-query", "message_id is no id"))?;
            filter.message_id = Some(id.0);
        }
        match self.status.as_deref() {
            None => {}
            Some("delivered") => filter.outcome = Some(PushOutcomeKind::Delivered),
            Some("failed") => filter.outcome = Some(PushOutcomeKind::Failed),
            Some("gone") => filter.outcome = Some(PushOutcomeKind::Gone),
            Some("waiting") => filter.outcome = Some(PushOutcomeKind::Waiting),
            Some(code) => {
                let status = code.parse().ok().filter(|n| (100..1000).contains(n));
                filter.status = Some(status.ok_or_else(|| {
                    Problem::bad_request(
                        "invalid-query",
                        "status must be a status code such as 500, or delivered, failed, gone or \
                         waiting",
                    )
                })?);
            }
        }
        Ok(filter)
    }
}

impl From<PushAttempt> for AttemptView {
    fn from(attempt: PushAttempt) -> Self {
        Self {
            message_id: MessageId(attempt.message_id),
            attempt: attempt.attempt,
            started_at: attempt.started_at,
            duration_seconds: Seconds::from_millis(attempt.duration_ms.into()),
            outcome: attempt.outcome,
            status: attempt.status,
            error: attempt.error,
            answer: AnswerBody::of(attempt.answer.unwrap_or_default()),
        }
    }
}

/// List a webhook's attempts
///
/// Newest first; kept for 30 days. An attempt is listed about a second after its
/// end.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/webhook/attempts", tag = "Webhooks",
    params(("queue" = String, Path, description = "The queue's name", example = "orders"),
        AttemptParams),
    responses(
        (status = 200, description = "A page of attempts", body = AttemptList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`queue-not-found`, `webhook-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_webhook_attempts(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<AttemptParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = params.cursor.as_deref().map(page::cursor).transpose()?;
    if !matches!(after, None | Some(Cursor::Timed { .. })) {
        return Err(page::of_another_list());
    }
    let filter = params.filter()?;
    let (queue, _) = gateway.webhook(&name).await?;
    let (attempts, next) = gateway
        .broker
        .store()
        .push_attempts(queue.id, filter, after, limit)
        .await?;
    let next_cursor = next.map(page::write_cursor);
    let headers = page::link(&uri, next_cursor.as_deref());
    let list = AttemptList {
        attempts: attempts.into_iter().map(Into::into).collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}
