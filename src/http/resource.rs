//! What all configuration resources have in common: an `ETag`, conditions on it,
//! merge patches, and lists by name.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;

use super::extract::{UniqueNames, is_json, parse, read_body, wrong_content_type};
use super::page;
use super::problem::Problem;
use super::reply;
use crate::domain::QueueName;

/// The `ETag` of a resource: of its settings, not of what else is shown.
pub(crate) fn etag(id: i64, version: i64) -> String {
    format!("\"{id}-{version}\"")
}

/// Whether `If-Match` (or `If-None-Match: *`) lets a change pass; `None` is a
/// resource that is not there.
pub(crate) fn check_preconditions(headers: &HeaderMap, etag: Option<&str>) -> Result<(), Problem> {
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

pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH)
}

/// The resource, with its `ETag`.
pub(crate) fn answer<T: Serialize>(status: StatusCode, view: &T, etag: &str) -> Response {
    let mut response = reply(status, view);
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// 201 if it was made, 200 if it was there.
pub(crate) fn put_status(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

/// Names that begin with `system.` are the gateway's: users make, change and
/// delete nothing under them.
pub(crate) fn not_system(name: &QueueName, pointer: &str) -> Result<(), Problem> {
    if name.is_system() {
        return Err(Problem::invalid(
            pointer,
            "names that begin with system. are the gateway's",
        ));
    }
    Ok(())
}

/// How often a patch is tried on what somebody else has changed in between.
pub(crate) const PATCH_TRIES: usize = 10;

/// A JSON merge patch (RFC 7396).
pub(crate) struct MergePatch(Value);

impl MergePatch {
    /// Reads it from a request.
    pub(crate) async fn read(headers: &HeaderMap, request: Request) -> Result<Self, Problem> {
        let is_merge_patch = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/merge-patch+json"));
        if !is_merge_patch && !is_json(headers) {
            return Err(wrong_content_type("application/merge-patch+json"));
        }
        let bytes = read_body(headers, request.into_body()).await?;
        let UniqueNames(patch) = parse(&bytes)?;
        Ok(Self(patch))
    }

    /// What it makes of a resource's settings.
    pub(crate) fn apply<T: Serialize + DeserializeOwned>(&self, old: &T) -> Result<T, Problem> {
        let failed = |_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR);
        let mut document = serde_json::to_value(old).map_err(failed)?;
        json_patch::merge(&mut document, &self.0);
        parse(&serde_json::to_vec(&document).map_err(failed)?)
    }
}

/// Which resources to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only names that begin so.
    #[param(example = "ord")]
    prefix: Option<String>,
    /// At most so many; 1 to 1000, by default 100.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of a list by name.
pub(crate) struct NamesPage {
    /// Only names that begin so.
    pub(crate) prefix: String,
    /// Only names behind this.
    pub(crate) after: String,
    limit: i64,
}

impl ListParams {
    pub(crate) fn page(self) -> Result<NamesPage, Problem> {
        let limit = page::limit(self.limit)?;
        let after = self
            .cursor
            .as_deref()
            .map(page::name_cursor)
            .transpose()?
            .unwrap_or_default();
        let prefix = self.prefix.unwrap_or_default();
        if prefix.contains('\0') {
            return Err(Problem::bad_request(
                "invalid-query",
                "prefix must not contain NUL",
            ));
        }
        Ok(NamesPage {
            prefix,
            after,
            limit,
        })
    }
}

impl NamesPage {
    /// How many to ask for: one more than are shown.
    pub(crate) fn ask(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts off what was only asked for to see whether there is more; the next
    /// page's cursor, and the headers that lead to it.
    pub(crate) fn cut<T>(
        &self,
        found: &mut Vec<T>,
        name: impl Fn(&T) -> &QueueName,
        uri: &Uri,
    ) -> (Option<String>, HeaderMap) {
        let more = i64::try_from(found.len()).unwrap_or(i64::MAX) > self.limit;
        if more {
            found.pop();
        }
        let next_cursor = found
            .last()
            .filter(|_| more)
            .map(|last| page::write_name_cursor(name(last).as_str()));
        let headers = page::link(uri, next_cursor.as_deref());
        (next_cursor, headers)
    }
}
