//! What configuration resources have in common: an `ETag`, guarded by `If-Match`,
//! and JSON merge patches (RFC 7396).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::read_body;
use super::capacity::Capacity;
use super::extract::{UniqueNames, is_json, parse, wrong_content_type};
use super::problem::Problem;

/// Whether `If-Match` (or `If-None-Match: *`) lets a change of the resource with
/// this `ETag` pass; `None` is a resource that is not there.
pub(crate) fn check(headers: &HeaderMap, etag: Option<&str>) -> Result<(), Problem> {
    let matches = |value: &HeaderValue, etag: &str| {
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag == etag)
        })
    };
    let failed = match (headers.get(header::IF_MATCH), etag) {
        (Some(_), None) => true,
        (Some(value), Some(etag)) => !matches(value, etag),
        (None, _) => false,
    } || match (headers.get(header::IF_NONE_MATCH), etag) {
        (Some(value), Some(etag)) => matches(value, etag),
        _ => false,
    };
    if failed {
        Err(Problem::precondition_failed())
    } else {
        Ok(())
    }
}

/// Whether a request has a condition.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH)
}

/// The answer with its `ETag`.
pub(crate) fn tagged(mut response: Response, etag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// Reads a merge patch.
pub(crate) async fn read_patch(
    capacity: &Capacity,
    headers: &HeaderMap,
    body: Body,
) -> Result<Value, Problem> {
    let is_merge_patch = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/merge-patch+json"));
    if !is_merge_patch && !is_json(headers) {
        return Err(wrong_content_type("application/merge-patch+json"));
    }
    let (bytes, _room) = read_body(capacity, headers, body).await?;
    let UniqueNames(patch) = parse(&bytes)?;
    Ok(patch)
}

/// A resource's configuration with the patch applied.
pub(crate) fn patched<T: Serialize + DeserializeOwned>(
    config: &T,
    patch: &Value,
) -> Result<T, Problem> {
    let internal = |_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
    let mut document = serde_json::to_value(config).map_err(internal)?;
    json_patch::merge(&mut document, patch);
    parse(&serde_json::to_vec(&document).map_err(internal)?)
}
