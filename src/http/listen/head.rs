//! How long a client may keep a connection waiting.
//!
//! hyper has one time-out for heads, which also ends connections that rest
//! between two requests. A client that has begun a request should finish it
//! soon; one that keeps a connection for its next request may rest for longer.
//! So hyper is given a timer of ours: it asks it for a sleep when it begins to
//! wait for a head, and drops that when the head is complete. While it sleeps,
//! the stream tells when the first byte is there, and less time is left. A
//! receiver that waits has sent its head, so no timer runs for it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt;
use hyper_util::rt::TokioTimer;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How long an answer may make no way because the client does not read it.
const WRITE_TIME: Duration = Duration::from_secs(30);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// For a head, from its first byte on; of a connection's first request from
    /// when it was accepted, TLS included.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

/// Where a connection is with the head of a request: what its stream and its
/// timer tell each other.
#[derive(Debug)]
pub(super) struct Head {
    /// [`Times`], in milliseconds.
    finish_millis: u32,
    idle_millis: u32,
    /// The end of the time for the first head.
    first_until: Instant,
    /// Whether there has been a first head.
    first_begun: AtomicBool,
    /// Whether hyper waits for a head.
    awaited: AtomicBool,
    /// Whether bytes have come since it began to.
    heard: AtomicBool,
}

impl Head {
    pub(super) fn new(times: Times, first_until: Instant) -> Arc<Self> {
        Arc::new(Self {
            finish_millis: millis(times.head),
            idle_millis: millis(times.idle),
            first_until,
            first_begun: AtomicBool::new(false),
            // Until hyper has looked, there may be one.
            awaited: AtomicBool::new(true),
            heard: AtomicBool::new(false),
        })
    }

    /// How long the connection may rest.
    pub(super) fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_millis.into())
    }

    /// Whether a request is being answered.
    pub(super) fn request_in_hand(&self) -> bool {
        !self.awaited.load(Relaxed)
    }
}

/// Half as long as a duration is: each connection has two.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// hyper's timer of one connection, for heads.
pub(super) struct HeadTimer(pub(super) Arc<Head>);

impl rt::Timer for HeadTimer {
    /// Not what it is made for.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    /// hyper begins to wait for a head.
    fn sleep_until(&self, _: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        let head = &self.0;
        head.heard.store(false, Relaxed);
        head.awaited.store(true, Relaxed);
        let is_first = !head.first_begun.swap(true, Relaxed);
        let until = if is_first {
            head.first_until
        } else {
            Instant::now() + head.idle()
        };
        Box::pin(HeadSleep {
            sleep: sleep_until(until),
            is_hurried: is_first,
            wait: Wait(Arc::clone(head)),
        })
    }
}

pin_project! {
    /// Ends when the head has taken too long.
    struct HeadSleep {
        #[pin]
        sleep: Sleep,
        is_hurried: bool,
        wait: Wait,
    }
}

/// Until hyper drops it, because the head is complete.
struct Wait(Arc<Head>);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.awaited.store(false, Relaxed);
    }
}

impl Future for HeadSleep {
    type Output = ();

    /// hyper asks after each read that did not complete the head.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let head = &this.wait.0;
        if !*this.is_hurried && head.heard.load(Relaxed) {
            *this.is_hurried = true;
            this.sleep
                .as_mut()
                .reset(Instant::now() + Duration::from_millis(head.finish_millis.into()));
        }
        this.sleep.poll(cx)
    }
}

impl rt::Sleep for HeadSleep {}

/// A connection's stream, which tells its timer what it hears, and breaks if the
/// other side does not read.
pub(super) struct Watched<I> {
    stream: I,
    head: Arc<Head>,
    /// There while the other side does not read.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Watched<I> {
    pub(super) fn new(stream: I, head: Arc<Head>) -> Self {
        Self {
            stream,
            head,
            stalled: None,
        }
    }

    /// Passes on how a write went, unless it has stood still for too long.
    fn progress<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(WRITE_TIME)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.head.heard.store(true, Relaxed);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.progress(cx, closed)
    }
}
