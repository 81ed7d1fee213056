//! The rows of the table: what is sent, and what has to come.

use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::got::{After, Got, Send};

/// One bad request and its answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) send: Send,
    /// Any of these; 0 is a connection that was closed without an answer.
    statuses: Vec<u16>,
    code: Option<String>,
    pointer: Option<String>,
    header: Option<(&'static str, String)>,
    /// Whether the connection gives one answer and ends.
    is_once: bool,
    /// Seconds that it takes.
    takes: Option<Range<f64>>,
    down: Down,
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
        headers: Vec::new(),
        body: Vec::new(),
    })
}

/// A POST of JSON, or of what should be.
pub(super) fn post(path: impl Into<String>, json: impl Into<Vec<u8>>) -> Row {
    send("POST", path).json(json)
}

/// Bytes over a socket, and nothing behind them for as long as it takes.
pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Row {
    raw_with(bytes, After::Silence)
}

/// Bytes over a socket, and its end.
pub(super) fn raw_cut_off(bytes: impl Into<Vec<u8>>) -> Row {
    raw_with(bytes, After::End)
}

/// Bytes over a socket, and one more now and then.
pub(super) fn raw_dripping(bytes: impl Into<Vec<u8>>, every: Duration) -> Row {
    raw_with(bytes, After::Drip(every))
}

fn raw_with(bytes: impl Into<Vec<u8>>, after: After) -> Row {
    let bytes = bytes.into();
    Row::new(Send::Raw { bytes, after })
}

impl Row {
    fn new(send: Send) -> Self {
        Self {
            send,
            statuses: Vec::new(),
            code: None,
            pointer: None,
            header: None,
            is_once: false,
            takes: None,
            down: Down::TheSame,
        }
    }

    /// With a body that is said to be JSON.
    pub(super) fn json(self, json: impl Into<Vec<u8>>) -> Self {
        self.typed("application/json", json)
    }

    /// With a body of a content type.
    pub(super) fn typed(self, content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.untyped(bytes).header("content-type", content_type)
    }

    /// With a header.
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        if let Send::Http { headers, .. } = &mut self.send {
            headers.push((name.to_owned(), value.to_owned()));
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

    /// Nothing is wrong with it, though one might think so.
    pub(super) fn answered(self, status: u16) -> Self {
        self.rejected(&[status])
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
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.header = Some((name, value.to_owned()));
        self
    }

    /// Within so many seconds, and not sooner.
    pub(super) fn taking(mut self, seconds: Range<f64>) -> Self {
        self.takes = Some(seconds);
        self
    }

    /// Answered once, whatever came behind it, and over: within three seconds the
    /// connection is closed.
    pub(super) fn closed(mut self) -> Self {
        self.is_once = true;
        self.taking(0.0..3.0)
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
        demand(
            !self.is_once || answer.answers == 1,
            &format!("{} answers", answer.answers),
        )?;
        if let Some(takes) = self.takes.as_ref().filter(|_| is_same) {
            let took = answer.took.as_secs_f64();
            demand(takes.contains(&took), &format!("{took} s, not {takes:?}"))?;
        }
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
        if let Some((name, expected)) = &self.header {
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
        let Some(operation) = operation(method, path) else {
            return Ok(());
        };
        let response = &operation["responses"][status.to_string()];
        let description = response["description"].as_str().unwrap_or_default();
        if description.contains(&format!("`{code}`")) {
            return Ok(());
        }
        Err(format!("not documented: {status} {code}"))
    }
}

/// The document's description of a request's operation, if it is one.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(super::super::openapi::document);
    let path = path.split('?').next()?;
    if path.ends_with('/') {
        return None;
    }
    let parts: Vec<&str> = path.split('/').collect();
    // Of a path that is there word by word none of its parts is a name.
    let named = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        let fits = template.len() == parts.len()
            && template.iter().zip(&parts).all(|(template, part)| {
                template == part || (template.starts_with('{') && !part.is_empty())
            });
        fits.then(|| template.iter().filter(|t| t.starts_with('{')).count())
    };
    let paths = DOCUMENT["paths"].as_object()?;
    let found = paths
        .iter()
        .filter_map(|(template, item)| Some((named(template)?, item)));
    let (_, item) = found.min_by_key(|(names, _)| *names)?;
    item.get(method.to_lowercase())
}
