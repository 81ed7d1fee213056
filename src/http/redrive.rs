//! `POST /v1/queues/{queue}/dead-letters/redrive`: back to work.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::Caller;
use super::dead_letters::Filter;
use super::extract::{InQueue, NoParams, Query, in_range, parse, read_json};
use super::idempotency::{Keyed, answer, answer_seen, unless_answered};
use super::problem::Problem;
use super::whole::optional_whole;
use super::{Gateway, SharedGateway, to_keep};
use crate::domain::{Limits, MessageId, QueueName, Seconds, Verb};
use crate::store::{self, Effect, Kept, Redrive, Transaction};

/// What to put back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Redrive, example = json!({"filter": {"reason": "max-attempts"}, "limit": 1000}))]
pub(crate) struct RedriveRequest {
    /// These, 1 to 1000; or a filter.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Option<Vec<String>>,
    /// Those that match; `{}` is all.
    filter: Option<Filter>,
    /// With a filter: at most so many, the oldest first; 1 to 10000, by default
    /// 1000.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<i64>,
    /// Another queue, which the key may publish to; by default the one they came
    /// from.
    #[schema(max_length = 80, pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$")]
    to_queue: Option<String>,
    /// Spread them over time: so many a second; 0.001 to 1000.
    #[schema(minimum = 0.001, maximum = 1000)]
    per_second: Option<f64>,
}

/// What was put back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redriven {
    /// How many.
    count: usize,
    /// Which, in the order they will be received.
    #[schema(value_type = Vec<String>)]
    ids: Vec<MessageId>,
    /// With `ids`: those that are not dead letters of the queue (any more).
    #[schema(value_type = Vec<String>)]
    not_found: Vec<String>,
}

/// Redrive dead letters
///
/// Puts dead letters back to work: attempts are counted anew, the id is kept.
/// With `ids` of which none is a dead letter the answer is 404.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/dead-letters/redrive", tag = "Dead letters",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body(content = RedriveRequest,
        example = json!({"filter": {"reason": "max-attempts"}, "limit": 1000})),
    responses(
        (status = 200, description = "What was put back", body = Redriven),
        (status = 404, description = "`queue-not-found`, `dead-letter-not-found`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn redrive(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    caller: Caller,
    Query(NoParams {}): Query<NoParams>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let headers = &parts.headers;
    let (bytes, _room) = read_json(&gateway.capacity, headers, body).await?;
    let asked = async || Asked::of(&gateway, &name, &caller, parse(&bytes)?).await;
    let Some(keyed) = keyed else {
        let asked = asked().await?;
        let store = gateway.broker.store();
        let redriven = store.redrive(asked.queue_id, &asked.redrive).await?;
        let to_queue_id = asked.redrive.to_queue_id;
        gateway.broker.redriven(to_queue_id, &redriven).await;
        return asked.answer(&redriven).map(answer);
    };
    let once = keyed.once("redrive", &[name.as_str()], headers, &bytes);
    let result = async {
        let asked = asked().await?;
        let to_queue_id = asked.redrive.to_queue_id;
        let store = gateway.broker.store();
        let done = store.once(once, move |transaction| asked.clone().run(transaction));
        match done.await? {
            Ok(Effect::Done(redriven, kept)) => {
                gateway.broker.redriven(to_queue_id, &redriven).await;
                Ok(answer(kept))
            }
            Ok(Effect::Refused(refusal)) => Err(refusal),
            Err(seen) => answer_seen(seen),
        }
    };
    unless_answered(&gateway, once, result.await).await
}

/// What it came to in a transaction: the messages, each with its delay, or a refusal.
type Ran = Effect<Vec<store::Redriven>, Problem>;

/// What was asked for, made valid.
#[derive(Debug, Clone)]
struct Asked {
    queue_id: i64,
    redrive: Redrive,
    /// The ids as they were sent.
    wanted: Vec<String>,
}

impl Asked {
    async fn of(
        gateway: &Gateway,
        name: &QueueName,
        caller: &Caller,
        request: RedriveRequest,
    ) -> Result<Self, Problem> {
        let (wanted, filter) = match (request.ids, request.filter) {
            (Some(ids), None) if (1..=Limits::BATCH).contains(&ids.len()) => (Some(ids), None),
            (Some(_), None) => return Err(Problem::invalid("/ids", "must be 1 to 1000 ids")),
            (None, Some(filter)) => (None, Some(filter)),
            (None, None) => return Err(Problem::invalid("", "send ids or a filter; {} is all")),
            (Some(_), Some(_)) => return Err(Problem::invalid("/filter", "not together with ids")),
        };
        let limit = in_range(request.limit, 1000, 1..=10_000, "/limit")?;
        let apart = match request.per_second {
            None => Seconds::ZERO,
            Some(rate) if rate.is_finite() && (0.001..=1000.0).contains(&rate) => {
                Seconds::from_f64(1.0 / rate).unwrap_or(Seconds::ZERO)
            }
            Some(_) => {
                return Err(Problem::invalid(
                    "/per_second",
                    "must be from 0.001 to 1000",
                ));
            }
        };
        let queue = gateway.queue(name).await?;
        let target = match &request.to_queue {
            Some(to) => {
                let to = QueueName::parse(to, "/to_queue")?;
                caller.check_queue(Verb::Publish, &to)?;
                gateway.queue(&to).await?
            }
            None => queue.clone(),
        };
        let parsed: Option<Vec<i64>> = wanted.as_ref().map(|ids| {
            ids.iter()
                .filter_map(|id| MessageId::parse(id))
                .map(|id| id.0)
                .collect()
        });
        Ok(Self {
            queue_id: queue.id,
            redrive: Redrive {
                to_queue_id: target.id,
                ids: parsed,
                filter: filter.unwrap_or_default().into(),
                limit,
                apart,
                first_in: Seconds::ZERO,
                scheduled: false,
            },
            wanted: wanted.unwrap_or_default(),
        })
    }

    /// In a transaction, whose answer is kept.
    fn run(self, transaction: &mut Transaction) -> BoxFuture<'_, Result<Ran, store::Error>> {
        Box::pin(async move {
            let redriven = transaction.redrive(self.queue_id, &self.redrive).await?;
            Ok(match self.answer(&redriven) {
                Ok(kept) => Effect::Done(redriven, kept),
                Err(refusal) => Effect::Refused(refusal),
            })
        })
    }

    fn answer(&self, redriven: &[store::Redriven]) -> Result<Kept, Problem> {
        let ids: Vec<MessageId> = redriven
            .iter()
            .map(|one| MessageId(one.message_id))
            .collect();
        let not_found: Vec<String> = self
            .wanted
            .iter()
            .filter(|id| MessageId::parse(id).is_none_or(|id| !ids.contains(&id)))
            .map(|id| id.chars().take(100).collect())
            .collect();
        if ids.is_empty() && !not_found.is_empty() {
            return Err(Problem::dead_letter_not_found());
        }
        let redriven = Redriven {
            count: ids.len(),
            ids,
            not_found,
        };
        Ok(to_keep(StatusCode::OK, &redriven))
    }
}
