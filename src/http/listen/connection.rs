//! One connection: which protocol it speaks, and serving it.

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::drain::{Drain, LINGER, Phase};
use super::frames::Framed;
use super::head::{Head, HeadTimer, Times, Watched};
use super::service::Service;
use super::streams::Streams;
use super::tls::Tls;

/// What a client that knows it speaks HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait for the rest of a preface that came in pieces.
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

/// Bytes of a request's head at which hyper gives up by itself, with a bare
/// answer. What our own limits refuse (`http/head_limits.rs`) is below it.
const HEAD_FENCE: u32 = 256 * 1024;

/// Requests at the same time on one HTTP/2 connection; clients open another one
/// for more.
const STREAMS: u32 = 1_000;

/// How often an HTTP/2 client has to say that it is still there, and how long it
/// may take to.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);

/// How long a connection may take that is answered once, to ask and to listen.
const ONCE_TIME: Duration = Duration::from_secs(1);

/// What all connections have in common.
pub(super) struct Server {
    pub(super) service: Service,
    pub(super) drain: Arc<Drain>,
    pub(super) times: Times,
    pub(super) http2: bool,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) tracker: TaskTracker,
}

/// Which protocol a connection speaks.
enum Protocol {
    Http1,
    Http2,
}

impl Server {
    /// Serves a connection, in tasks: one that finds out what it speaks, and one
    /// that has only what serving needs, which is what a waiting receiver takes.
    pub(super) fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        slot: OwnedSemaphorePermit,
    ) {
        // An answer is one small write; waiting to fill a packet only delays it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let until = Instant::now() + self.times.head;
        let server = Arc::clone(self);
        if let Some(tls) = &self.tls {
            let handshake = tls.acceptor().accept(stream);
            self.tracker.spawn(async move {
                let outcome = tokio::select! {
                    biased;
                    outcome = timeout_at(until, handshake) => outcome,
                    // Nothing has been asked yet.
                    () = server.closing() => return,
                };
                match outcome {
                    Ok(Ok(stream)) => {
                        let protocol = match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => Protocol::Http2,
                            _ => Protocol::Http1,
                        };
                        server.speak(&protocol, stream, peer, slot, until);
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            });
        } else if self.http2 {
            self.tracker.spawn(async move {
                match timeout_at(until, server.listen_for_preface(&stream)).await {
                    Ok(Ok(protocol)) => server.speak(&protocol, stream, peer, slot, until),
                    Ok(Err(error)) => tracing::debug!(%error, "a connection broke"),
                    Err(_) => tracing::debug!("a connection said nothing"),
                }
            });
        } else {
            self.speak(&Protocol::Http1, stream, peer, slot, until);
        }
    }

    /// Looks at the first bytes without taking them.
    async fn listen_for_preface(&self, stream: &TcpStream) -> std::io::Result<Protocol> {
        let mut first = [0; PREFACE.len()];
        loop {
            let count = tokio::select! {
                biased;
                count = stream.peek(&mut first) => count?,
                // Who says nothing until the end has said nothing.
                () = self.closing() => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            };
            if count == 0 || first[..count] != PREFACE[..count] {
                return Ok(Protocol::Http1);
            }
            if count == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            // The stream stays readable.
            sleep(PREFACE_PAUSE).await;
        }
    }

    /// Ends when connections that rest are to be closed.
    async fn closing(&self) {
        loop {
            let moved = self.drain.moved();
            if self.drain.phase() == Phase::Closing {
                return;
            }
            moved.await;
        }
    }

    fn speak<I>(
        &self,
        protocol: &Protocol,
        stream: I,
        peer: IpAddr,
        slot: OwnedSemaphorePermit,
        first_until: Instant,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let head = Head::new(self.times, first_until);
        let stream = Watched::new(stream, Arc::clone(&head));
        let (drain, service) = (Arc::clone(&self.drain), self.service.of_peer(peer));
        match protocol {
            Protocol::Http1 => {
                self.tracker
                    .spawn(Http1::new(TokioIo::new(stream), service, drain, head, slot));
            }
            Protocol::Http2 => {
                let stream = Framed::new(stream, PREFACE.len(), self.times.head);
                let streams = Streams::new();
                let tasks = Tasks {
                    tracker: self.tracker.clone(),
                    streams: Arc::clone(&streams),
                };
                let idle = self.times.idle;
                let rested = async move {
                    streams.rested(first_until, idle).await;
                };
                self.tracker.spawn(async move {
                    let stream = TokioIo::new(stream);
                    report(http2(stream, service, drain, tasks, rested).await);
                    drop(slot);
                });
            }
        }
    }
}

