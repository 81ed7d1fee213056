//! `GET /v1/queues/{queue}/blocked-keys`, `POST /v1/queues/{queue}/unblock`.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InQueue, Json, NoParams, Query};
use super::problem::Problem;
use super::{SharedGateway, page, reply};
use crate::domain::{Limits, Message, MessageId};
use crate::store::{BlockedKey, Unblocked};

/// Which blocked keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BlockedParams {
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of blocked keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlockedKeys {
    keys: Vec<BlockedKeyView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// A key whose next message has to wait.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockedKey)]
pub(crate) struct BlockedKeyView {
    /// The key.
    #[schema(example = "customer-7")]
    key: String,
    /// What it waits for.
    #[schema(value_type = BlockReason)]
    reason: String,
    /// The message that is leased, rests or is dead.
    #[schema(value_type = String, example = "msg_000000000001a")]
    message_id: MessageId,
    /// Since when.
    since: DateTime<Utc>,
    /// When the lease or the wait ends; null for a dead letter.
    until: Option<DateTime<Utc>>,
    /// How many messages wait behind; counts to 10000.
    waiting: i64,
}

/// What a key waits for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only described")]
pub(crate) enum BlockReason {
    /// A consumer has the message.
    Leased,
    /// It failed and rests.
    BackingOff,
    /// Its publisher delayed it.
    Delayed,
    /// It failed for good, and `on_blocked` is `dead_letter_key`.
    DeadLetter,
}

impl From<BlockedKey> for BlockedKeyView {
    fn from(blocked: BlockedKey) -> Self {
        Self {
            key: blocked.key,
            reason: blocked.reason,
            message_id: MessageId(blocked.message_id),
            since: blocked.since,
            until: blocked.until,
            waiting: blocked.waiting,
        }
    }
}

/// List blocked keys
///
/// The keys of an ordered queue whose next message cannot be received now, in order:
/// the one before is leased, or rests after a failure, or is a dead letter that holds
/// its key. A queue that is not ordered has none.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/blocked-keys", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders"), BlockedParams),
    responses(
        (status = 200, description = "A page of keys", body = BlockedKeys,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`queue-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_blocked_keys(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<BlockedParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = params
        .cursor
        .as_deref()
        .map(page::name_cursor)
        .transpose()?;
    let queue = gateway.queue(&name).await?;
    let (keys, next) = if queue.settings.ordered {
        let limit = usize::try_from(limit).unwrap_or(0);
        let after = after.unwrap_or_default();
        let store = gateway.broker.store();
        store.blocked_keys(queue.id, &after, limit).await?
    } else {
        (Vec::new(), None)
    };
    let next_cursor = next.as_deref().map(page::write_name_cursor);
    let headers = page::link(&uri, next_cursor.as_deref());
    let keys = keys.into_iter().map(Into::into).collect();
    let list = BlockedKeys { keys, next_cursor };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}

/// Which keys to let go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Unblock, example = json!({"keys": ["customer-7"]}))]
pub(crate) struct UnblockRequest {
    /// 1 to 1000 keys.
    #[schema(schema_with = super::shapes::keys)]
    keys: Vec<String>,
}

/// A result for each key, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnblockResults {
    results: Vec<UnblockedKey>,
}

/// What an unblock did to a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnblockedKey {
    /// The key.
    key: String,
    /// Dead letters that held it and do no longer. They stay dead letters.
    dead_letters: i64,
    /// Whether its first message rested after a failure, and is ready now.
    woken: bool,
    /// Whether its first message is leased; then it is left alone.
    leased: bool,
}

/// Unblock keys
///
/// A key that dead letters hold flows again: what is published from now on is
/// delivered. A message that rests after a failure is ready at once; one that is
/// leased is left alone. A key that was not blocked is a result that did nothing.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/unblock", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    request_body = UnblockRequest,
    responses(
        (status = 200, description = "What was done", body = UnblockResults),
        (status = 404, description = "`queue-not-found`"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn unblock(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    Json(UnblockRequest { keys }): Json<UnblockRequest>,
) -> Result<Response, Problem> {
    if keys.is_empty() || keys.len() > Limits::BATCH {
        let detail = format!("must be 1 to {} keys, not {}", Limits::BATCH, keys.len());
        return Err(Problem::invalid("/keys", detail));
    }
    for (place, key) in keys.iter().enumerate() {
        Message::check_key(key, &format!("/keys/{place}"))?;
    }
    let queue = gateway.queue(&name).await?;
    let done = gateway.broker.unblock(&queue, &keys).await?;
    let results = keys
        .into_iter()
        .map(|key| {
            let done = done.iter().find(|done| done.key == key);
            UnblockedKey {
                dead_letters: done.map_or(0, |done: &Unblocked| done.dead_letters),
                woken: done.is_some_and(|done| done.woken),
                leased: done.is_some_and(|done| done.leased),
                key,
            }
        })
        .collect();
    tracing::info!(queue = %name, "keys unblocked");
    Ok(reply(StatusCode::OK, &UnblockResults { results }))
}
