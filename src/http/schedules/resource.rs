//! `/v1/schedules/{schedule}`: settings.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::config::ScheduleConfig;
use super::{ScheduleView, answer, check_target, etag};
use crate::http::access::Caller;
use crate::http::extract::{InSchedule, Json, NoParams, Query};
use crate::http::precondition;
use crate::http::problem::Problem;
use crate::http::resource::{ListParams, PATCH_TRIES, not_system, put_status};
use crate::http::{SharedGateway, reply};
use crate::store;

/// A page of schedules.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleList {
    schedules: Vec<ScheduleView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Create or replace a schedule
///
/// At each tick of `cron` the message is published once, however many gateways
/// there are, by the database's clock. Settings that are left out have their
/// defaults, also when the schedule is there already; PATCH changes some and keeps
/// the rest. The same PUT twice changes nothing.
///
/// When clocks are changed: a time that the wall clock jumps over (`30 2 * * *` in
/// spring) comes right after the jump, one that it shows twice comes the first time
/// only; patterns with a wildcard in minute or hour go on with the time that passes.
///
/// A body that breaks the schema of the queue or topic is refused here. A tick that
/// cannot be published (the queue is gone or full, or has another schema now) is
/// noted in `last_error`, told as `schedule.failed` through `system.events`, and is over.
///
/// Besides `manage` on the schedule's name a key needs `publish` on its queue or
/// topic.
#[utoipa::path(
    put, path = "/v1/schedules/{schedule}", tag = "Schedules",
    params(
        ("schedule" = String, Path, description = "Its name", example = "nightly-report"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body = ScheduleConfig,
    responses(
        (status = 200, description = "It was there and has these settings now", body = ScheduleView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "It was made", body = ScheduleView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 403, description = "`scope-missing`"),
        (status = 404, description = "`queue-not-found`, `topic-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `schema-violation`"),
    ),
)]
pub(crate) async fn put_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    Json(config): Json<ScheduleConfig>,
) -> Result<Response, Problem> {
    not_system(&name, "schedule")?;
    let store = gateway.broker.store();
    let settings = config.settings()?;
    check_target(&gateway, &caller, &settings).await?;
    let (schedule, created) = if precondition::is_conditional(&headers) {
        let old = store.schedule(&name).await?;
        precondition::check(&headers, old.as_ref().map(etag).as_deref())?;
        match old {
            Some(old) => {
                let updated = store.update_schedule(&name, &settings, old.version);
                (updated.await?, false)
            }
            // What passed is If-None-Match: another put may come before this one.
            None => (
                store
                    .create_schedule(&name, &settings)
                    .await?
                    .ok_or_else(Problem::precondition_failed)?,
                true,
            ),
        }
    } else {
        store.put_schedule(&name, &settings).await?
    };
    if created {
        tracing::info!(schedule = %name, "schedule created");
    }
    gateway.watch(&schedule);
    Ok(answer(put_status(created), &schedule))
}

/// Change some settings of a schedule
///
/// A JSON merge patch (RFC 7396): what is left out stays, null brings back the
/// default. To go from a queue to a topic, send the topic and `"queue": null`. A
/// body that is patched itself is written anew: not byte for byte.
#[utoipa::path(
    patch, path = "/v1/schedules/{schedule}", tag = "Schedules",
    params(
        ("schedule" = String, Path, description = "Its name", example = "nightly-report"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    request_body(content(
        (ScheduleConfig = "application/merge-patch+json", example = json!({"cron": "0 3 * * *"})),
        (ScheduleConfig = "application/json", example = json!({"cron": "0 3 * * *"})),
    )),
    responses(
        (status = 200, description = "Its settings now", body = ScheduleView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`schedule-not-found`, `queue-not-found`, `topic-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `schema-violation`"),
    ),
)]
pub(crate) async fn patch_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let patch = precondition::read_patch(&gateway.capacity, &headers, request.into_body()).await?;
    let store = gateway.broker.store();
    // Somebody else's change in between: read it and patch that.
    for _ in 0..PATCH_TRIES {
        let old = gateway.schedule(&name).await?;
        precondition::check(&headers, Some(&etag(&old)))?;
        let config = precondition::patched(&ScheduleConfig::from(&old.settings), &patch)?;
        let mut settings = config.settings()?;
        if patch.get("message").is_none() {
            // Byte for byte.
            settings.message = old.settings.message;
        }
        check_target(&gateway, &caller, &settings).await?;
        match store.update_schedule(&name, &settings, old.version).await {
            Err(store::Error::Conflict) => {}
            other => {
                let schedule = other?;
                gateway.watch(&schedule);
                return Ok(answer(StatusCode::OK, &schedule));
            }
        }
    }
    Err(store::Error::Conflict.into())
}

/// Read a schedule
#[utoipa::path(
    get, path = "/v1/schedules/{schedule}", tag = "Schedules",
    params(("schedule" = String, Path, description = "Its name", example = "nightly-report")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView,
            headers(("ETag" = String, description = "Of the settings, for If-Match"))),
        (status = 404, description = "`schedule-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &gateway.schedule(&name).await?))
}

/// Delete a schedule
///
/// What it has published stays.
#[utoipa::path(
    delete, path = "/v1/schedules/{schedule}", tag = "Schedules",
    params(
        ("schedule" = String, Path, description = "Its name", example = "nightly-report"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`schedule-not-found`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let schedule = gateway.schedule(&name).await?;
    precondition::check(&headers, Some(&etag(&schedule)))?;
    let version = precondition::is_conditional(&headers).then_some(schedule.version);
    let store = gateway.broker.store();
    if !store.delete_schedule(&name, version).await? {
        return Err(match version {
            Some(_) => Problem::precondition_failed(),
            None => Problem::schedule_not_found(&name),
        });
    }
    tracing::info!(schedule = %name, "schedule deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// List schedules
///
/// In order of name; those that the key has a scope on.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "Schedules",
    params(ListParams),
    responses(
        (status = 200, description = "A page of schedules", body = ScheduleList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
    ),
)]
pub(crate) async fn list_schedules(
    State(gateway): State<SharedGateway>,
    caller: Caller,
    Query(params): Query<ListParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = params.page()?;
    let seen = caller.managed_patterns();
    let mut schedules = gateway
        .broker
        .store()
        .list_schedules(&page.prefix, &page.after, seen.as_deref(), page.ask())
        .await?;
    let (next_cursor, headers) = page.cut(&mut schedules, |one| one.name.as_str(), &uri);
    let list = ScheduleList {
        schedules: schedules.iter().map(ScheduleView::from).collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}