fn report(outcome: hyper::Result<()>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}

pin_project! {
    /// One connection over HTTP/1.1.
    ///
    /// Not an async function: that would have room for its arguments, too.
    struct Http1<I> {
        connection: http1::Connection<TokioIo<Watched<I>>, Service>,
        head: Arc<Head>,
        drain: Arc<Drain>,
        #[pin]
        moved: OwnedNotified,
        // The phase that it has been told to be woken after.
        seen: Option<Phase>,
        is_last: bool,
        slot: OwnedSemaphorePermit,
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Http1<I> {
    fn new(
        stream: TokioIo<Watched<I>>,
        service: Service,
        drain: Arc<Drain>,
        head: Arc<Head>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let connection = http1::Builder::new()
            .timer(HeadTimer(Arc::clone(&head)))
            // Only so that there is one: how long it is, the timer says.
            .header_read_timeout(head.idle())
            .max_header_size(HEAD_FENCE as usize)
            .serve_connection(stream, service);
        Self {
            connection,
            head,
            moved: drain.moved(),
            drain,
            seen: None,
            is_last: false,
            slot,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin + 'static> Future for Http1<I> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        // To look whether it has moved takes a lock: once for each phase.
        while *this.seen != Some(this.drain.phase()) {
            this.moved.set(this.drain.moved());
            if this.moved.as_mut().poll(cx).is_pending() {
                *this.seen = Some(this.drain.phase());
            }
        }
        // First the connection: a request that has come is not idleness.
        let mut connection = Pin::new(this.connection);
        let outcome = connection.as_mut().poll(cx);
        let is_closing = match this.drain.phase() {
            Phase::Serving => false,
            Phase::Ending => this.head.request_in_hand(),
            Phase::Closing => true,
        };
        if outcome.is_ready() || *this.is_last || !is_closing {
            return outcome.map(report);
        }
        *this.is_last = true;
        connection.as_mut().graceful_shutdown();
        connection.poll(cx).map(report)
    }
}

/// Serves a connection over HTTP/2, until it has `rested` for too long.
async fn http2<I>(
    stream: TokioIo<Framed<Watched<I>>>,
    service: Service,
    drain: Arc<Drain>,
    tasks: Tasks,
    rested: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Arc::clone(&tasks.streams);
    let mut connection = pin!(
        http2::Builder::new(tasks)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_FENCE)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME)
            .serve_connection(stream, service)
    );
    let mut moved = pin!(drain.moved());
    if drain.phase() == Phase::Serving {
        tokio::select! {
            outcome = &mut connection => return outcome,
            () = &mut moved => {}
            () = rested => {}
        }
    }
    // HTTP/2 can say which requests it will still answer.
    connection.as_mut().graceful_shutdown();
    // But a client that does not finish the handshake would be waited for, and
    // one that answers no ping for long.
    match timeout(LINGER, &mut connection).await {
        Ok(outcome) => outcome,
        Err(_) if streams.any() => connection.await,
        Err(_) => Ok(()),
    }
}

/// Where HTTP/2 runs the requests of a connection.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    streams: Arc<Streams>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let open = self.streams.open();
        // Not an async block: that would have room for the task twice.
        self.tracker.spawn(task.map(move |output| {
            drop(open);
            output
        }));
    }
}

/// Answers the first request of a connection, whatever it is, by `service`, and
/// closes; soon, whatever the client does.
pub(in crate::http) async fn answer_once<S>(stream: TcpStream, service: S)
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = axum::body::Body>,
    S::Error: Into<axum::BoxError>,
{
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(outcome) = timeout(ONCE_TIME, connection).await {
        report(outcome);
    } else {
        tracing::debug!("a connection that is answered once took too long");
    }
}
