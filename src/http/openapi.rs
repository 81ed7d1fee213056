//! The routes, and the `OpenAPI` 3.1 document that describes them. Both come from
//! the same list, so neither can lack what the other has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Object, Ref, RefOr, Response, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::idempotency::IDEMPOTENCY_KEY;
use super::operations::Access;
use super::problem::ProblemBody;
use super::{
    Gateway, SharedGateway, ack, blocked_keys, claims, dead_letters, extend, health, idempotency,
    keys, messages, metrics, nack, publish, publish_topic, purge, queues, receive, redrive,
    replies, reply, requests, schedules, schemas, shapes, storage, stream, subscriptions, topics,
    transact, uncancelled, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postrider",
        description = "Message queues over plain HTTP, kept in Postgres.\n\n\
            Errors are RFC 9457 problem details; match on `code`. Durations are seconds, times are \
            RFC 3339 in UTC by the database's clock. \
            Bodies of requests may be compressed, with `Content-Encoding` `gzip` or `zstd`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This gateway")),
    tags(
        (name = "Queues", description = "Settings and counts"),
        (name = "Messages", description = "Publish, receive, settle"),
        (name = "Requests", description = "Messages that are waited for an answer to"),
        (name = "Topics", description = "Publish to many queues at once; subscriptions and streams"),
        (name = "Dead letters", description = "Messages that were given up"),
        (name = "Webhooks", description = "Messages pushed to an HTTP endpoint"),
        (name = "Claims", description = "What must be done once, and who does it"),
        (name = "Schedules", description = "Messages that the clock publishes"),
        (name = "Keys", description = "Who may do what"),
        (name = "Operations", description = "Health and metrics"),
    ),
    components(schemas(ProblemBody)),
)]
struct Document;

/// Operations that take an idempotency key.
const KEYED: &[&str] = &[
    "publish",
    "publish_topic",
    "redrive",
    "request",
    "resend_webhook",
    "take_claim",
    "transact",
];

/// The name of the security scheme of API keys.
pub(super) const KEY_SCHEME: &str = "api_key";

fn key_scheme() -> SecurityScheme {
    SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("pr_ID_SECRET")
            .description(Some(
                "An API key (`POST /v1/keys`). Operations name the scope that it needs: \
                 `publish`, `consume` and `manage` are for names, as `publish:orders.*`; `admin` \
                 may do everything. A name that a key does not see is answered as one that is not \
                 there. With `--auth off` no key is asked for.",
            ))
            .build(),
    )
}

/// The document, as `postrider openapi` prints it.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    complete(
        hot_routes()
            .merge(cold_routes())
            .merge(webhook_routes())
            .into_openapi(),
    )
}

/// Endpoints whose database work runs in the batchers' tasks: a client that
/// hangs up cancels nothing, and a waiting receiver leaves the line.
fn hot_routes() -> OpenApiRouter<SharedGateway> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(publish::publish))
        .routes(routes!(publish_topic::publish_topic))
        .routes(routes!(requests::request))
        .routes(routes!(reply::reply_to_request))
        .routes(routes!(replies::get_reply))
        .routes(routes!(receive::receive))
        .routes(routes!(ack::ack))
        .routes(routes!(nack::nack))
        .routes(routes!(extend::extend))
        .routes(routes!(transact::transact))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
}

