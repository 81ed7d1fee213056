//! The rules that keep the rooms apart, held by reading the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which rooms of the crate a room may name, besides itself. Rooms that are not
/// here (`app`, `main`) may name all.
const SEES: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain", "metrics"]),
    ("batch", &["domain", "store", "metrics", "spans"]),
    (
        "http",
        &[
            "domain",
            "store",
            "batch",
            "metrics",
            "webhook",
            "spans",
            "telemetry",
        ],
    ),
    (
        "workers",
        &["domain", "store", "batch", "metrics", "webhook", "spans"],
    ),
    ("webhook", &["domain"]),
    ("embedded", &[]),
    ("metrics", &[]),
    ("config", &["domain", "store", "metrics"]),
    ("secrets", &["domain"]),
    ("spans", &["domain"]),
    ("telemetry", &["config"]),
];

/// What only these rooms may know.
const KNOWS: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("axum", &["http"]),
    ("utoipa", &["http"]),
    ("utoipa_axum", &["http"]),
    ("utoipa_swagger_ui", &["http"]),
    ("tower_http", &["http"]),
    ("opentelemetry", &["spans"]),
    ("opentelemetry_http", &["spans"]),
    ("opentelemetry_otlp", &["spans"]),
    ("opentelemetry_sdk", &["spans"]),
    // To receivers, guarded, and to the operator's collector of traces.
    ("reqwest", &["webhook", "spans"]),
];

/// What rules must not depend on: I/O, the clock, chance.
const NOT_IN_DOMAIN: &[&str] = &[
    "tokio",
    "tokio_util",
    "SystemTime",
    "Instant",
    "rand",
    "async",
    "await",
];

/// Lines a file, at most: what is longer should be two.
const LINES: usize = 450;

struct Source {
    /// Below `src/`.
    path: String,
    text: String,
}

impl Source {
    /// The folder, or the file, below `src/`.
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// What the compiler reads, without strings and unit tests, line by line.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .map(|(at, line)| {
                let code: String = line.split('"').step_by(2).collect();
                let comment = code.find("//").unwrap_or(code.len());
                (at + 1, code[..comment].to_owned())
            })
    }

    /// What it does against the rules.
    fn violations(&self) -> Vec<String> {
        let room = self.room();
        let sees = SEES.iter().find(|(name, _)| *name == room);
        let mut found = Vec::new();
        for (line, code) in self.code() {
            let mut add = |what: String| found.push(format!("{}:{line} {what}", self.path));
            if let Some((_, sees)) = sees {
                for named in named_rooms(&code) {
                    if named != room && !sees.contains(&named) {
                        add(format!("names crate::{named}"));
                    }
                }
            }
            let words: BTreeSet<&str> = code
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .collect();
            for (library, knows) in KNOWS {
                if words.contains(library) && !knows.contains(&room) {
                    add(format!("knows {library}"));
                }
            }
            if room == "domain" {
                for word in NOT_IN_DOMAIN {
                    if words.contains(word) {
                        add(format!("knows {word}"));
                    }
                }
            }
            if code.contains("tokio::spawn") || code.contains("task::spawn(") {
                add("spawns a task that nobody tracks".to_owned());
            }
        }
        let lines = self.text.lines().count();
        if lines > LINES {
            found.push(format!("{} has {lines} lines", self.path));
        }
        found
    }
}

/// The modules that a line of code names as `crate::module`; a list in braces
/// counts as a module that nobody may see.
fn named_rooms(code: &str) -> Vec<&str> {
    code.match_indices("crate::")
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(|(at, path)| {
            let rest = &code[at + path.len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if end == 0 { rest } else { &rest[..end] }
        })
        .collect()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files
        .into_iter()
        .map(|file| Source {
            path: file
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            text: std::fs::read_to_string(&file).unwrap(),
        })
        .collect()
}

#[test]
fn the_rooms_are_kept_apart() {
    let sources = sources();
    for (room, _) in SEES {
        assert!(
            sources.iter().any(|source| source.room() == *room),
            "there is no {room} any more"
        );
    }
    let violations: Vec<String> = sources.iter().flat_map(Source::violations).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// What is made from a secret: who shows one must not hear from the time that an
/// answer takes how much of it is right.
const SECRET: [&str; 6] = ["hash", "mac", "digest", "signature", "secret", "SIGNED"];

/// A line of code that compares such a thing the short way.
fn compares_a_secret(code: &str) -> bool {
    let is_compared = ["==", "!=", ".eq(", ".ne(", ".cmp(", ".starts_with("]
        .iter()
        .any(|how| code.contains(how));
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    is_compared && words.any(|word| SECRET.contains(&word))
}

#[test]
fn what_is_made_from_a_secret_is_compared_in_constant_time() {
    let sources = sources();
    for (path, verify) in [
        ("domain/api_key.rs", ".verify_slice("),
        ("domain/receipt.rs", ".verify_truncated_left("),
        ("domain/request.rs", ".verify_truncated_left("),
    ] {
        let source = sources.iter().find(|source| source.path == path).unwrap();
        let verified = source.code().filter(|(_, code)| code.contains(verify));
        assert_eq!(verified.count(), 1, "{path}: {verify}");
    }
    for source in &sources {
        for (line, code) in source.code() {
            // Of a payload, whom it was sent by.
            let is_digest = source.path == "store/idempotency.rs";
            let found = compares_a_secret(&code) && !is_digest;
            assert!(!found, "{}:{line} compares in haste: {code}", source.path);
        }
    }
    for (code, expected) in [
        ("if hash == known.hash {", true),
        ("mac[..8] != bytes[SIGNED..]", true),
        ("bytes[SIGNED..].eq(&mac)", true),
        ("if length != LENGTH {", false),
        ("self.mac(key.id).verify_slice(hash).is_ok()", false),
    ] {
        assert_eq!(compares_a_secret(code), expected, "{code}");
    }
}

#[test]
fn each_rule_finds_what_is_against_it() {
    let long = "\n".repeat(LINES + 1);
    for (path, text, expected) in [
        ("domain/id.rs", "use crate::store::Store;", 1),
        ("domain/id.rs", "use super::name;\nuse std::fmt;", 0),
        ("domain/id.rs", "use std::time::{Duration, SystemTime};", 1),
        ("domain/id.rs", "async fn f() {}\nuse tokio::time;", 2),
        ("store/ack.rs", "use crate::batch::Broker;", 1),
        (
            "store/ack.rs",
            "use crate::domain::Lease; use sqlx::Row;",
            0,
        ),
        ("batch/mod.rs", "let x = sqlx::query(y);", 1),
        ("batch/mod.rs", "let url = \"https://sqlx.rs\"; // sqlx", 0),
        ("batch/mod.rs", "use crate::{domain, http};", 1),
        ("http/ack.rs", "fn f() -> crate::workers::X {}", 1),
        ("workers/mod.rs", "use axum::Router;", 1),
        ("workers/mod.rs", "pub(crate) fn f() {} // crate::http", 0),
        ("webhook/pusher.rs", "use crate::store::Store;", 1),
        (
            "webhook/pusher.rs",
            "use crate::domain::sign; use reqwest::Client;",
            0,
        ),
        ("workers/push.rs", "use reqwest::Client;", 1),
        ("app.rs", "use crate::http; tokio::spawn(x);", 1),
        ("batch/due.rs", "#[cfg(test)]\nuse sqlx::Row;", 0),
        ("batch/due.rs", &long, 1),
    ] {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = source.violations();
        assert_eq!(found.len(), expected, "{path} {text}: {found:?}");
    }
}
