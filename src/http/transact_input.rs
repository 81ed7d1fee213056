//! What a transaction is asked to do: made valid, then every name in it looked up.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::json;

use super::Gateway;
use super::access::Caller;
use super::extract::Object;
use super::message_input::Described;
use super::nack::check_nack;
use super::problem::Problem;
use super::publish_topic::{route, routing_key};
use super::resource::not_system;
use super::schemas::check_schema;
use super::shapes::{NAME, Schemas, schema};
use super::told::Trace;
use super::transact::{NackPart, PublishPart, TransactRequest};
use crate::batch::Settling;
use crate::domain::{ClaimKey, ClaimToken, Failure, Lease, Limits, QueueName, RoutingKey, Verb};
use crate::store::{Place, Publish, PublishTopic, Queue, SchemaOf, Steps};

/// The parts, as far as they can be judged by themselves.
pub(super) struct Plan {
    acks: Vec<(QueueName, Lease)>,
    nacks: Vec<(QueueName, Settling)>,
    publishes: Vec<(Target, Described, RoutingKey)>,
    claims: Vec<(ClaimKey, ClaimToken)>,
}

enum Target {
    Queue(QueueName),
    Topic(QueueName),
}

/// The parts with all that they name.
#[derive(Default)]
pub(super) struct Resolved {
    /// All but the nacks.
    pub(super) steps: Steps,
    pub(super) nacks: Vec<(Arc<Queue>, Settling)>,
    /// The queues of acks, once each.
    pub(super) acked: Vec<Arc<Queue>>,
}

impl Resolved {
    /// The leases that are to end.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        let nacked = self.nacks.iter().map(|(_, nack)| &nack.lease);
        self.steps.acks.iter().chain(nacked)
    }
}

impl Plan {
    pub(super) fn of(
        gateway: &Gateway,
        request: TransactRequest<'_>,
        bytes: &Bytes,
        trace: &Trace,
    ) -> Result<Self, Problem> {
        let TransactRequest {
            acks,
            nacks,
            publishes,
            claims,
        } = request;
        let parts = acks.len() + nacks.len() + publishes.len() + claims.len();
        if !(1..=Limits::BATCH).contains(&parts) {
            let most = Limits::BATCH;
            let detail = format!("must be 1 to {most} parts in all, not {parts}");
            return Err(Problem::invalid("", detail));
        }
        let mut seen = HashSet::new();
        let mut lease = |receipt: &str, at: &str| -> Result<Lease, Problem> {
            let pointer = format!("{at}/receipt");
            let lease = gateway.receipts.open(receipt).map_err(|error| {
                Problem::from(error).at(vec![pointer.clone()], "is not a receipt")
            })?;
            if seen.insert(lease) {
                Ok(lease)
            } else {
                Err(Problem::invalid(pointer, "comes twice"))
            }
        };
        let name = |name: &str, at: &str| QueueName::parse(name, &format!("{at}/queue"));
        let mut plan = Self {
            acks: Vec::with_capacity(acks.len()),
            nacks: Vec::with_capacity(nacks.len()),
            publishes: Vec::with_capacity(publishes.len()),
            claims: Vec::with_capacity(claims.len()),
        };
        for (at, Object(ack)) in acks.into_iter().enumerate() {
            let at = format!("/acks/{at}");
            plan.acks
                .push((name(&ack.queue, &at)?, lease(&ack.receipt, &at)?));
        }
        for (at, Object(nack)) in nacks.into_iter().enumerate() {
            let at = format!("/nacks/{at}");
            let queue = name(&nack.queue, &at)?;
            let lease = lease(&nack.receipt, &at)?;
            plan.nacks.push((queue, settling(lease, nack, &at)?));
        }
        for (at, Object(publish)) in publishes.into_iter().enumerate() {
            let at = format!("/publishes/{at}");
            plan.publishes.push(described(publish, bytes, &at, trace)?);
        }
        let mut keys = HashSet::new();
        for (at, Object(claim)) in claims.into_iter().enumerate() {
            let at = format!("/claims/{at}");
            let key = ClaimKey::parse(&claim.key, &format!("{at}/key"))?;
            let token = ClaimToken::parse(&claim.token, &format!("{at}/token"))?;
            if !keys.insert(claim.key) {
                return Err(Problem::invalid(format!("{at}/key"), "comes twice"));
            }
            plan.claims.push((key, token));
        }
        Ok(plan)
    }

