//! `/v1/topics/{topic}/subscriptions`: what binds a topic to a queue.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::access::Caller;
use super::extract::{InSubscription, InTopic, NoParams, OptionalJson, Query};
use super::precondition;
use super::problem::Problem;
use super::resource::{self, ListParams, PATCH_TRIES, put_status};
use super::subscription_config::{FilterInput, SubscriptionConfig};
use super::webhooks::WebhookView;
use super::{Gateway, SharedGateway, reply};
use crate::domain::{QueueName, WebhookSettings};
use crate::store::{self, SubscribeRefusal, Subscription};

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscription)]
pub(crate) struct SubscriptionView {
    /// Its name.
    #[schema(value_type = String, example = "billing")]
    name: QueueName,
    /// Its topic.
    #[schema(value_type = String, example = "shop")]
    topic: QueueName,
    /// The queue that it feeds.
    #[schema(value_type = String, example = "shop.billing")]
    queue: QueueName,
    /// Whether the queue was made for it and goes with it.
    owns_queue: bool,
    /// Which messages; null is all.
    #[schema(value_type = Option<FilterInput>)]
    filter: Option<Value>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last changed.
    updated_at: DateTime<Utc>,
    /// The webhook of its own queue; not in lists. With its secret in the answer
    /// that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookView>,
}

/// A page of subscriptions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubscriptionList {
    subscriptions: Vec<SubscriptionView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl SubscriptionView {
    fn new(topic: &QueueName, subscription: Subscription, webhook: Option<WebhookView>) -> Self {
        Self {
            name: subscription.name,
            topic: topic.clone(),
            queue: subscription.queue,
            owns_queue: subscription.owns_queue,
            filter: subscription.filter,
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
            webhook,
        }
    }
}

fn etag(subscription: &Subscription) -> String {
    resource::etag(subscription.id, subscription.version)
}

fn answer(
    status: StatusCode,
    topic: &QueueName,
    subscription: Subscription,
    webhook: Option<WebhookView>,
) -> Response {
    let etag = etag(&subscription);
    let view = SubscriptionView::new(topic, subscription, webhook);
    resource::answer(status, &view, &etag)
}

/// Makes or replaces the webhook of a subscription's own queue, if it is to have
/// one. A gateway that dies before leaves a queue that gathers: the same PUT
/// again goes on from there.
async fn with_webhook(
    gateway: &Gateway,
    subscription: &Subscription,
    settings: Option<&WebhookSettings>,
) -> Result<Option<WebhookView>, Problem> {
    match settings {
        Some(settings) => {
            let view = gateway
                .put_owned_webhook(&subscription.queue, settings)
                .await?;
            Ok(Some(view))
        }
        None if subscription.owns_queue => gateway.owned_webhook(&subscription.queue).await,
        None => Ok(None),
    }
}

fn not_found(name: &QueueName) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "subscription-not-found",
        format!("The topic has no subscription \"{name}\"."),
    )
}

fn refused(topic: &QueueName, refusal: SubscribeRefusal) -> Problem {
    match refusal {
        SubscribeRefusal::NoTopic => Problem::topic_not_found(topic),
        SubscribeRefusal::NoQueue(queue) => Problem::queue_not_found(&queue),
        SubscribeRefusal::QueueExists(queue) => Problem::new(
            StatusCode::CONFLICT,
            "queue-exists",
            format!(
                "The subscription's own queue would be \"{queue}\", which is there already. Feed \
                 it with \"queue\": \"{queue}\", or delete it first."
            ),
        ),
        SubscribeRefusal::NoQueueName => Problem::invalid(
            "subscription",
            "the name of its own queue, {topic}.{subscription}, would not be valid: it has more \
             than 80 characters, or \"..\"",
        ),
        SubscribeRefusal::FixedQueue => Problem::invalid(
            "/queue",
            "whether a subscription has a queue of its own stays as it is: delete it and make it \
             anew",
        ),
    }
}

/// Create or replace a subscription
///
/// From then on each message of the topic that the filter takes is in the queue
/// once, however many subscriptions feed it. A publish at this gateway sees it at
/// once, one at another within a second. The same PUT twice changes nothing.
#[utoipa::path(
    put, path = "/v1/topics/{topic}/subscriptions/{subscription}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "shop"),
        ("subscription" = String, Path, description = "Its name", example = "billing",
            pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there"),
    ),
    request_body(content = SubscriptionConfig, description = "May be left out"),
    responses(
        (status = 200, description = "It was there and is so now", body = SubscriptionView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "It was made", body = SubscriptionView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`topic-not-found`, `queue-not-found`"),
        (status = 409, description = "`queue-exists`, `changed-meanwhile`, `secret-key-missing`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `url-forbidden`, `url-unresolvable`, `url-unusable`"),
    ),
)]
pub(crate) async fn put_subscription(
    State(gateway): State<SharedGateway>,
    InSubscription(topic, name): InSubscription,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    OptionalJson(config): OptionalJson<SubscriptionConfig>,
) -> Result<Response, Problem> {
    let (wanted, webhook) = config.check(&gateway, &caller, &topic, &name).await?;
    let store = gateway.broker.store();
    let put = if precondition::is_conditional(&headers) {
        let old = store.subscription_now(&topic, &name).await?;
        precondition::check(&headers, old.as_ref().map(etag).as_deref())?;
        match old {
            Some(old) => store
                .update_subscription(&old, &wanted)
                .await?
                .map(|changed| (changed, false)),
            // What passed is If-None-Match: another put may come before this one.
            None => match store.create_subscription(&topic, &name, &wanted).await? {
                Ok(Some(made)) => Ok((made, true)),
                Ok(None) => return Err(Problem::precondition_failed()),
                Err(refusal) => Err(refusal),
            },
        }
    } else {
        store.put_subscription(&topic, &name, &wanted).await?
    };
    let (subscription, created) = put.map_err(|refusal| refused(&topic, refusal))?;
    if created {
        tracing::info!(%topic, subscription = %name, "subscription created");
    }
    let webhook = with_webhook(&gateway, &subscription, webhook.as_ref()).await?;
    Ok(answer(put_status(created), &topic, subscription, webhook))
}

