//! What ack, nack and extend have in common: receipts in, a result each out.

use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::told::tell_messages;
use super::{Gateway, reply};
use crate::domain::{Lease, Limits};
use crate::store::{Fate, Queue, Settled};

/// One result for each receipt, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Results {
    results: Vec<ItemResult>,
}

/// How it went with one receipt.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ItemResult {
    /// Whether it took effect.
    ok: bool,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lease-lost")]
    code: Option<&'static str>,
    /// The same as an HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// What went wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Until when the lease is good now; of extend only.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<DateTime<Utc>>,
}

/// One receipt's result before it is written.
pub(crate) type Outcome = Result<Option<DateTime<Utc>>, Problem>;

/// The receipts of a request: those that can be settled, and the outcome of
/// those that cannot.
pub(crate) struct Receipts {
    /// What is known already, with places for the rest.
    outcomes: Vec<Option<Outcome>>,
    /// The leases to settle, in order.
    pub(crate) leases: Vec<Lease>,
}

impl Receipts {
    /// Opens the receipts for a queue.
    pub(crate) fn open(
        gateway: &Gateway,
        queue: &Queue,
        receipts: &[String],
    ) -> Result<Self, Problem> {
        if receipts.is_empty() || receipts.len() > Limits::BATCH {
            return Err(Problem::invalid(
                "/receipts",
                format!(
                    "must be 1 to {} receipts, not {}",
                    Limits::BATCH,
                    receipts.len()
                ),
            ));
        }
        let mut leases = Vec::with_capacity(receipts.len());
        let outcomes = receipts
            .iter()
            .map(|receipt| match open_receipt(gateway, queue, receipt) {
                Err(problem) => Some(Err(problem)),
                Ok(lease) => {
                    leases.push(lease);
                    None
                }
            })
            .collect();
        tell_messages(leases.iter().map(|lease| lease.message_id));
        Ok(Self { outcomes, leases })
    }

    /// The answer, with the outcomes of the leases put in. A single receipt's
    /// failure is the answer's own; of several, each has its result.
    pub(crate) fn answer(
        self,
        settled: impl IntoIterator<Item = Outcome>,
    ) -> Result<Response, Problem> {
        let mut settled = settled.into_iter();
        let mut outcomes: Vec<Outcome> = self
            .outcomes
            .into_iter()
            .map(|known| {
                known
                    .or_else(|| settled.next())
                    .unwrap_or_else(|| Err(lease_lost()))
            })
            .collect();
        if outcomes.len() == 1
            && let Some(Err(problem)) = outcomes.pop_if(|outcome| outcome.is_err())
        {
            return Err(problem);
        }
        let results = outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(lease_expires_at) => ItemResult {
                    ok: true,
                    code: None,
                    status: None,
                    detail: None,
                    lease_expires_at,
                },
                Err(problem) => ItemResult {
                    ok: false,
                    code: Some(problem.code()),
                    status: Some(problem.status().as_u16()),
                    detail: Some(problem.detail().to_owned()),
                    lease_expires_at: None,
                },
            })
            .collect();
        Ok(reply(StatusCode::OK, &Results { results }))
    }
}

/// The lease of a receipt, if it is of this queue.
pub(crate) fn open_receipt(
    gateway: &Gateway,
    queue: &Queue,
    receipt: &str,
) -> Result<Lease, Problem> {
    let lease = gateway.receipts.open(receipt)?;
    if lease.queue_id == queue.id {
        return Ok(lease);
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "receipt-not-found",
        "The receipt is of another queue. Settle a message in the queue it came from.",
    ))
}

/// 409: an older lease's receipt.
pub(crate) fn lease_lost() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "lease-lost",
        "The lease ended before: it ran out and the message went on, or it was settled otherwise. \
         Nothing was changed.",
    )
}

/// 409: an earlier message of the key first.
pub(crate) fn out_of_order() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "out-of-order",
        "A message of the same key that was received before this one is not settled. Ack that \
         first, or both in one request.",
    )
}

/// 409: too late to extend.
pub(crate) fn lease_expired() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "lease-expired",
        "The lease has run out, so it cannot be extended or given back. Receive the message again.",
    )
}

/// The outcome of an ack. Acking twice is fine twice.
pub(crate) fn acked(settled: Settled) -> Outcome {
    match settled {
        Settled::Done | Settled::Not(Fate::Acked | Fate::Gone) => Ok(None),
        Settled::Not(Fate::OutOfOrder) => Err(out_of_order()),
        Settled::Not(Fate::Expired | Fate::Lost) => Err(lease_lost()),
    }
}

/// The outcome of a nack.
pub(crate) fn nacked(settled: Settled) -> Outcome {
    match settled {
        Settled::Done => Ok(None),
        Settled::Not(fate) => Err(not_running(fate)),
    }
}

/// The outcome of an extend.
pub(crate) fn extended(result: Result<DateTime<Utc>, Fate>) -> Outcome {
    result.map(Some).map_err(not_running)
}

fn not_running(fate: Fate) -> Problem {
    match fate {
        Fate::Expired => lease_expired(),
        Fate::OutOfOrder => out_of_order(),
        Fate::Acked | Fate::Gone | Fate::Lost => lease_lost(),
    }
}