    /// Looks every name up, in the database itself if what was known of them may be
    /// old, and checks what depends on their settings. What the caller may not see is
    /// answered as what is not there.
    pub(super) async fn resolve(
        &self,
        gateway: &Gateway,
        caller: &Caller,
        anew: bool,
    ) -> Result<Resolved, Problem> {
        let mut resolved = Resolved::default();
        for (at, (name, lease)) in self.acks.iter().enumerate() {
            let at = format!("/acks/{at}");
            let queue = queue(gateway, caller, Verb::Consume, name, anew, &at).await?;
            of_queue(&queue, lease, &at)?;
            resolved.steps.acks.push(*lease);
            if !resolved.acked.iter().any(|other| other.id == queue.id) {
                resolved.acked.push(queue);
            }
        }
        for (at, (name, nack)) in self.nacks.iter().enumerate() {
            let at = format!("/nacks/{at}");
            let queue = queue(gateway, caller, Verb::Consume, name, anew, &at).await?;
            of_queue(&queue, &nack.lease, &at)?;
            resolved.nacks.push((queue, nack.clone()));
        }
        for (at, (key, _)) in self.claims.iter().enumerate() {
            caller
                .check_claim(key)
                .map_err(|problem| refused_name(problem, format!("/claims/{at}/key"), ""))?;
        }
        resolved.steps.claims.clone_from(&self.claims);
        let now = (gateway.clock)();
        for (at, (target, described, routing_key)) in self.publishes.iter().enumerate() {
            let at = format!("/publishes/{at}");
            let Described {
                at: inner, message, ..
            } = described;
            match target {
                Target::Queue(name) => {
                    let queue = queue(gateway, caller, Verb::Publish, name, anew, &at).await?;
                    message.check(queue.settings.max_message_bytes, inner, now)?;
                    let mut message = message.clone();
                    if let Some(version) = queue.schema_version {
                        let messages = std::iter::once((&**inner, &mut message));
                        check_schema(gateway, SchemaOf::Queue(queue.id), version, messages).await?;
                    }
                    let place = Place::Queue(resolved.steps.to_queues.len());
                    resolved.steps.places.push(place);
                    let messages = Arc::new(vec![message]);
                    resolved.steps.to_queues.push(Publish { queue, messages });
                }
                Target::Topic(name) => {
                    let missing =
                        |problem| refused_name(problem, format!("{at}/topic"), "no such topic");
                    caller.check_topic(Verb::Publish, name).map_err(missing)?;
                    let topology = if anew {
                        gateway.topology_now(name).await
                    } else {
                        gateway.topology(name).await
                    };
                    let topology = topology.map_err(missing)?;
                    message.check(topology.topic.settings.max_message_bytes, inner, now)?;
                    let mut routed = route(&topology, std::iter::once((described, routing_key)))?;
                    if let Some(version) = topology.topic.schema_version {
                        let messages = routed.iter_mut().map(|one| (&**inner, &mut one.message));
                        let of = SchemaOf::Topic(topology.topic.id);
                        check_schema(gateway, of, version, messages).await?;
                    }
                    let place = Place::Topic(resolved.steps.to_topics.len());
                    resolved.steps.places.push(place);
                    resolved.steps.to_topics.push(PublishTopic {
                        topology,
                        messages: Arc::new(routed),
                    });
                }
            }
        }
        Ok(resolved)
    }
}

