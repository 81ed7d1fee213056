//! `/v1/topics`: settings.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::extract::{InTopic, NoParams, OptionalJson, Query};
use super::precondition;
use super::problem::Problem;
use super::resource::{self, ListParams, PATCH_TRIES, not_system, put_status};
use super::whole::whole;
use super::{SharedGateway, reply};
use crate::domain::{QueueName, Seconds, TopicSettings};
use crate::store::{self, Topic};

/// A topic's settings; every one has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"retention_seconds": 86_400}))]
pub(crate) struct TopicConfig {
    /// How long its messages can be read from its stream, counted from the
    /// publish; 0: not at all; up to 365 days.
    #[schema(value_type = f64, default = 0, minimum = 0, maximum = 31_536_000)]
    retention_seconds: Seconds,
    /// Largest body in bytes; up to 8388608.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 1_048_576, minimum = 1, maximum = 8_388_608)]
    max_message_bytes: u32,
    /// How long a `dedup_id` is remembered; up to 7 days.
    #[schema(value_type = f64, default = 86_400, minimum = 0.001, maximum = 604_800)]
    dedup_window_seconds: Seconds,
}

impl Default for TopicConfig {
    fn default() -> Self {
        (&TopicSettings::default()).into()
    }
}

impl From<&TopicSettings> for TopicConfig {
    fn from(s: &TopicSettings) -> Self {
        Self {
            retention_seconds: s.retention,
            max_message_bytes: s.max_message_bytes,
            dedup_window_seconds: s.dedup_window,
        }
    }
}

impl TopicConfig {
    /// The settings, checked.
    fn settings(&self) -> Result<TopicSettings, Problem> {
        let settings = TopicSettings {
            retention: self.retention_seconds,
            max_message_bytes: self.max_message_bytes,
            dedup_window: self.dedup_window_seconds,
        };
        settings.check()?;
        Ok(settings)
    }
}

/// A topic with its settings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicView {
    /// Its name.
    #[schema(value_type = String, example = "shop")]
    name: QueueName,
    #[serde(flatten)]
    config: TopicConfig,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When its settings were last changed.
    updated_at: DateTime<Utc>,
}

/// A page of topics.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicList {
    topics: Vec<TopicView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl From<&Topic> for TopicView {
    fn from(topic: &Topic) -> Self {
        Self {
            name: topic.name.clone(),
            config: (&topic.settings).into(),
            created_at: topic.created_at,
            updated_at: topic.updated_at,
        }
    }
}

fn etag(topic: &Topic) -> String {
    resource::etag(topic.id, topic.version)
}

fn answer(status: StatusCode, topic: &Topic) -> Response {
    resource::answer(status, &TopicView::from(topic), &etag(topic))
}

/// Create or replace a topic
///
/// Settings that are left out have their defaults, also when the topic is there
/// already; PATCH changes some and keeps the rest. The same PUT twice changes
/// nothing.
#[utoipa::path(
    put, path = "/v1/topics/{topic}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "Its name", example = "shop",
            pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body(content = TopicConfig, description = "May be left out"),
    responses(
        (status = 200, description = "It was there and has these settings now", body = TopicView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "It was made", body = TopicView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn put_topic(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    OptionalJson(config): OptionalJson<TopicConfig>,
) -> Result<Response, Problem> {
    not_system(&name, "topic")?;
    let store = gateway.broker.store();
    let settings = config.settings()?;
    let (topic, created) = if precondition::is_conditional(&headers) {
        let old = store.topic_now(&name).await?;
        precondition::check(&headers, old.as_ref().map(etag).as_deref())?;
        match old {
            Some(old) => (
                store.update_topic(&name, &settings, old.version).await?,
                false,
            ),
            // What passed is If-None-Match: another put may come before this one.
            None => (
                store
                    .create_topic(&name, &settings)
                    .await?
                    .ok_or_else(Problem::precondition_failed)?,
                true,
            ),
        }
    } else {
        store.put_topic(&name, &settings).await?
    };
    if created {
        tracing::info!(topic = %name, "topic created");
    }
    Ok(answer(put_status(created), &topic))
}

/// Change some settings of a topic
///
/// A JSON merge patch (RFC 7396): what is left out stays, null brings back the
/// default.
#[utoipa::path(
    patch, path = "/v1/topics/{topic}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "Its name", example = "shop"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    request_body(content(
        (TopicConfig = "application/merge-patch+json", example = json!({"retention_seconds": 3600})),
        (TopicConfig = "application/json", example = json!({"retention_seconds": 3600})),
    )),
    responses(
        (status = 200, description = "Its settings now", body = TopicView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`topic-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn patch_topic(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    not_system(&name, "topic")?;
    let patch = precondition::read_patch(&gateway.capacity, &headers, request.into_body()).await?;
    let store = gateway.broker.store();
    // Somebody else's change in between: read it and patch that.
    for _ in 0..PATCH_TRIES {
        let old = store
            .topic_now(&name)
            .await?
            .ok_or_else(|| Problem::topic_not_found(&name))?;
        precondition::check(&headers, Some(&etag(&old)))?;
        let config = precondition::patched(&TopicConfig::from(&old.settings), &patch)?;
        let settings = config.settings()?;
        match store.update_topic(&name, &settings, old.version).await {
            Err(store::Error::Conflict) => {}
            other => return Ok(answer(StatusCode::OK, &other?)),
        }
    }
    Err(store::Error::Conflict.into())
}

/// Read a topic's settings
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "Topics",
    params(("topic" = String, Path, description = "Its name", example = "shop")),
    responses(
        (status = 200, description = "The topic", body = TopicView,
            headers(("ETag" = String, description = "Of the settings, for If-Match"))),
        (status = 404, description = "`topic-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_topic(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    Ok(answer(StatusCode::OK, &gateway.topic_now(&name).await?))
}

/// Delete a topic
///
/// With its stream, its subscriptions and the queues that these own. A queue of
/// theirs that another topic's subscription feeds too stays.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "Its name", example = "shop"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`topic-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_topic(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    not_system(&name, "topic")?;
    let topic = gateway.topic_now(&name).await?;
    precondition::check(&headers, Some(&etag(&topic)))?;
    let version = precondition::is_conditional(&headers).then_some(topic.version);
    if !gateway.broker.store().delete_topic(&name, version).await? {
        return Err(match version {
            Some(_) => Problem::precondition_failed(),
            None => Problem::topic_not_found(&name),
        });
    }
    tracing::info!(topic = %name, "topic deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// List topics
///
/// In order of name; those that the key has a scope on.
#[utoipa::path(
    get, path = "/v1/topics", tag = "Topics",
    params(ListParams),
    responses(
        (status = 200, description = "A page of topics", body = TopicList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
    ),
)]
pub(crate) async fn list_topics(
    State(gateway): State<SharedGateway>,
    caller: Caller,
    Query(params): Query<ListParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = params.page()?;
    let seen = caller.patterns();
    let mut topics = gateway
        .broker
        .store()
        .list_topics(&page.prefix, &page.after, seen.as_deref(), page.ask())
        .await?;
    let (next_cursor, headers) = page.cut(&mut topics, |topic| topic.name.as_str(), &uri);
    let list = TopicList {
        topics: topics.iter().map(TopicView::from).collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}
