//! `POST /v1/transactions`: acks, nacks, publishes and completed claims, all of them or
//! none.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::claims::claim_lost;
use super::extract::{NoParams, Object, Query, parse, read_json};
use super::idempotency::{Keyed, answer, answer_seen, unless_answered};
use super::message_input::MessageInput;
use super::problem::Problem;
use super::told::{Trace, tell_messages};
use super::transact_input::{Plan, Resolved};
use super::{Gateway, SharedGateway, settle, to_keep};
use crate::batch::{NotDone, Transact};
use crate::domain::{MessageId, Seconds};
use crate::store::{Kept, Once, PartRefusal, Place, Refused, Transacted};

/// Steps to be done together, 1 to 1000 in all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Transaction, example = json!({
    "acks": [{"queue": "orders", "receipt": "RECEIPT"}],
    "publishes": [{"topic": "shop", "message": {"body": {"order": 42}, "routing_key": "paid"}}]}))]
pub(crate) struct TransactRequest<'a> {
    /// Done with these messages, for good.
    #[serde(default)]
    #[schema(value_type = Vec<AckPart>, required = false, max_items = 1000)]
    pub(super) acks: Vec<Object<AckPart>>,
    /// Give these back.
    #[serde(default)]
    #[schema(value_type = Vec<NackPart>, required = false, max_items = 1000)]
    pub(super) nacks: Vec<Object<NackPart>>,
    /// Publish these.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<PublishPart>, required = false, max_items = 1000)]
    pub(super) publishes: Vec<Object<PublishPart<'a>>>,
    /// Complete these claims.
    #[serde(default)]
    #[schema(value_type = Vec<ClaimPart>, required = false, max_items = 1000)]
    pub(super) claims: Vec<Object<ClaimPart>>,
}

/// One message to ack.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AckPart {
    /// The queue that it was received from.
    #[schema(
        example = "orders",
        max_length = 80,
        pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$"
    )]
    pub(super) queue: String,
    /// The receipt that came with it.
    pub(super) receipt: String,
}

/// One message to give back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NackPart {
    /// The queue that it was received from.
    #[schema(
        example = "orders",
        max_length = 80,
        pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$"
    )]
    pub(super) queue: String,
    /// The receipt that came with it.
    pub(super) receipt: String,
    /// When it may be received again; by default the queue's backoff says.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 31_536_000)]
    pub(super) delay_seconds: Option<Seconds>,
    /// What went wrong, at most 1000 characters; kept in the message's history.
    #[schema(max_length = 1000, pattern = "^[^\\x00]*$")]
    pub(super) reason: Option<String>,
    /// Make it a dead letter at once.
    #[serde(default)]
    pub(super) dead_letter: bool,
}

/// One message to publish, to a queue or to a topic.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishPart<'a> {
    /// Where to; or `topic`.
    #[schema(example = "invoices")]
    pub(super) queue: Option<String>,
    /// Where to; or `queue`.
    pub(super) topic: Option<String>,
    /// The message, as in a publish of one.
    #[serde(borrow)]
    #[schema(value_type = MessageInput)]
    pub(super) message: Object<MessageInput<'a>>,
}

/// One claim to complete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimPart {
    /// What is done.
    #[schema(
        example = "orders:42",
        min_length = 1,
        max_length = 255,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub(super) key: String,
    /// What the taking answered.
    #[schema(pattern = "^clm_[0-7][0-9a-hjkmnp-tv-z]{12}$")]
    pub(super) token: String,
}

/// What was done: all of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransactAnswer {
    /// Messages acked.
    acks: usize,
    /// Messages given back.
    nacks: usize,
    /// The messages published, in order.
    publishes: Vec<PublishedPart>,
    /// Claims completed.
    claims: usize,
}

/// One published message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishedPart {
    /// Its id; sorts by publish order.
    #[schema(value_type = String, example = "msg_000000000001a")]
    id: MessageId,
    /// Whether it was stored before under this `dedup_id`.
    duplicate: bool,
    /// How many subscriptions matched; of topics only.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<usize>,
}

/// Ack, nack, publish and complete claims together
///
/// All of it or nothing, in one transaction of the database: what is published is
/// there if and only if what was received is done with. The first part that cannot
/// be done is named in `errors`, with its pointer, and nothing is changed.
///
/// An ack counts only if this request makes it: a message that was acked before, with
/// the same receipt too, is `lease-lost` here, since what is published along with it
/// would be published twice; a claim that was completed before is `claim-done`. To be able to send a request again whose answer was
/// lost, give it an `Idempotency-Key`.
///
/// The key needs `consume` for the queues of acks and nacks and for claims, and `publish` for what is
/// published to.
#[utoipa::path(
    post, path = "/v1/transactions", tag = "Messages",
    params(
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context"),
        ("tracestate" = Option<String>, Header, description = "W3C Trace Context"),
    ),
    request_body = TransactRequest<'static>,
    responses(
        (status = 200, description = "Committed and flushed", body = TransactAnswer),
        (status = 403, description = "`scope-missing`: the key lacks a scope that a part needs"),
        (status = 404, description = "`queue-not-found`, `topic-not-found`, `receipt-not-found`"),
        (status = 409, description = "`lease-lost`, `lease-expired`, `out-of-order`, `claim-lost`, `claim-done`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `schema-violation`, `receipt-malformed`, `unroutable`, `batch-over-burst`"),
        (status = 429, description = "`queue-full`, `rate-limited`; nothing was done"),
    ),
)]
pub(crate) async fn transact(
    State(gateway): State<SharedGateway>,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let headers = &parts.headers;
    let (bytes, _room) = read_json(&gateway.capacity, headers, body).await?;
    let once = keyed.map(|keyed| keyed.once("transact", &[], headers, &bytes));
    let result = run(&gateway, &caller, headers, &bytes, once).await;
    unless_answered(&gateway, once, result).await
}

