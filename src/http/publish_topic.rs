//! `POST /v1/topics/{topic}/messages` and `/explain`: publish to a topic, and
//! what a publish would do.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::read_body;
use super::extract::{InTopic, NoParams, Query};
use super::idempotency::{Keyed, answer, answer_seen, has_key, unless_answered};
use super::message_input::{Described, MessageInput, demand_content_type, parsed, read_messages};
use super::problem::Problem;
use super::resource::not_system;
use super::schemas::check_schema;
use super::told::tell_messages;
use super::{Gateway, SharedGateway, reply, to_keep};
use crate::batch::{NotPublished, PublishOnce, To};
use crate::domain::{Candidate, MessageId, QueueName, RoutingKey};
use crate::store::{
    Kept, Once, PublishTopic, Routed, SchemaOf, Topic, TopicPublished, TopicRefusal, Topology,
};

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicPublishAnswer {
    messages: Vec<TopicMessage>,
}

/// One published message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TopicMessage {
    /// Its id, the same in every queue; sorts by publish order.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// Whether it was published before under this `dedup_id`.
    duplicate: bool,
    /// How many subscriptions matched.
    subscriptions: usize,
}

/// What a publish would do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// Every subscription of the topic, in order of name.
    subscriptions: Vec<Explained>,
}

/// What one subscription says to a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The subscription.
    #[schema(value_type = String, example = "billing")]
    subscription: QueueName,
    /// The queue that it feeds.
    #[schema(value_type = String, example = "shop.billing")]
    queue: QueueName,
    /// Whether it takes the message.
    matched: bool,
    /// The parts of the filter that did not match; empty if it takes the
    /// message.
    mismatches: Vec<MismatchView>,
}

/// A part of a filter that did not match.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Mismatch)]
pub(crate) struct MismatchView {
    /// JSON pointer into the filter.
    #[schema(example = "/routing_key")]
    part: String,
    /// Why not.
    detail: String,
}

impl TopicPublishAnswer {
    fn of(published: &[TopicPublished]) -> Self {
        let messages = published.iter().map(|m| TopicMessage {
            id: MessageId(m.id),
            duplicate: m.duplicate,
            subscriptions: m.subscriptions,
        });
        Self {
            messages: messages.collect(),
        }
    }

    fn to_keep(published: &[TopicPublished]) -> Kept {
        to_keep(StatusCode::CREATED, &Self::of(published))
    }
}

pub(super) fn routing_key(described: &Described) -> Result<RoutingKey, Problem> {
    described.refuse_timeout()?;
    let key = described.routing.key.as_deref().unwrap_or_default();
    Ok(RoutingKey::parse(key, &described.place("routing_key"))?)
}

fn with_keys(read: Vec<Described>) -> Result<Vec<(Described, RoutingKey)>, Problem> {
    read.into_iter()
        .map(|one| {
            let routing_key = routing_key(&one)?;
            Ok((one, routing_key))
        })
        .collect()
}

/// Finds each message's way; refuses where one must have one and has none.
pub(super) fn route<'d>(
    topology: &Topology,
    described: impl ExactSizeIterator<Item = (&'d Described, &'d RoutingKey)>,
) -> Result<Vec<Routed>, Problem> {
    let mut unroutable = Vec::new();
    let mut messages = Vec::with_capacity(described.len());
    for (one, routing_key) in described {
        let routed = topology.routed(one.message.clone(), routing_key.clone());
        if routed.route.subscriptions == 0 && one.routing.mandatory == Some(true) {
            unroutable.push(one.place("mandatory"));
        }
        messages.push(routed);
    }
    if unroutable.is_empty() {
        return Ok(messages);
    }
    Err(Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "unroutable",
        "No subscription of the topic takes the message, which is mandatory; nothing was stored. \
         POST it to the topic's explain to see why.",
    )
    .at(unroutable, "no subscription matches"))
}