/// The queue of a part.
async fn queue(
    gateway: &Gateway,
    caller: &Caller,
    verb: Verb,
    name: &QueueName,
    anew: bool,
    at: &str,
) -> Result<Arc<Queue>, Problem> {
    let missing = |problem| refused_name(problem, format!("{at}/queue"), "no such queue");
    caller.check_queue(verb, name).map_err(missing)?;
    if anew {
        let queue = gateway.broker.store().queue_now(name).await?;
        queue.ok_or_else(|| missing(Problem::queue_not_found(name)))
    } else {
        gateway.queue(name).await.map_err(missing)
    }
}

/// Says which name it is that a key may not use, or that is not there.
fn refused_name(problem: Problem, pointer: String, missing: &str) -> Problem {
    match problem.status() {
        StatusCode::NOT_FOUND => problem.at(vec![pointer], missing),
        StatusCode::FORBIDDEN => problem.at(vec![pointer], "the key lacks a scope for it"),
        _ => problem,
    }
}

fn of_queue(queue: &Queue, lease: &Lease, at: &str) -> Result<(), Problem> {
    if lease.queue_id == queue.id {
        return Ok(());
    }
    Err(Problem::with_part(
        StatusCode::NOT_FOUND,
        "receipt-not-found",
        format!("{at}/receipt"),
        "is of another queue",
    ))
}

fn settling(lease: Lease, nack: NackPart, at: &str) -> Result<Settling, Problem> {
    let NackPart {
        delay_seconds,
        reason,
        dead_letter,
        ..
    } = nack;
    check_nack(delay_seconds, reason.as_deref(), dead_letter).map_err(|p| p.under(at))?;
    Ok(Settling {
        lease,
        failure: if dead_letter {
            Failure::Rejected
        } else {
            Failure::Nacked {
                delay: delay_seconds,
            }
        },
        error: reason,
    })
}

fn described(
    publish: PublishPart<'_>,
    bytes: &Bytes,
    at: &str,
    trace: &Trace,
) -> Result<(Target, Described, RoutingKey), Problem> {
    let PublishPart {
        queue,
        topic,
        message: Object(message),
    } = publish;
    let target = match (queue, topic) {
        (Some(queue), None) => Target::Queue(QueueName::parse(&queue, &format!("{at}/queue"))?),
        (None, Some(topic)) => {
            let pointer = format!("{at}/topic");
            let topic = QueueName::parse(&topic, &pointer)?;
            not_system(&topic, &pointer)?;
            Target::Topic(topic)
        }
        (None, None) => return Err(Problem::invalid(at, "needs a queue or a topic")),
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(
                format!("{at}/topic"),
                "not together with queue",
            ));
        }
    };
    let described = message.message(bytes, format!("{at}/message"), trace)?;
    if matches!(target, Target::Queue(_)) {
        described.refuse_routing()?;
    }
    let routing_key = routing_key(&described)?;
    Ok((target, described, routing_key))
}

/// What a transaction publishes: to a queue, or to a topic what is routed by.
pub(super) fn describe(schemas: &mut Schemas) {
    let part = |to: &str, messages: [&str; 2]| {
        let [json, bytes] = messages.map(|name| format!("#/components/schemas/{name}"));
        json!({
            "type": "object",
            "required": [to, "message"],
            "properties": {
                to: {"type": "string", "pattern": NAME, "maxLength": 80},
                "message": {"oneOf": [{"$ref": json}, {"$ref": bytes}]},
            },
            "additionalProperties": false,
        })
    };
    let parts = json!({
        "description": "One message to publish, to a queue or to a topic.",
        "oneOf": [
            part("queue", ["Message", "BytesMessage"]),
            part("topic", ["RoutedMessage", "RoutedBytesMessage"]),
        ],
    });
    schemas.insert("PublishPart".to_owned(), schema(parts));
}
