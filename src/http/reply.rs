//! `POST /v1/queues/{queue}/reply`: answer a request.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{OneOfBuilder, RefOr, Schema, Type};

use super::extract::{InQueue, NoParams, Query, parse, read_json};
use super::message_input::{content, part_of, present, unique_headers};
use super::problem::Problem;
use super::settle::{lease_lost, open_receipt, out_of_order};
use super::shapes::{Schemas, reference};
use super::told::tell_messages;
use super::{SharedGateway, reply, shapes};
use crate::domain::{Headers, Message};
use crate::store::{Answer, Answered};

/// The answer to a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReplyInput)]
pub(crate) struct ReplyInput<'a> {
    /// The request's, as it was received.
    #[serde(borrow)]
    receipt: Cow<'a, str>,
    /// Any JSON value; kept and given back byte for byte.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<&'a RawValue>,
    /// Instead of `body`: bytes of any kind, in base64.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$")]
    body_base64: Option<Cow<'a, str>>,
    /// What kind of bytes; with `body_base64` only, by default
    /// application/octet-stream.
    #[schema(pattern = "^[ -~]{1,256}$")]
    content_type: Option<String>,
    /// At most 64, names and values strings.
    #[serde(default, deserialize_with = "unique_headers")]
    #[schema(schema_with = shapes::message_headers)]
    headers: Headers,
}

/// A request that is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnsweredRequest {
    correlation_id: String,
}

/// Answer a request
///
/// Stores the reply and acks the request, both or neither. Whoever waits for the
/// reply, at any gateway, has it at once.
///
/// The same reply twice is fine twice, and the first one stays. A receipt whose
/// lease has ended otherwise is `lease-lost`, also while nobody has had the message
/// since; an answer after the `reply_deadline` is `reply-late`, and the request will
/// not come back. A message that is no request is `reply-not-asked`: ack it.
///
/// A `reply_to` is the application's own: to answer such a message publish to the
/// queue that it names.
#[utoipa::path(
    post, path = "/v1/queues/{queue}/reply", tag = "Requests",
    params(("queue" = String, Path, description = "Where it was received", example = "orders")),
    request_body(content = ReplyInput<'static>,
        example = json!({"receipt": "RECEIPT", "body": {"total": 99}})),
    responses(
        (status = 200, description = "Committed and flushed", body = AnsweredRequest),
        (status = 404, description = "`queue-not-found`, `receipt-not-found`"),
        (status = 409, description = "`lease-lost`, `reply-late`, `out-of-order`"),
        (status = 413, description = "`message-too-large`, `body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `receipt-malformed`, `reply-not-asked`"),
    ),
)]
pub(crate) async fn reply_to_request(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // From here on the batcher has bounds of its own.
    let (bytes, _room) = read_json(&gateway.capacity, &parts.headers, body).await?;
    let input: ReplyInput<'_> = parse(&bytes)?;
    let json = input.body.map(|body| part_of(&bytes, body));
    let content = content("", json, input.body_base64.as_deref(), input.content_type)?;
    let queue = gateway.queue(&name).await?;
    let reply_message = Message::new(content, input.headers);
    // What its body and headers may be is as for a message.
    reply_message.check(queue.settings.max_message_bytes, "", (gateway.clock)())?;
    let lease = open_receipt(&gateway, &queue, &input.receipt)?;
    tell_messages([lease.message_id]);
    let turns = queue.turns_of([lease.message_id].into_iter());
    let answer = Answer {
        lease,
        content: reply_message.content,
        headers: reply_message.headers,
        key: Arc::clone(&gateway.requests),
    };
    let answered = gateway.broker.replies().give(answer).await?;
    let asked = match answered {
        Answered::Stored { asked, .. } => {
            gateway.broker.freed(&queue);
            gateway.broker.pass(turns, &queue).await;
            asked
        }
        Answered::Again(asked) => asked,
        Answered::Lost => return Err(lease_lost()),
        Answered::OutOfOrder => return Err(out_of_order()),
        Answered::Late => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "reply-late",
                "The request's deadline has passed, so nobody waits for the reply any more. \
                 Nothing was changed, and the request will not come back.",
            ));
        }
        Answered::NotAsked => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "reply-not-asked",
                "The message is no request, so nobody waits for a reply. Ack it instead.",
            ));
        }
    };
    let correlation_id = gateway.requests.seal(&asked);
    Ok(reply(StatusCode::OK, &AnsweredRequest { correlation_id }))
}

/// Says in the document that a reply has one body, as a message has.
pub(super) fn describe(schemas: &mut Schemas) {
    let Some(RefOr::T(Schema::Object(derived))) = schemas.get("ReplyInput").cloned() else {
        return;
    };
    let mut one_of = OneOfBuilder::new();
    for (name, body, without) in [
        (
            "JsonReply",
            "body",
            ["body_base64", "content_type"].as_slice(),
        ),
        ("BytesReply", "body_base64", &["body"]),
    ] {
        let mut reply = derived.clone();
        reply
            .properties
            .retain(|field, _| !without.contains(&field.as_str()));
        reply.required = vec!["receipt".to_owned(), body.to_owned()];
        if let Some(RefOr::T(Schema::Object(field))) = reply.properties.get_mut(body)
            && let SchemaType::Array(_) = field.schema_type
        {
            field.schema_type = Type::String.into();
        }
        schemas.insert(name.to_owned(), reply.into());
        one_of = one_of.item(reference(name));
    }
    schemas.insert("ReplyInput".to_owned(), RefOr::T(one_of.build().into()));
}