async fn run(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    bytes: &Bytes,
    once: Option<Once>,
) -> Result<Response, Problem> {
    let plan = Plan::of(gateway, parse(bytes)?, bytes, &Trace::to_keep(headers))?;
    let mut resolved = plan.resolve(gateway, caller, false).await?;
    limit(gateway, &resolved)?;
    tell_messages(resolved.leases().map(|lease| lease.message_id));
    let mut tried_anew = false;
    loop {
        let refused = match gateway.broker.transact(request(&resolved, once)).await? {
            Ok(done) => {
                tell_messages(done.ids);
                return Ok(answer(done.kept));
            }
            Err(NotDone::Seen(seen)) => return answer_seen(seen),
            Err(NotDone::Refused(refused)) => refused,
        };
        let is_gone = matches!(refused, Refused::Publish(_, PartRefusal::Gone));
        if tried_anew || !is_gone {
            return Err(resolved.refusal(refused));
        }
        // Deleted since it was cached; it may be there anew.
        tried_anew = true;
        resolved = plan.resolve(gateway, caller, true).await?;
    }
}

/// Lets the messages into the queues that limit how fast they come.
fn limit(gateway: &Gateway, resolved: &Resolved) -> Result<(), Problem> {
    let mut by_queue = HashMap::new();
    for publish in &resolved.steps.to_queues {
        by_queue
            .entry(publish.queue.id)
            .or_insert((&publish.queue, 0))
            .1 += 1;
    }
    for (queue, messages) in by_queue.into_values() {
        gateway.limits.queues.publish(queue, messages)?;
    }
    Ok(())
}

fn request(resolved: &Resolved, once: Option<Once>) -> Transact {
    let counts = (
        resolved.steps.acks.len(),
        resolved.nacks.len(),
        resolved.steps.claims.len(),
    );
    let places = resolved.steps.places.clone();
    Transact {
        steps: resolved.steps.clone(),
        nacks: resolved.nacks.clone(),
        acked: resolved.acked.clone(),
        once,
        answer: Box::new(move |done| write(counts, &places, done)),
    }
}

fn write(counts: (usize, usize, usize), places: &[Place], done: &Transacted) -> Kept {
    let (acks, nacks, claims) = counts;
    let publishes = places.iter().filter_map(|place| match place {
        Place::Queue(at) => done.to_queues.get(*at).map(|m| PublishedPart {
            id: MessageId(m.id),
            duplicate: m.duplicate,
            subscriptions: None,
        }),
        Place::Topic(at) => done.to_topics.get(*at).map(|m| PublishedPart {
            id: MessageId(m.id),
            duplicate: m.duplicate,
            subscriptions: Some(m.subscriptions),
        }),
    });
    let answer = TransactAnswer {
        acks,
        nacks,
        publishes: publishes.collect(),
        claims,
    };
    to_keep(StatusCode::OK, &answer)
}

/// 409: it was completed before.
fn claim_done() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "claim-done",
        "The claim was completed before, with this token: what belongs to it was done. Nothing was \
         changed.",
    )
}

impl Resolved {
    /// What became of the part that could not be done.
    fn refusal(&self, refused: Refused) -> Problem {
        match refused {
            Refused::Ack(at, why) => self.because(why, format!("/acks/{at}"), None),
            Refused::Nack(at, why) => self.because(why, format!("/nacks/{at}"), None),
            Refused::Claim(at, why) => self.because(why, format!("/claims/{at}"), None),
            Refused::Publish(at, why) => {
                let place = self.steps.places.get(at).copied();
                self.because(why, format!("/publishes/{at}"), place)
            }
        }
    }

    fn because(&self, why: PartRefusal, pointer: String, place: Option<Place>) -> Problem {
        let name = place.map(|place| match place {
            Place::Queue(at) => (&self.steps.to_queues[at].queue.name, false),
            Place::Topic(at) => (&self.steps.to_topics[at].topology.topic.name, true),
        });
        let (problem, detail) = match (why, name) {
            (PartRefusal::LeaseExpired, _) => (settle::lease_expired(), "the lease has run out"),
            (PartRefusal::OutOfOrder, _) => {
                (settle::out_of_order(), "one before it is not settled")
            }
            (PartRefusal::ClaimLost, _) => (claim_lost(), "somebody else has it, or nobody"),
            (PartRefusal::ClaimDone, _) => (claim_done(), "was completed before"),
            (PartRefusal::Gone, Some((topic, true))) => {
                (Problem::topic_not_found(topic), "no such topic")
            }
            (PartRefusal::Gone, Some((queue, false))) => {
                (Problem::queue_not_found(queue), "no such queue")
            }
            (PartRefusal::Full { queue, max_ready }, Some((name, _))) => (
                Problem::queue_full(queue.as_ref().unwrap_or(name), max_ready),
                "has no room",
            ),
            (PartRefusal::LeaseLost | PartRefusal::Gone | PartRefusal::Full { .. }, _) => {
                (settle::lease_lost(), "the lease ended before")
            }
        };
        problem.at(vec![pointer], detail)
    }
}
