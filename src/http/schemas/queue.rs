//! `/v1/queues/{queue}/schema`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

use super::super::SharedGateway;
use super::super::extract::{InQueue, Json, NoParams, Query};
use super::super::problem::Problem;
use super::super::resource::not_system;
use super::view::{InQueueVersion, SchemaRequest, SchemaView, VersionList, VersionParams};
use super::{Owner, delete, get, get_version, list, put};

/// Put a schema on a queue
///
/// From then on (within a second at other gateways) every message that is published
/// to the queue has to be JSON that the schema allows, and carries the version as
/// `schema_version`. What is in queues already stays as it is.
///
/// What a topic feeds into the queue is checked by the topic's schema, not by this
/// one. Put again, a schema that differs is the next version, if it is compatible with
/// the one in force; the same one changes nothing. After a DELETE there is none in
/// force to be compared with. `format` is checked. Not taken is what could take a
/// gateway down: a `$ref` that leads out of the schema or in circles, look-around and
/// back-references in patterns, more than 100 patterns, schemas nested more than 32
/// deep or more than 5000 with references written out.
#[utoipa::path(
    put, path = "/v1/queues/{queue}/schema", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none"),
    ),
    request_body(content = SchemaRequest),
    responses(
        (status = 200, description = "It replaced another, or was in force already", body = SchemaView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 201, description = "There was none in force", body = SchemaView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`queue-not-found`"),
        (status = 409, description = "`schema-incompatible`: what it may refuse that was allowed \
            before; `changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`, `schema-invalid`: no JSON Schema, or one that is \
            not taken"),
    ),
)]
pub(crate) async fn put_queue_schema(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
    Json(request): Json<SchemaRequest>,
) -> Result<Response, Problem> {
    not_system(&name, "queue")?;
    put(&gateway, Owner::Queue, &name, &headers, request).await
}

/// Read a queue's schema
///
/// The version that publishes are checked with.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/schema", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders")),
    responses(
        (status = 200, description = "The schema in force", body = SchemaView,
            headers(("ETag" = String, description = "For If-Match"))),
        (status = 404, description = "`queue-not-found`, `schema-not-found`: none is in force"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_queue_schema(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    get(&gateway, Owner::Queue, &name).await
}

/// List the versions of a queue's schema
///
/// All that there ever were, oldest first.
#[utoipa::path(
    get, path = "/v1/queues/{queue}/schema/versions", tag = "Queues",
    params(("queue" = String, Path, description = "Its name", example = "orders"), VersionParams),
    responses(
        (status = 200, description = "A page of versions", body = VersionList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
        (status = 404, description = "`queue-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn list_queue_schemas(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(params): Query<VersionParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    list(&gateway, Owner::Queue, &name, &params, &uri).await
}

/// Read a version of a queue's schema
#[utoipa::path(
    get, path = "/v1/queues/{queue}/schema/versions/{version}", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("version" = String, Path, description = "Its number, as messages carry it", example = "1"),
    ),
    responses(
        (status = 200, description = "The version", body = SchemaView,
            headers(("ETag" = String, description = "Of the version"))),
        (status = 404, description = "`queue-not-found`, `schema-not-found`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn get_queue_schema_version(
    State(gateway): State<SharedGateway>,
    InQueueVersion(name, version): InQueueVersion,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    get_version(&gateway, Owner::Queue, &name, &version).await
}

/// Delete a queue's schema
///
/// Publishes are not checked any more. Its versions can be read still, and the next
/// one goes on from their numbers.
#[utoipa::path(
    delete, path = "/v1/queues/{queue}/schema", tag = "Queues",
    params(
        ("queue" = String, Path, description = "Its name", example = "orders"),
        ("If-Match" = Option<String>, Header, description = "Only if it has this ETag"),
    ),
    responses(
        (status = 204, description = "No schema is in force"),
        (status = 404, description = "`queue-not-found`, `schema-not-found`: none was in force"),
        (status = 409, description = "`changed-meanwhile`"),
        (status = 412, description = "`precondition-failed`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn delete_queue_schema(
    State(gateway): State<SharedGateway>,
    InQueue(name): InQueue,
    Query(NoParams {}): Query<NoParams>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    not_system(&name, "queue")?;
    delete(&gateway, Owner::Queue, &name, &headers).await
}
