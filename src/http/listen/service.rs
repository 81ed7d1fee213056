//! What hyper calls for each request: the interface, with what belongs to the
//! connection rather than to it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use tower::{Layer as _, Service as _};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::drain::{Drain, Phase};
use crate::http::envelope::Interface;

/// How long a browser may remember what it may ask: as long as they allow it to
/// be.
const PREFLIGHT_AGE: std::time::Duration = std::time::Duration::from_hours(2);

/// Headers of answers that scripts of other origins may read, besides the few
/// that they always may.
const EXPOSED: [HeaderName; 9] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("idempotency-replayed"),
    header::RETRY_AFTER,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::WWW_AUTHENTICATE,
];

/// The interface, as connections call it.
///
/// Not through hyper-util's adapter, whose future has room for the request.
#[derive(Clone)]
pub(super) struct Service {
    interface: Interface,
    cors: Option<Arc<CorsLayer>>,
    drain: Arc<Drain>,
}

impl Service {
    /// `origins` are those that a browser may let ask; none is the default, and
    /// costs nothing.
    pub(super) fn new(interface: Interface, origins: &[HeaderValue], drain: Arc<Drain>) -> Self {
        Self {
            interface,
            cors: (!origins.is_empty()).then(|| Arc::new(cors(origins))),
            drain,
        }
    }

    /// For a connection from there.
    pub(super) fn of_peer(&self, peer: IpAddr) -> Self {
        Self {
            interface: self.interface.of_peer(peer),
            ..self.clone()
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let version = request.version();
        let mut interface = self.interface.clone();
        let answer = match &self.cors {
            Some(cors) if is_of_cors(&request) => Box::pin(cors.layer(interface).call(request)),
            _ => interface.call(request),
        };
        // Those that came before the end are told by hyper.
        if self.drain.phase() == Phase::Serving || version == Version::HTTP_2 {
            return answer;
        }
        Box::pin(async move {
            let mut response = answer.await?;
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
            Ok(response)
        })
    }
}

/// Whether another origin asks. OPTIONS alone is a method like others, which no
/// path takes.
fn is_of_cors(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    headers.contains_key(ORIGIN)
        && (request.method() != Method::OPTIONS
            || headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD))
}

/// Lets scripts of these origins do what their keys may. No cookies are in it,
/// so credentials need not be allowed.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        // Headers of messages have names of their own.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(PREFLIGHT_AGE)
}
