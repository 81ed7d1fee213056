//! A subscription as it is written in JSON.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Gateway;
use super::access::Caller;
use super::problem::Problem;
use super::webhooks::WebhookConfig;
use crate::domain::{Filter, QueueName, UniqueNames, Verb, WebhookSettings};
use crate::store::{Subscribe, Subscription};

/// What a subscription is to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(example = json!({"filter": {"routing_key": "orders.*.paid"}}))]
pub(crate) struct SubscriptionConfig {
    /// A queue that is there, which it feeds. Without, it has a queue of its
    /// own, named `{topic}.{subscription}`, which is made and deleted with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 80, pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$")]
    queue: Option<String>,
    /// Which messages; without, all. Parts that are given are and-ed.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "unique_names"
    )]
    #[schema(value_type = Option<FilterInput>)]
    filter: Option<Value>,
    /// Where to push what arrives: the webhook of its own queue, as `PUT
    /// /v1/queues/{topic}.{subscription}/webhook` would make or replace it. Left
    /// out, the queue's webhook stays as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookConfig>,
}

/// Which messages a subscription takes.
#[derive(ToSchema)]
#[schema(as = SubscriptionFilter, example = json!({"routing_key": "orders.#", "headers": {"shop": "eu"}}))]
#[expect(dead_code, reason = "for the document; domain::filter reads it")]
pub(crate) struct FilterInput {
    /// An AMQP topic pattern over the routing key: `*` is one word, `#` any
    /// number of words.
    routing_key: Option<String>,
    /// Headers with these exact values.
    headers: Option<std::collections::BTreeMap<String, String>>,
    /// Whether `all` of the headers (the default) or `any` must be there.
    #[schema(rename = "match")]
    r#match: Option<String>,
    /// A filter policy over the JSON body, as SNS has it: for each name the
    /// values it may have, exact or as `prefix`, `suffix`, `anything-but`,
    /// `numeric`, `exists`; names may be nested.
    body: Option<std::collections::BTreeMap<String, Value>>,
}

fn unique_names<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    let value = Option::<UniqueNames>::deserialize(d)?;
    Ok(value.map(|UniqueNames(value)| value))
}

impl SubscriptionConfig {
    /// What is stored, checked; and the webhook that its queue is to have. The
    /// caller has to manage the queue, too: it is fed, or made.
    pub(crate) async fn check(
        self,
        gateway: &Gateway,
        caller: &Caller,
        topic: &QueueName,
        subscription: &QueueName,
    ) -> Result<(Subscribe, Option<WebhookSettings>), Problem> {
        let queue = self.queue.as_deref().map(|q| QueueName::parse(q, "/queue"));
        if let Some(filter) = &self.filter {
            Filter::parse(filter, "/filter")?;
        }
        let wanted = Subscribe {
            queue: queue.transpose()?,
            filter: self.filter,
        };
        match &wanted.queue {
            Some(queue) => caller.check_queue(Verb::Manage, queue)?,
            None => caller.check_own_queue(topic, subscription)?,
        }
        let Some(webhook) = self.webhook else {
            return Ok((wanted, None));
        };
        if wanted.queue.is_some() {
            return Err(Problem::invalid(
                "/webhook",
                "not together with queue: PUT /v1/queues/{queue}/webhook pushes what is in that",
            ));
        }
        let at = |problem: Problem| problem.under("/webhook");
        let settings = webhook.settings().map_err(|error| at(error.into()))?;
        gateway.check_owned_webhook(&settings).await.map_err(at)?;
        Ok((wanted, Some(settings)))
    }
}

impl From<&Subscription> for SubscriptionConfig {
    fn from(subscription: &Subscription) -> Self {
        Self {
            queue: (!subscription.owns_queue).then(|| subscription.queue.to_string()),
            filter: subscription.filter.clone(),
            webhook: None,
        }
    }
}
