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
use super::extract::{is_json, parse, wrong_content_type};
use super::problem::Problem;
use crate::domain::UniqueNames;

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
    let mut with_nulls = document.clone();
    json_patch::merge(&mut document, patch);
    merge_nulls(&mut with_nulls, patch);
    if with_nulls != document {
        // Taking out what nobody knows changes nothing, and is a mistake all the same.
        match parse::<T>(&serde_json::to_vec(&with_nulls).map_err(internal)?) {
            Err(problem) if problem.detail().contains("unknown field") => return Err(problem),
            _ => {}
        }
    }
    parse(&serde_json::to_vec(&document).map_err(internal)?)
}

/// A merge that keeps the nulls of fields that are not there.
fn merge_nulls(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        document.clone_from(patch);
        return;
    };
    if !document.is_object() {
        *document = Value::Object(serde_json::Map::new());
    }
    let Value::Object(document) = document else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() && document.contains_key(name) {
            document.remove(name);
        } else {
            merge_nulls(document.entry(name).or_insert(Value::Null), value);
        }
    }
}
