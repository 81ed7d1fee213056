//! A client of one connection, as light as one can be: it shares the cores with
//! what it measures. Requests are written once and sent as they are.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a gateway says that cannot take a request now.
const UNAVAILABLE: u16 = 503;

/// How long one waits then, which is what `Retry-After` says, and how often at most.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 30;

/// Requests that were refused and sent again.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// How many requests were refused and sent again since this was asked last.
pub(crate) fn refused() -> u64 {
    REFUSED.swap(0, Ordering::Relaxed)
}

/// A connection that stays open.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A POST of JSON, as it goes over the wire.
pub(crate) fn post(path: &str, json: &str) -> Vec<u8> {
    request("POST", path, "", json)
}

/// A POST of JSON with what is preferred.
pub(crate) fn post_preferring(prefer: &str, path: &str, json: &str) -> Vec<u8> {
    request("POST", path, &format!("Prefer: {prefer}\r\n"), json)
}

/// A PUT of JSON, as it goes over the wire.
pub(crate) fn put(path: &str, json: &str) -> Vec<u8> {
    request("PUT", path, "", json)
}

fn request(method: &str, path: &str, more: &str, json: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         {more}Content-Length: {}\r\n\r\n{json}",
        json.len()
    )
    .into_bytes()
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            // Most answers fit; others make it grow, once.
            buffer: vec![0; 2048],
        })
    }

    /// Sends a request and reads its answer, of which the status counts.
    pub(crate) async fn call(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        Ok(self.exchange(request).await?.0)
    }

    /// The status of the answer, and where in the buffer its body is.
    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, Range<usize>)> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
            if let Some((status, head, length)) = parse_head(&self.buffer[..filled])? {
                let total = head + length;
                if self.buffer.len() < total {
                    self.buffer.resize(total, 0);
                }
                self.stream
                    .read_exact(&mut self.buffer[filled..total])
                    .await?;
                return Ok((status, head..total));
            }
        }
    }

    /// A call that has to succeed. A disk that does not answer for half a second makes
    /// the gateway refuse requests; they are sent again, as any client would, and the
    /// wait counts.
    pub(crate) async fn expect(&mut self, request: &[u8]) -> anyhow::Result<&[u8]> {
        let (mut status, mut body) = self.exchange(request).await?;
        for _ in 0..TRIES {
            if status != UNAVAILABLE {
                break;
            }
            REFUSED.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
            (status, body) = self.exchange(request).await?;
        }
        let body = &self.buffer[body];
        if !(200..300).contains(&status) {
            bail!(
                "{status} to {}: {}",
                String::from_utf8_lossy(&request[..request.len().min(80)]),
                String::from_utf8_lossy(&body[..body.len().min(500)])
            );
        }
        Ok(body)
    }
}

/// Status, bytes of the head, bytes of the body; `None` while the head is not
/// complete.
fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let length = match response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
    {
        Some(header) => std::str::from_utf8(header.value)?.parse()?,
        None => 0,
    };
    Ok(Some((response.code.unwrap_or(0), head, length)))
}
