//! Limits on the head of a request.
//!
//! hyper has its own, wider ones, and answers those without our shape.

use axum::http::{HeaderMap, Request, StatusCode, Uri};

use super::problem::Problem;

/// Headers of a request.
const HEADERS: usize = 64;

/// Bytes of one header, its name included.
const HEADER_BYTES: usize = 16 * 1024;

/// Bytes of a path with its query.
const URI_BYTES: usize = 8 * 1024;

/// What is wrong with a head, if anything.
pub(super) fn check_head<B>(request: &Request<B>) -> Result<(), Problem> {
    if uri_bytes(request.uri()) > URI_BYTES {
        return Err(Problem::new(
            StatusCode::URI_TOO_LONG,
            "uri-too-long",
            format!("The path and the query are over the limit of {URI_BYTES} bytes."),
        ));
    }
    check_headers(request.headers()).map_err(|detail| {
        Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers-too-large",
            detail,
        )
    })
}

fn uri_bytes(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |text| text.as_str().len())
}

fn check_headers(headers: &HeaderMap) -> Result<(), String> {
    if headers.len() > HEADERS {
        return Err(format!("There are more than {HEADERS} headers."));
    }
    let mut sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    if sizes.any(|size| size > HEADER_BYTES) {
        return Err(format!(
            "A header is over the limit of {HEADER_BYTES} bytes."
        ));
    }
    Ok(())
}
