//! Receivers of pushes: HTTP/1.1 as little as a server can know of it. They
//! share the load generator's one thread, and the cores with what they measure.

use std::rc::Rc;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::load::Meter;

const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// An endpoint: it listens from the beginning, and answers while it is
/// [served](Receiver::serve).
#[derive(Clone)]
pub(crate) struct Receiver {
    listener: Rc<TcpListener>,
    manner: Manner,
}

/// What it does with a push.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes it at once.
    Takes,
    /// Reads it and never answers.
    Hangs,
}

impl Receiver {
    /// On a free port of its own.
    pub(crate) async fn bind(manner: Manner) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self {
            listener: Rc::new(listener),
            manner,
        })
    }

    pub(crate) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/", self.listener.local_addr()?))
    }

    /// Counts what it takes, while the meter runs; then closes its connections.
    pub(crate) async fn serve(self, meter: Rc<Meter>) -> anyhow::Result<()> {
        match tokio::time::timeout(meter.left(), self.accept(&meter)).await {
            Ok(failed) => failed,
            Err(_) => Ok(()),
        }
    }

    async fn accept(&self, meter: &Rc<Meter>) -> anyhow::Result<()> {
        // Dropped with this, and the connections with it.
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = self.listener.accept().await?;
            connections.spawn_local(connection(stream, self.manner, Rc::clone(meter)));
            // Nothing may have failed.
            while let Some(ended) = connections.try_join_next() {
                ended??;
            }
        }
    }
}

async fn connection(mut stream: TcpStream, manner: Manner, meter: Rc<Meter>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        let read = match stream.read(&mut buffer[filled..]).await {
            // Whoever pushes may hang up when time is up.
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => read,
        };
        filled += read;
        let Some(length) = length(&buffer[..filled])? else {
            continue;
        };
        // One push at a time: the next begins when this one is answered.
        ensure!(filled <= length, "a push that was not waited for");
        if filled < length {
            continue;
        }
        filled = 0;
        if manner == Manner::Takes {
            meter.tally(1);
            if stream.write_all(TAKEN).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Bytes of the whole request; `None` while its head is not complete.
fn length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes)? else {
        return Ok(None);
    };
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        if !request.headers.iter().any(|header| header.name == name) {
            bail!("a push without {name}");
        }
    }
    let body = request
        .headers
        .iter()
        .find(|header| header.name == "content-length")
        .context("a push without its length")?;
    Ok(Some(
        head + std::str::from_utf8(body.value)?.parse::<usize>()?,
    ))
}