/// Publish messages to a topic
///
/// Each subscription whose filter takes a message puts it into its queue, and
/// each queue gets it once; the body is stored once. One message, or a batch as
/// `{"messages": [...]}` that is stored whole or not at all. The answer comes when
/// Postgres has committed and flushed. Delay and time to live are each queue's
/// own unless the message has its own; `dedup_id` counts within the topic.
///
/// With any content type but `application/json` the body's bytes are stored as
/// they are; properties are then headers, as in a publish to a queue, and
/// `Postrider-Routing-Key` and `Postrider-Mandatory`.
///
/// A full queue (`max_ready` with `reject`) among those that matched refuses the
/// publish. Their `rate_limit` is for who publishes to them, and does not count
/// here.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/messages", tag = "Topics",
    params(
        ("topic" = String, Path, description = "Its name", example = "shop"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
        ("tracestate" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body(content(
        (MessageInput<'static> = "application/json", examples(
            ("one" = (summary = "One message", value = json!({
                "body": {"order": 42}, "routing_key": "orders.eu.paid"}))),
            ("batch" = (summary = "A batch", value = json!({
                "messages": [{"body": {"order": 43}, "routing_key": "orders.us.paid"},
                    {"body": {"order": 44}, "headers": {"shop": "eu"}}]}))),
        )),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 201, description = "Committed and flushed", body = TopicPublishAnswer),
        (status = 404, description = "`topic-not-found`"),
        (status = 408, description = "`body-timeout`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `unroutable`, `schema-violation`; nothing was \
            stored"),
        (status = 429, description = "`queue-full`; nothing was stored"),
    ),
)]
pub(crate) async fn publish_topic(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    not_system(&name, "topic")?;
    let (parts, body) = request.into_parts();
    demand_content_type(&parts.headers)?;
    if has_key(&parts.headers) {
        // Not all have one, so the rest have no room for it.
        return Box::pin(publish_topic_once(gateway, name, parts, body)).await;
    }
    let mut topology = gateway.topology(&name).await?;
    let mut described = with_keys(read_messages(&gateway.capacity, &parts.headers, body).await?)?;
    let now = (gateway.clock)();
    let (mut tried_anew, mut with_schema) = (false, false);
    loop {
        let max_bytes = topology.topic.settings.max_message_bytes;
        for (one, _) in &described {
            one.message.check(max_bytes, &one.at, now)?;
        }
        if with_schema || topology.topic.schema_version.is_some() {
            with_schema = true;
            Box::pin(check_by_topic(&gateway, &topology.topic, &mut described)).await?;
        }
        let messages = Arc::new(route(
            &topology,
            described.iter().map(|(one, key)| (one, key)),
        )?);
        let request = PublishTopic { topology, messages };
        match gateway.broker.publish_topic(request).await? {
            Ok(published) => {
                tell_messages(published.iter().map(|m| m.id));
                let answer = TopicPublishAnswer::of(&published);
                return Ok(reply(StatusCode::CREATED, &answer));
            }
            Err(TopicRefusal::NoTopic) if tried_anew => {
                return Err(Problem::topic_not_found(&name));
            }
            // Deleted since it was cached; it may be there anew.
            Err(TopicRefusal::NoTopic) => {
                tried_anew = true;
                topology = gateway.topology_now(&name).await?;
            }
            Err(TopicRefusal::Full { queue, max_ready }) => {
                return Err(Problem::queue_full(&queue, max_ready));
            }
        }
    }
}

/// Checks messages by the schema that the topic has, if it has one.
async fn check_by_topic(
    gateway: &Gateway,
    topic: &Topic,
    described: &mut [(Described, RoutingKey)],
) -> Result<(), Problem> {
    for (one, _) in &mut *described {
        one.message.schema_version = None;
    }
    let Some(version) = topic.schema_version else {
        return Ok(());
    };
    let messages = described
        .iter_mut()
        .map(|(one, _)| (&*one.at, &mut one.message));
    check_schema(gateway, SchemaOf::Topic(topic.id), version, messages).await
}