/// Change a subscription
///
/// A JSON merge patch (RFC 7396): what is left out stays, null takes it away.
#[utoipa::path(
    patch, path = "/v1/topics/{topic}/subscriptions/{subscription}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "shop"),
        ("subscription" = String, Path, description = "Its name", example = "billing"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    request_body(content(
        (SubscriptionConfig = "application/merge-patch+json",
            example = json!({"filter": {"routing_key": "orders.#"}})),
        (SubscriptionConfig = "application/json",
            example = json!({"filter": {"routing_key": "orders.#"}})),
    )),
    responses(
        (status = 200, description = "As it is now", body = SubscriptionView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`topic-not-found`, `subscription-not-found`, \
            `queue-not-found`"),
        (status = 409, description = "`changed-meanwhile`, `secret-key-missing`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `url-forbidden`, `url-unresolvable`, `url-unusable`"),
    ),
)]
pub(crate) async fn patch_subscription(
    State(gateway): State<SharedGateway>,
    InSubscription(topic, name): InSubscription,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let patch = precondition::read_patch(&gateway.capacity, &headers, request.into_body()).await?;
    let store = gateway.broker.store();
    // Somebody else's change in between: read it and patch that.
    for _ in 0..PATCH_TRIES {
        let old = gateway.subscription_now(&topic, &name).await?;
        precondition::check(&headers, Some(&etag(&old)))?;
        let config = precondition::patched(&SubscriptionConfig::from(&old), &patch)?;
        let (wanted, webhook) = config.check(&gateway, &caller, &topic, &name).await?;
        match store.update_subscription(&old, &wanted).await {
            Err(store::Error::Conflict) => {}
            other => {
                let changed = other?.map_err(|refusal| refused(&topic, refusal))?;
                let webhook = with_webhook(&gateway, &changed, webhook.as_ref()).await?;
                return Ok(answer(StatusCode::OK, &topic, changed, webhook));
            }
        }
    }
    Err(store::Error::Conflict.into())
}

/// Read a subscription
#[utoipa::path(
    get, path = "/v1/topics/{topic}/subscriptions/{subscription}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "shop"),
        ("subscription" = String, Path, description = "Its name", example = "billing"),
    ),
    responses(
        (status = 200, description = "The subscription", body = SubscriptionView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`topic-not-found`, `subscription-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_subscription(
    State(gateway): State<SharedGateway>,
    InSubscription(topic, name): InSubscription,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let subscription = gateway.subscription_now(&topic, &name).await?;
    let webhook = with_webhook(&gateway, &subscription, None).await?;
    Ok(answer(StatusCode::OK, &topic, subscription, webhook))
}

/// Delete a subscription
///
/// And the queue that it owns with everything in it, unless another subscription
/// feeds that too.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}/subscriptions/{subscription}", tag = "Topics",
    params(
        ("topic" = String, Path, description = "The topic's name", example = "shop"),
        ("subscription" = String, Path, description = "Its name", example = "billing"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`topic-not-found`, `subscription-not-found`"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_subscription(
    State(gateway): State<SharedGateway>,
    InSubscription(topic, name): InSubscription,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let old = gateway.subscription_now(&topic, &name).await?;
    precondition::check(&headers, Some(&etag(&old)))?;
    let version = precondition::is_conditional(&headers).then_some(old.version);
    let store = gateway.broker.store();
    if !store.delete_subscription(&topic, &name, version).await? {
        return Err(match version {
            Some(_) => Problem::precondition_failed(),
            None => not_found(&name),
        });
    }
    tracing::info!(%topic, subscription = %name, "subscription deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// List a topic's subscriptions
///
/// In order of name.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/subscriptions", tag = "Topics",
    params(("topic" = String, Path, description = "The topic's name", example = "shop"),
        ListParams),
    responses(
        (status = 200, description = "A page of subscriptions", body = SubscriptionList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`topic-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_subscriptions(
    State(gateway): State<SharedGateway>,
    InTopic(topic): InTopic,
    Query(params): Query<ListParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = params.page()?;
    let topic_id = gateway.topic_now(&topic).await?.id;
    let mut found = gateway
        .broker
        .store()
        .list_subscriptions(topic_id, &page.prefix, &page.after, page.ask())
        .await?;
    let (next_cursor, headers) =
        page.cut(&mut found, |subscription| subscription.name.as_str(), &uri);
    let list = SubscriptionList {
        subscriptions: found
            .into_iter()
            .map(|subscription| SubscriptionView::new(&topic, subscription, None))
            .collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}

impl super::Gateway {
    /// The subscription of this name.
    async fn subscription_now(
        &self,
        topic: &QueueName,
        name: &QueueName,
    ) -> Result<Subscription, Problem> {
        let store = self.broker.store();
        if let Some(subscription) = store.subscription_now(topic, name).await? {
            return Ok(subscription);
        }
        self.topic_now(topic).await?;
        Err(not_found(name))
    }
}
