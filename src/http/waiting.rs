//! What a gateway says that has no database yet: that it lives, and that it
//! cannot serve.
//!
//! A port on which nothing listens, and one that takes connections and says
//! nothing, tell a load balancer less. Connections are closed after one answer,
//! so that the next request finds the gateway as it will be by then.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::listen::answer_once;
use super::problem::Problem;
use super::{envelope, health};

/// Connections at a time; others wait in the system's queue.
const CONNECTIONS: usize = 1000;

/// Does the work, and answers whoever asks meanwhile; with TLS connections are
/// only closed.
pub async fn meanwhile<T>(
    listener: &TcpListener,
    is_tls: bool,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = answer(listener, is_tls) => match never {},
    }
}

async fn answer(listener: &TcpListener, is_tls: bool) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                let Ok((stream, _)) = accepted else {
                    // Out of files, for instance.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                if is_tls {
                    continue;
                }
                connections.push(answer_once(stream, service_fn(reply)));
            }
            Some(()) = connections.next() => {}
        }
    }
}

async fn reply(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let response = if request.uri().path() == "/livez" {
        health::lives()
    } else {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database-unavailable",
            "The gateway has just started and waits for its database. Try again.",
        )
        .retry_after(1)
        .into_response()
    };
    Ok(envelope::refuse(&request, response))
}