/// Endpoints that ask the database themselves.
fn cold_routes() -> OpenApiRouter<SharedGateway> {
    OpenApiRouter::new()
        .routes(routes!(queues::list_queues))
        .routes(routes!(
            queues::put_queue,
            queues::patch_queue,
            queues::get_queue,
            queues::delete_queue
        ))
        .routes(routes!(purge::purge_queue))
        .routes(routes!(blocked_keys::list_blocked_keys))
        .routes(routes!(blocked_keys::unblock))
        .merge(schema_routes())
        .routes(routes!(messages::list_messages))
        .routes(routes!(messages::get_message, messages::delete_message))
        .routes(routes!(topics::list_topics))
        .routes(routes!(
            topics::put_topic,
            topics::patch_topic,
            topics::get_topic,
            topics::delete_topic
        ))
        .routes(routes!(storage::storage_health))
        .routes(routes!(stream::read_stream))
        .routes(routes!(publish_topic::explain))
        .routes(routes!(subscriptions::list_subscriptions))
        .routes(routes!(
            subscriptions::put_subscription,
            subscriptions::patch_subscription,
            subscriptions::get_subscription,
            subscriptions::delete_subscription
        ))
        .routes(routes!(claims::take_claim, claims::give_up_claim))
        .routes(routes!(claims::complete_claim))
        .routes(routes!(schedules::list_schedules))
        .routes(routes!(
            schedules::put_schedule,
            schedules::patch_schedule,
            schedules::get_schedule,
            schedules::delete_schedule
        ))
        .routes(routes!(schedules::pause_schedule))
        .routes(routes!(schedules::resume_schedule))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::get_key, keys::delete_key))
        .routes(routes!(keys::rotate_key))
        .routes(routes!(dead_letters::list_dead_letters))
        .routes(routes!(redrive::redrive))
        .routes(routes!(dead_letters::purge_dead_letters))
        .routes(routes!(
            dead_letters::get_dead_letter,
            dead_letters::delete_dead_letter
        ))
}

/// Of those, the ones about schemas.
fn schema_routes() -> OpenApiRouter<SharedGateway> {
    OpenApiRouter::new()
        .routes(routes!(
            schemas::put_queue_schema,
            schemas::get_queue_schema,
            schemas::delete_queue_schema
        ))
        .routes(routes!(schemas::list_queue_schemas))
        .routes(routes!(schemas::get_queue_schema_version))
        .routes(routes!(
            schemas::put_topic_schema,
            schemas::get_topic_schema,
            schemas::delete_topic_schema
        ))
        .routes(routes!(schemas::list_topic_schemas))
        .routes(routes!(schemas::get_topic_schema_version))
}

/// Of those, the ones after which the push worker looks at once.
fn webhook_routes() -> OpenApiRouter<SharedGateway> {
    OpenApiRouter::new()
        .routes(routes!(
            webhooks::put_webhook,
            webhooks::patch_webhook,
            webhooks::get_webhook,
            webhooks::delete_webhook
        ))
        .routes(routes!(webhooks::rotate_webhook_secret))
        .routes(routes!(webhooks::test_webhook))
        .routes(routes!(webhooks::pause_webhook))
        .routes(routes!(webhooks::resume_webhook))
        .routes(routes!(webhooks::list_webhook_attempts))
        .routes(routes!(webhooks::resend_webhook))
}

pub(super) fn routes(gateway: &Arc<Gateway>) -> OpenApiRouter<SharedGateway> {
    let told = webhook_routes().route_layer(middleware::from_fn_with_state(
        Arc::clone(gateway),
        webhooks::tell_lanes,
    ));
    let cold = cold_routes()
        .merge(told)
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(gateway),
            uncancelled,
        ));
    hot_routes().merge(cold)
}

/// Adds what every operation has: the problems any request can meet, and the
/// schema of problems.
pub(super) fn complete(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    flatten(&mut document);
    shapes::complete(&mut document);
    webhooks::describe_push(&mut document);
    if let Some(components) = &mut document.components {
        components.add_security_scheme(KEY_SCHEME, key_scheme());
    }
    let problem = || {
        RefOr::T(
            ContentBuilder::new()
                .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
                .build(),
        )
    };
    for item in document.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            let id = operation.operation_id.as_deref().unwrap_or_default();
            let access = Access::of(id);
            operation.security = Some(access.security());
            if KEYED.contains(&id) {
                idempotency::describe(operation);
            }
            let malformed = RefOr::T(Response::new(of_malformed(operation)));
            let responses = &mut operation.responses.responses;
            let of_bodies = [
                ("408", "`body-timeout`: the body did not arrive within 30 s"),
                ("413", "`body-too-large`: over 16 MiB, expanded"),
                (
                    "415",
                    "`unsupported-media-type`, `unsupported-content-encoding`",
                ),
            ];
            let of_bodies = of_bodies
                .into_iter()
                .filter(|_| operation.request_body.is_some());
            for (status, description) in [
                ("414", "`uri-too-long`: over 8 KiB"),
                ("431", "`headers-too-large`: over 64, or one over 16 KiB"),
                ("500", "`internal`: a bug; the log has more"),
                (
                    "503",
                    "`database-unavailable`, `storage-full`, `overloaded`, `too-many-connections`: try \
                     again",
                ),
            ]
            .into_iter()
            .chain(of_bodies)
            .chain(access.responses())
            {
                responses
                    .entry(status.to_owned())
                    .or_insert_with(|| RefOr::T(Response::new(description)));
            }
            responses.entry("400".to_owned()).or_insert(malformed);
            for (status, response) in responses.iter_mut() {
                if let RefOr::T(response) = response
                    && (status.starts_with('4') || status.starts_with('5'))
                {
                    response
                        .content
                        .insert("application/problem+json".to_owned(), problem());
                }
            }
        }
    }
    document
}

