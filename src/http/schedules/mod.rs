//! `/v1/schedules`: messages that the clock publishes.

mod actions;
mod config;
mod resource;

pub(crate) use actions::{
    __path_pause_schedule, __path_resume_schedule, pause_schedule, resume_schedule,
};
pub(crate) use resource::{
    __path_delete_schedule, __path_get_schedule, __path_list_schedules, __path_patch_schedule,
    __path_put_schedule, delete_schedule, get_schedule, list_schedules, patch_schedule,
    put_schedule,
};

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::Gateway;
use super::access::Caller;
use super::problem::Problem;
use super::resource as configuration;
use super::schemas::check_schema;
use crate::domain::{QueueName, ScheduleSettings, Target, Verb};
use crate::store::{Schedule, SchemaOf};
use config::ScheduleConfig;

/// A schedule with its settings and what it has done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub(crate) struct ScheduleView {
    /// Its name.
    #[schema(value_type = String, example = "nightly-report")]
    name: QueueName,
    #[serde(flatten)]
    config: ScheduleConfig,
    /// Its next tick; null if it is paused.
    next_run: Option<DateTime<Utc>>,
    /// The last tick that a message was published for.
    last_run: Option<DateTime<Utc>>,
    /// Why the last tick has no message; null if it has one.
    last_error: Option<LastError>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When its settings were last changed.
    updated_at: DateTime<Utc>,
}

/// Why a tick has no message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScheduleError)]
pub(crate) struct LastError {
    /// As of a publish that is refused: `queue-not-found`, `topic-not-found`,
    /// `queue-full`, `message-too-large`; or `internal`.
    #[schema(example = "queue-not-found")]
    code: String,
    /// The same in words.
    detail: String,
    /// When.
    at: DateTime<Utc>,
}

impl From<&Schedule> for ScheduleView {
    fn from(schedule: &Schedule) -> Self {
        Self {
            name: schedule.name.clone(),
            config: (&schedule.settings).into(),
            next_run: schedule.next_run,
            last_run: schedule.last_run,
            last_error: schedule
                .last_error
                .clone()
                .map(|(code, detail, at)| LastError { code, detail, at }),
            created_at: schedule.created_at,
            updated_at: schedule.updated_at,
        }
    }
}

fn etag(schedule: &Schedule) -> String {
    configuration::etag(schedule.id, schedule.version)
}

fn answer(status: StatusCode, schedule: &Schedule) -> Response {
    configuration::answer(status, &ScheduleView::from(schedule), &etag(schedule))
}

/// Refuses settings whose queue or topic is not there, or whose message it would
/// not take; and a caller who may not publish there, who learns as much.
async fn check_target(
    gateway: &Gateway,
    caller: &Caller,
    settings: &ScheduleSettings,
) -> Result<(), Problem> {
    let (most, of, version) = match &settings.target {
        Target::Queue(name) => {
            caller.check_queue(Verb::Publish, name)?;
            let queue = gateway.queue(name).await?;
            let most = queue.settings.max_message_bytes;
            (most, SchemaOf::Queue(queue.id), queue.schema_version)
        }
        Target::Topic(name, _) => {
            caller.check_topic(Verb::Publish, name)?;
            let topic = gateway.topic_now(name).await?;
            let most = topic.settings.max_message_bytes;
            (most, SchemaOf::Topic(topic.id), topic.schema_version)
        }
    };
    let now = (gateway.clock)();
    settings.message.check(most, "/message", now)?;
    if let Some(version) = version {
        // Each tick's is checked again, and carries the version.
        let mut message = settings.message.clone();
        let one = std::iter::once(("/message", &mut message));
        check_schema(gateway, of, version, one).await?;
    }
    Ok(())
}

impl Gateway {
    /// The schedule of this name.
    async fn schedule(&self, name: &QueueName) -> Result<Schedule, Problem> {
        self.broker
            .store()
            .schedule(name)
            .await?
            .ok_or_else(|| Problem::schedule_not_found(name))
    }

    /// From now on the schedule's next tick is this gateway's concern.
    fn watch(&self, schedule: &Schedule) {
        if let Some(next_run) = schedule.next_run {
            // A clock that goes wrong makes a look too early, or the next
            // heartbeat finds it.
            let next_in = next_run - (self.clock)();
            self.broker
                .schedules()
                .note(next_in.to_std().unwrap_or_default());
        }
    }
}

impl Problem {
    pub(crate) fn schedule_not_found(name: &QueueName) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "schedule-not-found",
            format!("There is no schedule \"{name}\". PUT /v1/schedules/{name} creates it."),
        )
    }
}
