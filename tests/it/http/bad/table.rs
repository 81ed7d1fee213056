//! The rows of the table: what is sent, and what has to come.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Answer, Gateway};

/// One bad request and its answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    send: Send,
    /// Any of these; 0 is a connection that was closed without an answer.
    statuses: Vec<u16>,
    code: Option<String>,
    pointer: Option<String>,
    header: Option<(&'static str, &'static str)>,
    down: Down,
}

/// What is sent.
#[derive(Debug, Clone)]
enum Send {
    /// By a client library.
    Http {
        method: String,
        path: String,
        content_type: Option<String>,
        body: Vec<u8>,
    },
    /// As it stands, over a socket; and whether that is all that ever comes.
    Raw { bytes: Vec<u8>, ends: bool },
}

/// What is answered while Postgres is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// The same: nobody has to be asked.
    TheSame,
    /// 503 with `Retry-After`: the refusal hangs on what is stored.
    Unavailable,
    /// The one or the other.
    Either,
}

/// A request by a client library.
pub(super) fn send(method: &str, path: impl Into<String>) -> Row {
    Row::new(Send::Http {
        method: method.to_owned(),
        path: path.into(),
        content_type: None,
        body: Vec::new(),
    })
}

/// A POST of JSON, or of what should be.
pub(super) fn post(path: impl Into<String>, json: impl Into<Vec<u8>>) -> Row {
    send("POST", path).json(json)
}

/// Bytes over a socket, and nothing behind them for as long as it takes.
pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = bytes.into();
    Row::new(Send::Raw { bytes, ends: false })
}

/// Bytes over a socket, and its end.
pub(super) fn raw_cut_off(bytes: impl Into<Vec<u8>>) -> Row {
    let bytes = bytes.into();
    Row::new(Send::Raw { bytes, ends: true })
}

impl Row {
    fn new(send: Send) -> Self {
        Self {
            send,
            statuses: Vec::new(),
            code: None,
            pointer: None,
            header: None,
            down: Down::TheSame,
        }
    }

    /// With a body that is said to be JSON.
    pub(super) fn json(self, json: impl Into<Vec<u8>>) -> Self {
        self.typed("application/json", json)
    }

    /// With a body of a content type.
    pub(super) fn typed(mut self, content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self = self.untyped(bytes);
        if let Send::Http {
            content_type: c, ..
        } = &mut self.send
        {
            *c = Some(content_type.to_owned());
        }
        self
    }

    /// With a body of no content type.
    pub(super) fn untyped(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        if let Send::Http { body, .. } = &mut self.send {
            *body = bytes.into();
        }
        self
    }

    /// Refused with this problem.
    pub(super) fn refused(mut self, status: u16, code: &str) -> Self {
        self.statuses = vec![status];
        self.code = Some(code.to_owned());
        self
    }

    /// Refused by the server itself, which knows no problems.
    pub(super) fn rejected(mut self, statuses: &[u16]) -> Self {
        self.statuses = statuses.to_vec();
        self
    }

    /// 422, and where it is wrong.
    pub(super) fn invalid(self, pointer: impl Into<String>) -> Self {
        self.refused(422, "invalid").at(pointer)
    }

    /// Where it is wrong.
    pub(super) fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// With a header in the answer, whose parts may be in any order.
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// While Postgres is away the answer is 503.
    pub(super) fn needs_postgres(mut self) -> Self {
        self.down = Down::Unavailable;
        self
    }

    /// While Postgres is away the answer may be 503, too: whether that is noticed
    /// before the end of the body is a race.
    pub(super) fn or_unavailable(mut self) -> Self {
        self.down = Down::Either;
        self
    }

    /// What a reader of a failure wants to know.
    pub(super) fn name(&self) -> String {
        let text = match &self.send {
            Send::Http {
                method, path, body, ..
            } => format!("{method} {path} {}", String::from_utf8_lossy(body)),
            Send::Raw { bytes, .. } => format!("{:?}", String::from_utf8_lossy(bytes)),
        };
        text.chars().take(300).collect()
    }

