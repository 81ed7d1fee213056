//! The outermost layer: gives each request an id and each error its shape.
//!
//! A service of its own rather than layers of the router: those box a future
//! each and keep the request in it, which made half of what a waiting receiver
//! takes besides its connection's buffers.

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::TryFutureExt as _;
use tower::Service;
use tower_http::catch_panic::CatchPanic;

use super::access::{Admission, Caller, Granted, Known};
use super::capacity::overloaded;
use super::limits::{Quota, Standing};
use super::operations::OPERATIONS;
use super::problem::Problem;
use super::told::Told;
use super::{Gateway, head_limits, idempotency, openapi};
use crate::metrics::{InHand, Requests};

/// What makes an answer of a panic.
type OnPanic = fn(Box<dyn Any + Send>) -> axum::response::Response;

/// The whole HTTP interface, as one connection has it.
#[derive(Clone)]
pub(super) struct Interface {
    router: CatchPanic<Router, OnPanic>,
    gateway: Arc<Gateway>,
    requests: Arc<Requests>,
    peer: IpAddr,
}

/// How long an answer's request waited for messages: what a client asked for is
/// not how long the gateway took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited(pub(super) Duration);

impl Interface {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        let (router, document) = openapi::routes(gateway).split_for_parts();
        let document = openapi::complete(document);
        let router = router
            .with_state(Arc::clone(gateway))
            .merge(openapi::swagger_ui(document));
        let on_panic: OnPanic =
            |_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        Self {
            router: CatchPanic::custom(router, on_panic),
            gateway: Arc::clone(gateway),
            requests: gateway.broker.store().metrics().requests(OPERATIONS.ids()),
            peer: IpAddr::from([0, 0, 0, 0]),
        }
    }

    /// For a connection from there.
    pub(super) fn of_peer(&self, peer: IpAddr) -> Self {
        Self {
            peer,
            ..self.clone()
        }
    }

    /// Sends a request through the router, on behalf of a key.
    fn route<B>(&mut self, mut request: Request<B>, caller: Option<Arc<Known>>) -> Routed
    where
        B: HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        if let Some(known) = caller {
            request.extensions_mut().insert(Caller::new(known));
        }
        self.router.call(request.map(Body::new))
    }
}

/// What the router answers with.
type Routed = <CatchPanic<Router, OnPanic> as Service<Request<Body>>>::Future;

/// What a call is until it is answered.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for Interface
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request_id = request_id(&request);
        let found = OPERATIONS.find(request.method(), request.uri().path());
        let operation = found.map(|found| found.operation);
        let mut open = Open {
            request_id,
            told: Told::of(&self.gateway.log, &request, operation),
            counted: Some(
                self.requests
                    .begin(found.map(|found| found.operation.index)),
            ),
            standing: None,
        };
        if let Err(problem) = head_limits::check_head(&request) {
            return open.refused(problem);
        }
        let Some(in_hand) = self.gateway.capacity.take(request.uri().path()) else {
            return open.refused(overloaded());
        };
        // The hot paths have no use for the caller, unless they are to happen once.
        let asks = found.is_none_or(|found| !found.operation.is_hot())
            || idempotency::has_key(request.headers());
        let granted = match self.gateway.gate.admit(&request, found, self.peer) {
            Admission::Granted(granted) => granted,
            Admission::Refused(problem) => return open.refused(problem),
            Admission::Unread(id) => {
                let mut this = self.clone();
                return Box::pin(async move {
                    let _in_hand = in_hand;
                    let gate = &this.gateway.gate;
                    let admitted = match gate.read(&id).await {
                        Ok(read) => {
                            let path = request.uri().path();
                            let found = OPERATIONS.find(request.method(), path);
                            gate.admit_read(read, &request, found, this.peer)
                        }
                        Err(error) => Err(error.into()),
                    };
                    let response = match admitted {
                        Ok(Granted { known, standing }) => {
                            open.told.is_by(&known);
                            open.standing = standing;
                            let answer = this.route(request, Some(known));
                            open.told.scope(answer).await?.map(Body::new)
                        }
                        Err(problem) => problem.into_response(),
                    };
                    Ok(open.answered(response))
                });
            }
        };
        let caller = granted.and_then(|granted| {
            open.told.is_by(&granted.known);
            open.standing = granted.standing;
            asks.then_some(granted.known)
        });
        // Not in an async block: that would have room for the answer's future
        // twice.
        let answer = self.route(request, caller);
        let span = open.told.span.clone();
        let finish = move |response: Response<_>| {
            let _in_hand = in_hand;
            open.answered(response.map(Body::new))
        };
        match span {
            None => Box::pin(answer.map_ok(finish)),
            Some(span) => Box::pin(span.scope(answer).map_ok(finish)),
        }
    }
}

/// The answer to a request that is not looked at further, nor told of.
pub(super) fn refuse<B>(request: &Request<B>, response: Response<Body>) -> Response<Body> {
    let open = Open {
        request_id: request_id(request),
        told: Told::nothing(),
        counted: None,
        standing: None,
    };
    open.answered(response)
}

/// A request that is not answered yet, as far as its answer has to know it.
struct Open {
    request_id: HeaderValue,
    told: Told,
    counted: Option<InHand>,
    /// What is left of its key's rate limit.
    standing: Option<Box<(Quota, Standing)>>,
}

impl Open {
    /// Refuses it without a wait.
    fn refused(self, problem: Problem) -> Answering {
        Box::pin(ready(Ok(self.answered(problem.into_response()))))
    }

    /// Writes the problem, the log's line and the id, and counts.
    fn answered(self, mut response: Response<Body>) -> Response<Body> {
        let problem = response.extensions_mut().remove::<Problem>().or_else(|| {
            let status = response.status();
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then(|| Problem::of_status(status))
        });
        let id = self.request_id.to_str().unwrap_or_default();
        if let Some(problem) = &problem {
            response = problem.render(id, response);
        }
        self.told.end(&response, problem.as_ref(), id);
        if let Some((quota, standing)) = self.standing.as_deref() {
            quota.describe(*standing, response.headers_mut());
        }
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, self.request_id);
        // Bodies hold what others have sent.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(counted) = self.counted {
            let waited = response.extensions_mut().remove::<Waited>();
            let waited = waited.map_or(Duration::ZERO, |Waited(waited)| waited);
            counted.answered(response.status().as_u16(), waited);
        }
        response
    }
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's id if it is sane (1 to 128 visible ASCII characters without
/// quotes), a fresh one otherwise.
fn request_id<B>(request: &Request<B>) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|c| c.is_ascii_graphic() && !b"\"\\<>".contains(c))
    };
    request
        .headers()
        .get(X_REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(|| {
            HeaderValue::try_from(format!("{:032x}", rand::random::<u128>()))
                .unwrap_or(HeaderValue::from_static("none"))
        })
}
