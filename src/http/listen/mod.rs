//! The accept loop: connections in, requests to the interface.
//!
//! Our own rather than axum's, which clones the routing table for each
//! connection and reads through a protocol sniffer with a buffer of its own:
//! 20 KiB of the 35 that a waiting receiver took. It also lets clients take as
//! long as they like, and lets in as many as there are open files.

mod connection;
mod drain;
mod frames;
mod head;
mod service;
mod streams;
mod tls;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::envelope::{self, Interface};
use super::problem::Problem;
use connection::Server;
pub(in crate::http) use connection::answer_once;
use drain::{Drain, LINGER, Phase};
use head::Times;
use service::Service;
pub use tls::{Tls, TlsError};

/// How long it waits after it could not accept: with all file descriptors in
/// use, one has to be closed first.
const PAUSE: Duration = Duration::from_millis(100);

/// How many newcomers may wait to be accepted: as many as the kernel lets, which on
/// Linux is `net.core.somaxconn`, 4,096 by default. Whoever comes when there is no
/// room is not answered, and knocks again after a second, then after two more. With
/// the 1,024 that tokio asks for, 8,000 receivers that came as fast as one program
/// opens connections took 7 to 11 s on 2 cores; with 4,096, less than one.
const BACKLOG: u32 = 65_535;

/// Connections over the limit that are being told so; further ones wait to be
/// accepted.
const REFUSALS: usize = 100;

/// How often the log says that there are too many connections.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How connections are served.
#[derive(Debug)]
pub struct Options {
    /// Connections at the same time.
    pub max_connections: u32,
    /// Whether HTTP/2 is spoken, too.
    pub http2: bool,
    /// With TLS, or in the clear.
    pub tls: Option<Arc<Tls>>,
    /// Origins whose scripts may ask: `https://host`, or `*`.
    pub cors_origins: Vec<String>,
    /// How long a request's head may take.
    pub head_time: Duration,
    /// How long a connection may rest between two requests.
    pub idle_time: Duration,
}

/// Listens; nobody is accepted yet.
///
/// # Errors
/// As the system says: the address is in use, or not this machine's, or not allowed.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Not held up by connections of the gateway before, which the kernel remembers.
    // Windows means something else by it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the gateway is told to stop, then until the requests in hand
/// are answered.
pub async fn listen(listener: TcpListener, gateway: Arc<Gateway>, options: Options) {
    let drain = Arc::<Drain>::default();
    let origins: Vec<HeaderValue> = options
        .cors_origins
        .iter()
        .filter_map(|origin| HeaderValue::from_str(origin).ok())
        .collect();
    let server = Arc::new(Server {
        service: Service::new(Interface::new(&gateway), &origins, Arc::clone(&drain)),
        drain: Arc::clone(&drain),
        times: Times {
            head: options.head_time,
            idle: options.idle_time,
        },
        http2: options.http2,
        tls: options.tls,
        tracker: gateway.tracker.clone(),
    });
    let mut slots = Slots::new(options.max_connections);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => match slots.take() {
                Some(slot) => server.serve(stream, peer.ip(), slot),
                None => {
                    tokio::select! {
                        () = slots.refuse(stream, &server) => {}
                        () = gateway.stop.cancelled() => break,
                    }
                }
            },
            Err(error) if is_of_one_client(error.kind()) => {}
            Err(error) => {
                tracing::error!(%error, "connections are not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drain.move_to(Phase::Ending);
    // Who has connected already is not sent away.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never()
        && let Some(slot) = slots.take()
    {
        server.serve(stream, peer.ip(), slot);
    }
    drop(listener);
    if timeout(LINGER, slots.all_free()).await.is_err() {
        drain.move_to(Phase::Closing);
        slots.all_free().await;
    }
}

/// Room for connections.
struct Slots {
    count: u32,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    said: Option<Instant>,
}

impl Slots {
    fn new(count: u32) -> Self {
        Self {
            count,
            free: Arc::new(Semaphore::new(count as usize)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            said: None,
        }
    }

    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits until there are no connections.
    async fn all_free(&self) {
        // Nobody closes it.
        let _ = self.free.acquire_many(self.count).await;
    }

    /// Answers a connection that there is no room for with 503, so that a load
    /// balancer or a person knows; with TLS, whose handshake costs more than a
    /// request, it is only closed. Waits if many are being told.
    async fn refuse(&mut self, stream: TcpStream, server: &Server) {
        if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(
                "there are {} connections, as many as --max-connections allows; others are refused",
                self.count
            );
        }
        if server.tls.is_some() {
            return;
        }
        if let Ok(turn) = Arc::clone(&self.refusals).acquire_owned().await {
            tell(&server.tracker, stream, turn);
        }
    }
}

/// Tells one connection that there are too many, in a task.
fn tell(tracker: &TaskTracker, stream: TcpStream, turn: OwnedSemaphorePermit) {
    tracker.spawn(async move {
        answer_once(stream, service_fn(too_many)).await;
        drop(turn);
    });
}

async fn too_many(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-connections",
        "The gateway has as many connections as it may. Try again, or at another gateway.",
    );
    Ok(envelope::refuse(
        &request,
        problem.retry_after(1).into_response(),
    ))
}

/// Whether accepting failed because of the client that wanted in.
fn is_of_one_client(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// They would wait for a second each if there was no room.
    #[tokio::test]
    async fn a_crowd_of_newcomers_finds_room_before_anybody_is_accepted() {
        let open_files = getrlimit(Resource::Nofile);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: open_files.maximum,
                ..open_files
            },
        )
        .expect("a soft limit may be raised up to the hard one");
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
            .map_or(128, |most| most.trim().parse().expect("a number"));
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mut waiting = Vec::new();
        for number in 0..most.min(2000) {
            let connected = timeout(Duration::from_millis(900), TcpStream::connect(address)).await;
            let stream = connected.unwrap_or_else(|_| panic!("no room for {number}"));
            waiting.push(stream.expect("it listens"));
        }
    }
}
