//! What all configuration resources have in common besides their
//! [conditions](super::precondition): how they are answered, and lists by name.

use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::page;
use super::precondition;
use super::problem::Problem;
use super::reply;
use crate::domain::QueueName;

/// The `ETag` of a resource: of its settings, not of what else is shown.
pub(crate) fn etag(id: i64, version: i64) -> String {
    format!("\"{id}-{version}\"")
}

/// The resource, with its `ETag`.
pub(crate) fn answer<T: Serialize>(status: StatusCode, view: &T, etag: &str) -> Response {
    precondition::tagged(reply(status, view), etag)
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

/// Which resources to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Only names that begin so.
    #[param(example = "ord")]
    #[param(pattern = "^[^\\x00]*$")]
    prefix: Option<String>,
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
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
        let page = NamesPage::of(self.limit, self.cursor.as_deref())?;
        let prefix = self.prefix.unwrap_or_default();
        if prefix.contains('\0') {
            return Err(Problem::bad_request(
                "invalid-query",
                "prefix must not contain NUL",
            ));
        }
        Ok(NamesPage { prefix, ..page })
    }
}

impl NamesPage {
    /// Of all names.
    pub(crate) fn of(limit: Option<i64>, cursor: Option<&str>) -> Result<Self, Problem> {
        Ok(Self {
            prefix: String::new(),
            limit: page::limit(limit)?,
            after: cursor
                .map(page::name_cursor)
                .transpose()?
                .unwrap_or_default(),
        })
    }

    /// How many to ask for: one more than are shown.
    pub(crate) fn ask(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts off what was only asked for to see whether there is more; the next
    /// page's cursor, and the headers that lead to it.
    pub(crate) fn cut<T>(
        &self,
        found: &mut Vec<T>,
        name: impl Fn(&T) -> &str,
        uri: &Uri,
    ) -> (Option<String>, HeaderMap) {
        let more = i64::try_from(found.len()).unwrap_or(i64::MAX) > self.limit;
        if more {
            found.pop();
        }
        let next_cursor = found
            .last()
            .filter(|_| more)
            .map(|last| page::write_name_cursor(name(last)));
        let headers = page::link(uri, next_cursor.as_deref());
        (next_cursor, headers)
    }
}