/// What an operation says to a request that is not well-formed: it depends on what
/// there is to be malformed.
fn of_malformed(operation: &Operation) -> String {
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let has = |place: &ParameterIn, names: &[&str]| {
        parameters.iter().any(|parameter| match parameter {
            RefOr::T(p) => {
                p.parameter_in == *place && (names.is_empty() || names.contains(&&*p.name))
            }
            RefOr::Ref(_) => false,
        })
    };
    [
        (has(&ParameterIn::Path, &[]), &["invalid-path"][..]),
        (true, &["invalid-query"]),
        (
            // The one that continues a stream is a cursor, too.
            has(&ParameterIn::Query, &["cursor", "after"]),
            &["invalid-cursor"],
        ),
        (
            has(&ParameterIn::Header, &[IDEMPOTENCY_KEY.as_str()]),
            &["invalid-idempotency-key"],
        ),
        (
            operation.request_body.is_some(),
            &["malformed-json", "malformed-encoding", "body-cut-off"],
        ),
    ]
    .into_iter()
    .filter(|(has, _)| *has)
    .flat_map(|(_, codes)| codes)
    .map(|code| format!("`{code}`"))
    .collect::<Vec<_>>()
    .join(", ")
}

/// Turns schemas of flattened structs from `allOf` into one object each. As
/// `allOf`, a part that allows no other properties forbids those of the rest.
fn flatten(document: &mut utoipa::openapi::OpenApi) {
    fn collect(
        schemas: &BTreeMap<String, RefOr<Schema>>,
        part: &RefOr<Schema>,
        required: bool,
        into: &mut Object,
    ) {
        match part {
            RefOr::Ref(reference) => {
                let name = reference.ref_location.rsplit('/').next();
                if let Some(part) = name.and_then(|name| schemas.get(name)) {
                    collect(schemas, part, required, into);
                }
            }
            RefOr::T(Schema::Object(object)) => {
                into.properties.extend(object.properties.clone());
                if required {
                    into.required.extend(object.required.iter().cloned());
                }
            }
            RefOr::T(Schema::AllOf(all)) => {
                for part in &all.items {
                    collect(schemas, part, required, into);
                }
            }
            // An optional part.
            RefOr::T(Schema::OneOf(one)) => {
                for part in &one.items {
                    collect(schemas, part, false, into);
                }
            }
            RefOr::T(_) => {}
        }
    }
    let Some(components) = &mut document.components else {
        return;
    };
    let mut flat = Vec::new();
    for (name, schema) in &components.schemas {
        if let RefOr::T(Schema::AllOf(all)) = schema {
            let mut object = Object::new();
            object.description.clone_from(&all.description);
            collect(&components.schemas, schema, true, &mut object);
            flat.push((name.clone(), RefOr::T(Schema::Object(object))));
        }
    }
    components.schemas.extend(flat);
}

/// What a page of `/docs` may load: its own files and the document, and inline
/// styles and images, which Swagger UI makes. Nobody may frame it.
const DOCS_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// Swagger UI at `/docs`, from files that are in the binary; the document at
/// `/openapi.json`.
pub(super) fn swagger_ui(document: utoipa::openapi::OpenApi) -> Router {
    let docs: Router = SwaggerUi::new("/docs")
        .url("/openapi.json", document)
        .config(Config::from("/openapi.json").try_it_out_enabled(true))
        .into();
    docs.route_layer(middleware::map_response(secured))
}

/// Headers for what a browser shows.
async fn secured(mut response: axum::response::Response) -> axum::response::Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, DOCS_CSP),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
