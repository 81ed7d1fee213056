//! What every operation refuses alike, made from the document: an operation that is
//! new is in these rows by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{There, check};
use super::table::{Row, raw, send};
use crate::http::openapi::{document, examples, operations};

/// An operation of the document, with names that are there and a body that it
/// would take.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) method: String,
    /// As the document has it.
    template: String,
    /// What stands in it, in its order.
    names: Vec<(String, String)>,
    /// The query that it cannot do without.
    query: String,
    /// The types of its body.
    pub(super) types: Vec<String>,
    /// Bodies that are JSON, with their types.
    pub(super) bodies: Vec<(String, String)>,
    /// Whether it cannot do without one.
    pub(super) needs_body: bool,
}

/// All of them.
pub(super) fn walk(there: &There) -> Vec<Operation> {
    let document = document();
    let all: Vec<Operation> = operations(&document)
        .into_iter()
        .map(|(method, template, operation)| {
            let content = operation["requestBody"]["content"].as_object();
            let bodies = examples(&document, &operation).into_iter();
            Operation {
                method: method.to_uppercase(),
                names: names(&template, there),
                query: query(&operation),
                types: content.into_iter().flatten().map(|c| c.0.clone()).collect(),
                bodies: bodies
                    .filter(|(content_type, _)| content_type.ends_with("json"))
                    .map(|(content_type, body)| {
                        let body = body.to_string().replace("RECEIPT", &there.receipt);
                        (content_type, body)
                    })
                    .collect(),
                needs_body: operation["requestBody"]["required"] == true,
                template,
            }
        })
        .collect();
    assert!(all.len() > 70, "{}", all.len());
    all
}

/// What is there, by the names of a path's parameters.
fn names(template: &str, there: &There) -> Vec<(String, String)> {
    let has = |part| template.contains(part);
    let name = |parameter| match parameter {
        "queue" | "topic" if has("/schema") => "checked",
        "queue" if has("/webhook") => "pushed",
        "queue" => "orders",
        "topic" => "shop",
        "subscription" => "s",
        "schedule" => "yearly",
        "version" => "1",
        "id" if has("/keys/") => "0123456789ab",
        "id" => &there.id,
        "correlation_id" => "req_AQ",
        "key" => "k",
        other => panic!("what is there for {{{other}}} in {template}?"),
    };
    template
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|parameter| (parameter.to_owned(), name(parameter).to_owned()))
        .collect()
}

fn query(operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let required = parameters
        .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true)
        .map(|parameter| {
            let text = |field| parameter[field].as_str().unwrap();
            format!("{}={}", text("name"), text("example"))
        });
    required.collect::<Vec<_>>().join("&")
}

impl Operation {
    /// Its path with what is there, but for one name.
    fn path_with(&self, other: &str, text: &str) -> String {
        let path = self
            .names
            .iter()
            .fold(self.template.clone(), |path, (name, value)| {
                let value = if name == other { text } else { value };
                path.replace(&format!("{{{name}}}"), value)
            });
        if self.query.is_empty() {
            path
        } else {
            format!("{path}?{}", self.query)
        }
    }

    pub(super) fn path(&self) -> String {
        self.path_with("", "")
    }

    /// Whether it takes bytes of any type. Such a body is read once the queue or
    /// topic is known, which says how long it may be.
    pub(super) fn takes_bytes(&self) -> bool {
        self.types.iter().any(|of| of == "application/octet-stream")
    }

    /// Sent by a client library, with a good body.
    fn send(&self, path: &str) -> Row {
        let row = send(&self.method, path);
        match self.bodies.first() {
            Some((content_type, body)) => row.typed(content_type, body.as_bytes()),
            None => row,
        }
    }

    /// The same over a socket, where nobody tidies its path up.
    fn send_raw(&self, path: &str) -> Row {
        let nothing = ("text/plain".to_owned(), String::new());
        let (content_type, body) = self.bodies.first().unwrap_or(&nothing);
        raw(format!(
            "{} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.method,
            body.len()
        ))
    }
}

/// Methods that a path does not have.
fn methods(there: &There) -> Vec<Row> {
    let mut paths: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for operation in walk(there) {
        let path = operation.path();
        let path = path.split('?').next().unwrap();
        let has = paths.entry(path.to_owned()).or_default();
        if operation.method == "GET" {
            has.insert("HEAD".to_owned());
        }
        has.insert(operation.method);
    }
    let mut rows = Vec::new();
    for (path, has) in paths {
        let allow = has.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        for method in ["GET", "PUT", "POST", "PATCH", "DELETE", "BREW"] {
            if !has.contains(method) {
                let row = send(method, &path).refused(405, "method-not-allowed");
                rows.push(row.with("allow", &allow));
            }
        }
    }
    rows
}

/// A parameter that nobody knows, of a request that would be fine without it.
fn queries(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for operation in walk(there) {
        let path = operation.path();
        let sign = if path.contains('?') { '&' } else { '?' };
        let row = operation.send(&format!("{path}{sign}nonsense=1"));
        rows.push(row.refused(400, "invalid-query"));
    }
    rows
}

/// What is no text, and what is no name, in each place of a path.
fn in_paths(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for operation in walk(there) {
        for (name, _) in &operation.names {
            for text in ["%00", "a%00", "%ff"] {
                let row = operation.send(&operation.path_with(name, text));
                rows.push(row.refused(400, "invalid-path"));
            }
            for text in ["%2e%2e", "a%2Fb", "%2e%2e%2Fb"] {
                let path = operation.path_with(name, text);
                // A client library would take it for a way up.
                let row = if text == "%2e%2e" {
                    operation.send_raw(&path)
                } else {
                    operation.send(&path)
                };
                rows.extend(operation.no_name(name, row));
            }
        }
    }
    rows
}

impl Operation {
    /// What is answered where such a text stands.
    fn no_name(&self, name: &str, row: Row) -> Option<Row> {
        let is_in = |part| self.template.contains(part);
        Some(match name {
            "queue" | "topic" | "subscription" | "schedule" => row.invalid(name),
            // No other text has ever been an id.
            "id" if is_in("/dead-letters/") => row.refused(404, "dead-letter-not-found"),
            "id" if is_in("/messages/") => row.refused(404, "message-not-found"),
            "id" if is_in("/keys/") => row.refused(404, "key-not-found").needs_postgres(),
            "correlation_id" => row.refused(404, "reply-not-found"),
            "version" => row.refused(404, "schema-not-found").needs_postgres(),
            // A claim's key may be any text, this too: nobody has taken it yet.
            "key" if self.template == "/v1/claims/{key}" && self.method == "POST" => return None,
            // To give up what nobody has is fine.
            "key" if self.method == "DELETE" => row.answered(204).needs_postgres(),
            "key" => row.refused(409, "claim-lost").needs_postgres(),
            other => panic!("what is no {other}?"),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_methods_parameters_and_paths_that_it_does_not_know() {
    check(|there| [methods(there), queries(there), in_paths(there)].concat()).await;
}