    /// What is wrong with the answer, if anything is.
    pub(super) fn judge(&self, answer: &Got, is_up: bool) -> Result<(), String> {
        let away = answer.status == 503;
        let is_same = match self.down {
            Down::TheSame => true,
            Down::Unavailable => is_up,
            Down::Either => is_up || !away,
        };
        let (statuses, code) = if is_same {
            (self.statuses.as_slice(), self.code.as_deref())
        } else {
            ([503].as_slice(), Some("database-unavailable"))
        };
        let demand = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(what.to_owned()) }
        };
        demand(
            statuses.contains(&answer.status),
            &format!("not {statuses:?}"),
        )?;
        let Some(code) = code else { return Ok(()) };
        let header = |name: &str| answer.headers.iter().find(|(n, _)| n == name);
        demand(
            header("content-type").is_some_and(|(_, v)| v == "application/problem+json"),
            "no problem",
        )?;
        let problem: Value = serde_json::from_str(&answer.text).map_err(|e| e.to_string())?;
        demand(problem["code"] == code, &format!("not {code}"))?;
        demand(problem["status"] == answer.status, "another status inside")?;
        let detail = problem["detail"].as_str().unwrap_or_default();
        demand((1..=300).contains(&detail.chars().count()), "its detail")?;
        let has_id = header("x-request-id").is_some_and(|(_, id)| problem["request_id"] == **id);
        demand(has_id, "no request id")?;
        if answer.status == 503 {
            return demand(header("retry-after").is_some(), "no Retry-After");
        }
        if let Some(pointer) = &self.pointer {
            let errors = problem["errors"].as_array().cloned().unwrap_or_default();
            let is_it = |error: &Value| match error["pointer"].as_str().unwrap() {
                // Of a name that is far too long the beginning is enough.
                shown if shown.len() > 3 && shown.ends_with("...") => {
                    pointer.starts_with(shown.trim_end_matches("..."))
                }
                shown => shown == pointer,
            };
            demand(errors.iter().any(is_it), &format!("not at {pointer:?}"))?;
        }
        if let Some((name, expected)) = self.header {
            let sorted = |text: &str| {
                let mut parts: Vec<String> = text.split(',').map(|p| p.trim().into()).collect();
                parts.sort_unstable();
                parts
            };
            let found = header(name).map(|(_, value)| sorted(value));
            demand(
                found == Some(sorted(expected)),
                &format!("not {name}: {expected}"),
            )?;
        }
        self.is_documented(answer.status, code)
    }

    /// Where there is an operation, its refusals are in the document.
    fn is_documented(&self, status: u16, code: &str) -> Result<(), String> {
        let Send::Http { method, path, .. } = &self.send else {
            return Ok(());
        };
        let document = serde_json::to_value(postrider::http::document()).unwrap();
        let operation = &document["paths"][template(path)][method.to_lowercase()];
        let response = &operation["responses"][status.to_string()];
        let description = response["description"].as_str().unwrap_or_default();
        if operation.is_null()
            || path.ends_with('/')
            || description.contains(&format!("`{code}`"))
            || status == 400
        {
            return Ok(());
        }
        Err(format!("not documented: {status} {code}"))
    }
}

/// The document's name of a path.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let is_one = |at: usize| matches!(parts.get(at), Some(&("messages" | "dead-letters")));
    let named: Vec<&str> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| match (at, *part) {
            (3, _) if parts[2] == "topics" => "{topic}",
            (5, _) if parts[2] == "topics" => "{subscription}",
            (3, _) => "{queue}",
            (5, part) if is_one(4) && !matches!(part, "redrive" | "purge") => "{id}",
            (_, part) => part,
        })
        .collect();
    named.join("/")
}

/// An answer, or what there was of it.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) text: String,
}

impl Row {
    pub(super) async fn answer(&self, gateway: &Gateway) -> Got {
        match &self.send {
            Send::Http {
                method,
                path,
                content_type,
                body,
            } => {
                let mut request = gateway.request(method.parse().unwrap(), path);
                if let Some(content_type) = content_type {
                    request = request.header("content-type", content_type);
                }
                if content_type.is_some() || !body.is_empty() {
                    request = request.body(body.clone());
                }
                let answer = Answer::of(request).await;
                let text = |v: &reqwest::header::HeaderValue| v.to_str().unwrap().to_owned();
                Got {
                    status: answer.status.as_u16(),
                    headers: answer
                        .headers
                        .iter()
                        .map(|(name, value)| (name.to_string(), text(value)))
                        .collect(),
                    text: answer.text,
                }
            }
            Send::Raw { bytes, ends } => Got::parse(&exchange(gateway, bytes, *ends).await),
        }
    }
}

impl Got {
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
        }
    }
}

/// Sends bytes and reads what comes until the gateway closes, as it has to.
async fn exchange(gateway: &Gateway, bytes: &[u8], ends: bool) -> String {
    let mut stream = TcpStream::connect(gateway.app.address()).await.unwrap();
    // It may refuse while this is still sent.
    let sent = stream.write_all(bytes).await;
    if ends && sent.is_ok() {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    // A reset is an end, too.
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
