//! Sends what a row is and reads what comes.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Gateway};

/// What is sent.
#[derive(Debug, Clone)]
pub(super) enum Send {
    /// By a client library.
    Http {
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// As it stands, over a socket.
    Raw { bytes: Vec<u8>, after: After },
}

/// What comes after bytes over a socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// Nothing, for as long as it takes.
    Silence,
    /// The end.
    End,
    /// One byte in such a time.
    Drip(Duration),
}

/// An answer, or what there was of it.
#[derive(Debug, Default)]
pub(super) struct Got {
    /// 0 if there was none.
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) text: String,
    /// How many there were on the connection, of bytes over a socket.
    pub(super) answers: usize,
    /// From the connection to the last byte.
    pub(super) took: Duration,
}

impl Send {
    pub(super) async fn answer(&self, gateway: &Gateway) -> Got {
        let began = Instant::now();
        let mut got = match self {
            Self::Http {
                method,
                path,
                headers,
                body,
            } => {
                let mut request = gateway.request(method.parse().unwrap(), path);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                if !body.is_empty() || headers.iter().any(|(name, _)| name == "content-type") {
                    request = request.body(body.clone());
                }
                Got::of(&Answer::of(request).await)
            }
            Self::Raw { bytes, after } => Got::parse(&exchange(gateway, bytes, *after).await),
        };
        got.took = began.elapsed();
        got
    }
}

impl Got {
    fn of(answer: &Answer) -> Self {
        let headers = answer.headers.iter();
        let text = |v: &reqwest::header::HeaderValue| v.to_str().unwrap().to_owned();
        Self {
            status: answer.status.as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            text: answer.text.clone(),
            ..Self::default()
        }
    }

    fn parse(answer: &str) -> Self {
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        Self {
            status: status.and_then(|status| status.parse().ok()).unwrap_or(0),
            headers: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            text: text.to_owned(),
            answers: answer.matches("HTTP/1.1 ").count(),
            ..Self::default()
        }
    }
}

/// Sends bytes and reads what comes until the gateway closes, as it has to.
async fn exchange(gateway: &Gateway, bytes: &[u8], after: After) -> String {
    let mut stream = TcpStream::connect(gateway.app.address()).await.unwrap();
    // It may refuse while this is still sent.
    let sent = stream.write_all(bytes).await;
    if matches!(after, After::End) && sent.is_ok() {
        let _ = stream.shutdown().await;
    }
    let (mut read, mut write) = stream.split();
    let dripping = async {
        if let After::Drip(every) = after {
            loop {
                tokio::time::sleep(every).await;
                if write.write_all(b"x").await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        let mut chunk = [0; 4096];
        // A reset is an end, too.
        while let Ok(read @ 1..) = read.read(&mut chunk).await {
            answer.extend_from_slice(&chunk[..read]);
        }
    };
    tokio::select! {
        () = reading => {}
        () = dripping => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}