/// A publish with an idempotency key.
async fn publish_topic_once(
    gateway: SharedGateway,
    name: QueueName,
    mut parts: Parts,
    body: Body,
) -> Result<Response, Problem> {
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let keyed = keyed.ok_or_else(|| Problem::of_status(StatusCode::BAD_REQUEST))?;
    let headers = &parts.headers;
    let (bytes, _room) = read_body(&gateway.capacity, headers, body).await?;
    let once = keyed.once("publish_topic", &[name.as_str()], headers, &bytes);
    let result = store_once(&gateway, &name, once, headers, bytes).await;
    unless_answered(&gateway, once, result).await
}

async fn store_once(
    gateway: &Gateway,
    name: &QueueName,
    once: Once,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Response, Problem> {
    let mut topology = gateway.topology(name).await?;
    let mut described = with_keys(parsed(headers, bytes)?)?;
    let now = (gateway.clock)();
    let mut tried_anew = false;
    loop {
        let max_bytes = topology.topic.settings.max_message_bytes;
        for (one, _) in &described {
            one.message.check(max_bytes, &one.at, now)?;
        }
        check_by_topic(gateway, &topology.topic, &mut described).await?;
        let messages = Arc::new(route(
            &topology,
            described.iter().map(|(one, key)| (one, key)),
        )?);
        let publish = PublishTopic { topology, messages };
        let to = To::Topic(publish, TopicPublishAnswer::to_keep);
        match gateway
            .broker
            .publish_once(PublishOnce { once, to })
            .await?
        {
            Ok(published) => {
                tell_messages(published.ids);
                return Ok(answer(published.kept));
            }
            Err(NotPublished::Seen(seen)) => return answer_seen(seen),
            Err(NotPublished::Topic(TopicRefusal::Full { queue, max_ready })) => {
                return Err(Problem::queue_full(&queue, max_ready));
            }
            Err(_) if tried_anew => return Err(Problem::topic_not_found(name)),
            // Deleted since it was cached; it may be there anew.
            Err(_) => {
                tried_anew = true;
                topology = gateway.topology_now(name).await?;
            }
        }
    }
}

/// Explain where a message would go
///
/// A dry run: for each subscription of the topic whether it takes the message,
/// or which parts of its filter did not match. Takes one message, as a publish
/// does, and stores nothing.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/explain", tag = "Topics",
    params(("topic" = String, Path, description = "Its name", example = "shop")),
    request_body(content(
        (MessageInput<'static> = "application/json",
            example = json!({"body": {"order": 42}, "routing_key": "orders.eu.paid"})),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "What each subscription says", body = Explanation),
        (status = 404, description = "`topic-not-found`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn explain(
    State(gateway): State<SharedGateway>,
    InTopic(name): InTopic,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    demand_content_type(&parts.headers)?;
    let topology = gateway.topology_now(&name).await?;
    let described = read_messages(&gateway.capacity, &parts.headers, body).await?;
    let [one] = &described[..] else {
        return Err(Problem::invalid("/messages", "explain takes one message"));
    };
    let max_bytes = topology.topic.settings.max_message_bytes;
    one.message.check(max_bytes, &one.at, (gateway.clock)())?;
    let routing_key = routing_key(one)?;
    let candidate = Candidate::of(&one.message, &routing_key);
    let subscriptions = topology
        .subscriptions
        .iter()
        .map(|binding| {
            let mismatches = binding.filter.explain(&candidate);
            Explained {
                subscription: binding.subscription.clone(),
                queue: binding.queue.clone(),
                matched: mismatches.is_empty(),
                mismatches: mismatches
                    .into_iter()
                    .map(|mismatch| MismatchView {
                        part: mismatch.part,
                        detail: mismatch.detail,
                    })
                    .collect(),
            }
        })
        .collect();
    Ok(reply(StatusCode::OK, &Explanation { subscriptions }))
}
