//! `GET /v1/replies/{correlation_id}`: the reply to a request.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::envelope::Waited;
use super::extract::{InReply, Query};
use super::problem::Problem;
use super::receive::{JSON, write_around};
use super::{Gateway, SharedGateway, json_bytes};
use crate::domain::{Asked, Headers, Seconds, Verb};
use crate::store::{Reply, ReplyRead, ReplyTo};

/// The reply to a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reply)]
pub(crate) struct ReplyView {
    correlation_id: String,
    /// The JSON value, byte for byte as it was given.
    body: Option<serde_json::Value>,
    /// Or the bytes, in base64.
    body_base64: Option<String>,
    content_type: String,
    headers: Headers,
    replied_at: DateTime<Utc>,
}

/// The fields of a reply around its body.
#[derive(Serialize)]
struct ReplyHead<'a> {
    correlation_id: &'a str,
    content_type: &'a str,
    headers: &'a Headers,
    replied_at: DateTime<Utc>,
}

/// 200 with a reply.
pub(crate) fn write_reply(correlation_id: &str, found: &Reply) -> Result<Response, Problem> {
    let head = ReplyHead {
        correlation_id,
        content_type: found.content.content_type.as_deref().unwrap_or(JSON),
        headers: &found.headers,
        replied_at: found.replied_at,
    };
    let is_json = found.content.content_type.is_none();
    let mut json = Vec::with_capacity(found.content.body.len() * 4 / 3 + 400);
    write_around(&mut json, &head, &found.content.body, is_json)
        .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    Ok(json_bytes(StatusCode::OK, json))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReplyParams {
    /// How long to wait for the reply; 0 to 60, by default 0.
    #[param(value_type = Option<f64>, minimum = 0, maximum = 60)]
    wait_seconds: Option<f64>,
}

/// 404: none, and none to come. The same whatever the reason.
fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "reply-not-found",
        "There is no reply under this correlation id, and none will come: nobody answered in time, \
         the reply's time is over, or there was no such request.",
    )
}

/// Read a reply
///
/// The reply to a request, by the correlation id that its publisher was given: 200
/// with it, as often as it is asked for until five minutes after the request's
/// deadline; 204 while it may still come; 404 if it was not there in time, or its
/// time is over. With `wait_seconds` the call waits for it.
///
/// The key needs the scope `publish` on the request's queue, and is answered as if
/// there were no such request without it.
#[utoipa::path(
    get, path = "/v1/replies/{correlation_id}", tag = "Requests",
    params(
        ("correlation_id" = String, Path, description = "The request's", example = "req_AQ"),
        ReplyParams,
    ),
    responses(
        (status = 200, description = "The reply", body = ReplyView),
        (status = 204, description = "There is none yet"),
        (status = 404, description = "`reply-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_reply(
    State(gateway): State<SharedGateway>,
    caller: Caller,
    InReply(correlation_id): InReply,
    Query(params): Query<ReplyParams>,
) -> Result<Response, Problem> {
    let wait = params
        .wait_seconds
        .map_or(Some(Seconds::ZERO), Seconds::from_f64);
    let wait = wait.filter(|wait| (Seconds::ZERO..=Seconds::new(60)).contains(wait));
    let wait = wait.ok_or_else(|| Problem::invalid("wait_seconds", "must be from 0 to 60"))?;
    let asked = gateway
        .requests
        .open(&correlation_id)
        .ok_or_else(not_found)?;
    caller
        .check_queue(Verb::Publish, &asked.queue)
        .map_err(|_| not_found())?;
    let began = tokio::time::Instant::now();
    let found = read(&gateway, &asked, wait.to_duration()).await?;
    let mut response = match found {
        ReplyRead::There(found) => write_reply(&correlation_id, &found)?,
        ReplyRead::Pending => StatusCode::NO_CONTENT.into_response(),
        ReplyRead::Over => return Err(not_found()),
    };
    if wait > Seconds::ZERO {
        response.extensions_mut().insert(Waited(began.elapsed()));
    }
    Ok(response)
}

/// What there is of the reply, after so long if it is not there before.
async fn read(gateway: &Gateway, asked: &Asked, wait: Duration) -> Result<ReplyRead, Problem> {
    let (to, replies) = (ReplyTo::from(asked), gateway.broker.replies());
    if wait == Duration::ZERO {
        return Ok(replies.read(to).await?);
    }
    let _waiting = gateway.capacity.let_wait()?;
    // Before the database is asked: what comes in between is not missed.
    let mut awaiting = replies.await_reply(to);
    match replies.read(to).await? {
        ReplyRead::Pending => {}
        known => return Ok(known),
    }
    if let Some(found) = awaiting.reply(wait).await {
        return Ok(ReplyRead::There(found));
    }
    if gateway.stop.is_cancelled() {
        return Ok(ReplyRead::Pending);
    }
    Ok(replies.read(to).await?)
}
