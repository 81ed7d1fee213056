//! The push itself, as `OpenAPI` describes it under `webhooks`: what an endpoint
//! receives, and what its answers mean.

use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{
    ContentBuilder, OpenApi, Paths, RefOr, Required, Response, ResponsesBuilder, Schema,
};

/// The headers of a push besides the webhook's own: name, whether it is always
/// there, what it says.
const HEADERS: &[(&str, bool, &str)] = &[
    (
        "webhook-id",
        true,
        "The message's id, the same in every attempt: what to deduplicate by",
    ),
    (
        "webhook-timestamp",
        true,
        "When this attempt was signed, seconds since 1970: refuse what is older than five minutes",
    ),
    (
        "webhook-signature",
        true,
        "`v1,` and the base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`, by \
         the secret without its `whsec_`, decoded; after a rotation one for each secret, separated \
         by a space",
    ),
    ("postrider-queue", true, "The queue that it comes from"),
    ("postrider-attempt", true, "1 for the first"),
    (
        "postrider-topic",
        false,
        "The topic that it was published to",
    ),
    ("postrider-routing-key", false, "With that routing key"),
    ("postrider-key", false, "The message's `key`"),
    (
        "postrider-correlation-id",
        false,
        "The message's `correlation_id`",
    ),
    ("postrider-reply-to", false, "The message's `reply_to`"),
    (
        "postrider-schema-version",
        false,
        "The version of the topic's or queue's schema that the message was checked with",
    ),
    (
        "postrider-header-NAME",
        false,
        "Each of the message's `headers`, by its name",
    ),
    (
        "traceparent",
        false,
        "W3C Trace Context: of the push's own span if the gateway records one, else as it was \
         published",
    ),
    ("tracestate", false, "W3C Trace Context, with `traceparent`"),
];

/// What each status of the endpoint's answer does.
const ANSWERS: &[(&str, &str)] = &[
    ("2XX", "Delivered: the message is acked"),
    (
        "3XX",
        "Failed: no redirect is followed. The queue's backoff says when it is tried again",
    ),
    (
        "410",
        "The endpoint is gone: the webhook is disabled, its messages wait",
    ),
    (
        "429",
        "With `Retry-After` (seconds or a date): the webhook waits so long, at most the queue's \
         `backoff.max_seconds`, and no attempt is used up",
    ),
    ("503", "With `Retry-After`: as 429"),
    (
        "default",
        "Failed, as no answer within `timeout_seconds` is: the queue's backoff says when it is \
         tried again, its `max_attempts` when it becomes a dead letter",
    ),
];

/// Adds the description of the push to the document.
pub(in crate::http) fn describe(document: &mut OpenApi) {
    let mut operation = OperationBuilder::new()
        .operation_id(Some("push"))
        .tag("Webhooks")
        .summary(Some("Push a message to a webhook"))
        .description(Some(
            "What the gateway sends to the URL of a webhook, once for each message and attempt: \
             Standard Webhooks 1.0.0. At least once, so deduplicate by `webhook-id`. Verify the \
             signature over the body's bytes as they came, before they are parsed. Answer within \
             `timeout_seconds`; what takes longer is best put aside and answered with 202.",
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some(
                    "The message's body, byte for byte as it was published, with its content type",
                ))
                .required(Some(Required::True))
                .content("application/json", any("Any JSON value"))
                .content(
                    "*/*",
                    any("Bytes, of the content type that they were published with"),
                )
                .build(),
        ));
    for (name, always, description) in HEADERS {
        let required = if *always {
            Required::True
        } else {
            Required::False
        };
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(*name)
                .parameter_in(ParameterIn::Header)
                .required(required)
                .description(Some(*description))
                .schema(Some(
                    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)),
                )),
        );
    }
    let mut responses = ResponsesBuilder::new();
    for (status, description) in ANSWERS {
        responses = responses.response(*status, Response::new(*description));
    }
    let operation = operation.responses(responses.build()).build();
    let paths: Paths = PathsBuilder::new()
        .path("push", PathItem::new(HttpMethod::Post, operation))
        .build();
    document.webhooks = Some(paths);
}

fn any(description: &str) -> utoipa::openapi::Content {
    let schema = ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(description));
    ContentBuilder::new()
        .schema(Some(RefOr::T(Schema::Object(schema.build()))))
        .build()
}
