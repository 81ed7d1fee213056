//! `POST /v1/schedules/{schedule}/pause` and `/resume`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{ScheduleView, answer};
use crate::domain::QueueName;
use crate::http::extract::{InSchedule, NoParams, Query};
use crate::http::problem::Problem;
use crate::http::resource::PATCH_TRIES;
use crate::http::{Gateway, SharedGateway};
use crate::store::{self, Schedule};

/// Pause a schedule
///
/// It publishes nothing until it is resumed.
#[utoipa::path(
    post, path = "/v1/schedules/{schedule}/pause", tag = "Schedules",
    params(("schedule" = String, Path, description = "Its name", example = "nightly-report")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`schedule-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn pause_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let schedule = set_paused(&gateway, &name, true).await?;
    tracing::info!(schedule = %name, "schedule paused");
    Ok(answer(StatusCode::OK, &schedule))
}

/// Resume a schedule
///
/// From its next tick on; those of the pause are not made up for.
#[utoipa::path(
    post, path = "/v1/schedules/{schedule}/resume", tag = "Schedules",
    params(("schedule" = String, Path, description = "Its name", example = "nightly-report")),
    responses(
        (status = 200, description = "The schedule", body = ScheduleView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`schedule-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn resume_schedule(
    State(gateway): State<SharedGateway>,
    InSchedule(name): InSchedule,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let schedule = set_paused(&gateway, &name, false).await?;
    tracing::info!(schedule = %name, "schedule resumed");
    gateway.watch(&schedule);
    Ok(answer(StatusCode::OK, &schedule))
}

async fn set_paused(
    gateway: &Gateway,
    name: &QueueName,
    paused: bool,
) -> Result<Schedule, Problem> {
    for _ in 0..PATCH_TRIES {
        let mut schedule = gateway.schedule(name).await?;
        if schedule.settings.paused == paused {
            return Ok(schedule);
        }
        schedule.settings.paused = paused;
        let store = gateway.broker.store();
        let updated = store.update_schedule(name, &schedule.settings, schedule.version);
        match updated.await {
            Err(store::Error::Conflict) => {}
            other => return Ok(other?),
        }
    }
    Err(store::Error::Conflict.into())
}
