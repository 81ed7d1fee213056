//! All operations of the interface, by method and path, with what each needs of
//! an API key. Built from the `OpenAPI` document, so that neither can lack what
//! the other has.
//!
//! A request's operation is looked up once, before the router sees it: access,
//! metrics and spans go by it.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::http::Method;
use percent_encoding::percent_decode_str;
use utoipa::openapi::path::Operation as Described;
use utoipa::openapi::{OpenApi, PathItem, SecurityRequirement};

use super::openapi;
use crate::domain::Verb;

/// What makes the queue, topic or schedule that the path names.
const MAKERS: &[&str] = &["put_queue", "put_topic", "put_schedule"];

/// How the gateway is.
const HEALTH: &[&str] = &["livez", "readyz", "metrics"];

/// The hot paths.
const HOT: &[&str] = &[
    "publish",
    "publish_topic",
    "request",
    "reply_to_request",
    "receive",
    "ack",
    "nack",
    "extend",
];

/// What an operation needs of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// No key.
    Open,
    /// Any key; it is shown what that sees. What a transaction names it checks itself.
    Key,
    /// Any scope on the name in the path.
    Seen,
    /// A scope with this verb on the name in the path.
    Named(Verb),
    /// The verb `consume` on the name of the claim in the path.
    Claim,
    /// The scope `monitor`.
    Monitor,
    /// The scope `admin`.
    Admin,
}

/// Who may do what, on one page.
const ACCESS: &[(Access, &[&str])] = &[
    (Access::Open, &["livez", "readyz"]),
    // A reply is for whoever has the id and may publish to the request's queue.
    (
        Access::Key,
        &[
            "list_queues",
            "list_topics",
            "list_schedules",
            "get_reply",
            "transact",
        ],
    ),
    (
        Access::Seen,
        &[
            "get_queue",
            "get_queue_schema",
            "list_queue_schemas",
            "get_queue_schema_version",
            "get_topic",
            "get_topic_schema",
            "list_topic_schemas",
            "get_topic_schema_version",
        ],
    ),
    (
        Access::Named(Verb::Publish),
        &["publish", "publish_topic", "request"],
    ),
    (
        Access::Named(Verb::Consume),
        &[
            "receive",
            "reply_to_request",
            "ack",
            "nack",
            "extend",
            "list_messages",
            "get_message",
            "read_stream",
            "list_dead_letters",
            "list_blocked_keys",
            "get_dead_letter",
        ],
    ),
    (
        Access::Claim,
        &["take_claim", "complete_claim", "give_up_claim"],
    ),
    (
        Access::Named(Verb::Manage),
        &[
            "put_queue",
            "patch_queue",
            "delete_queue",
            "purge_queue",
            "unblock",
            "put_queue_schema",
            "delete_queue_schema",
            "delete_message",
            "redrive",
            "purge_dead_letters",
            "delete_dead_letter",
            "put_topic",
            "patch_topic",
            "delete_topic",
            "put_topic_schema",
            "delete_topic_schema",
            "explain",
            "list_subscriptions",
            "put_subscription",
            "patch_subscription",
            "get_subscription",
            "delete_subscription",
            "put_webhook",
            "patch_webhook",
            "get_webhook",
            "delete_webhook",
            "rotate_webhook_secret",
            "test_webhook",
            "pause_webhook",
            "resume_webhook",
            "list_webhook_attempts",
            "resend_webhook",
            "put_schedule",
            "patch_schedule",
            "get_schedule",
            "delete_schedule",
            "pause_schedule",
            "resume_schedule",
        ],
    ),
    (Access::Monitor, &["metrics", "storage_health"]),
    (
        Access::Admin,
        &[
            "create_key",
            "list_keys",
            "get_key",
            "delete_key",
            "rotate_key",
        ],
    ),
];

impl Access {
    /// Of the operation with this id; what nobody thought of is for admins.
    pub(super) fn of(operation_id: &str) -> Self {
        ACCESS
            .iter()
            .find(|(_, ids)| ids.contains(&operation_id))
            .map_or(Self::Admin, |(access, _)| *access)
    }

    /// What the document says of requests that are refused.
    pub(super) fn responses(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let unauthorized = ("401", "`key-missing`, `key-refused`");
        let forbidden = (
            "403",
            "`scope-missing`: the key lacks a scope that this needs",
        );
        let limited = ("429", "`rate-limited`");
        match self {
            Self::Open => vec![],
            Self::Key | Self::Seen => vec![unauthorized, limited],
            Self::Named(_) | Self::Claim | Self::Monitor | Self::Admin => {
                vec![unauthorized, forbidden, limited]
            }
        }
        .into_iter()
    }

    /// As the document says it: the scheme, and the scopes that are needed.
    pub(super) fn security(self) -> Vec<SecurityRequirement> {
        let scopes: &[&str] = match self {
            // An empty requirement: none.
            Self::Open => return vec![SecurityRequirement::default()],
            Self::Key | Self::Seen => &[],
            Self::Named(verb) => &[verb.as_str()],
            Self::Claim => &[Verb::Consume.as_str()],
            Self::Monitor => &["monitor"],
            Self::Admin => &["admin"],
        };
        vec![SecurityRequirement::new(
            openapi::KEY_SCHEME,
            scopes.to_vec(),
        )]
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its id in the document: the verb, such as `publish`.
    pub(super) id: &'static str,
    /// Its place in [`Operations::ids`].
    pub(super) index: usize,
    /// What it needs of a key.
    pub(super) access: Access,
    method: Method,
    hot: bool,
    /// Whether it makes what its path names.
    pub(super) makes: bool,
    /// Whether one sees by it how the gateway is: programs ask every few seconds,
    /// and are answered in any case.
    pub(super) is_about_health: bool,
}

impl Operation {
    /// Whether it goes by what its path names alone, and is asked for often.
    pub(super) fn is_hot(&self) -> bool {
        self.hot
    }
}

/// A request's operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'path> {
    pub(super) operation: &'static Operation,
    /// What the path names, as it stands there.
    name: Option<(Kind, &'path str)>,
}

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Queue,
    Topic,
    Claim,
    Schedule,
}

impl<'path> Found<'path> {
    /// What the path names; `None` if it names nothing, or not in UTF-8.
    pub(super) fn name(&self) -> Option<(Kind, Cow<'path, str>)> {
        let (kind, name) = self.name?;
        Some((kind, percent_decode_str(name).decode_utf8().ok()?))
    }
}

/// All operations.
pub(super) struct Operations {
    all: Vec<Operation>,
    /// By path: indices of the operations there.
    paths: matchit::Router<Vec<usize>>,
}

pub(super) static OPERATIONS: LazyLock<Operations> =
    LazyLock::new(|| Operations::of(&openapi::document()));

impl Operations {
    fn of(document: &OpenApi) -> Self {
        let (mut all, mut paths) = (Vec::new(), matchit::Router::new());
        for (path, item) in &document.paths.paths {
            let mut here = Vec::new();
            for (method, operation) in methods(item) {
                let id = operation.operation_id.clone().unwrap_or_default();
                here.push(all.len());
                all.push(Operation {
                    access: Access::of(&id),
                    hot: HOT.contains(&id.as_str()),
                    makes: MAKERS.contains(&id.as_str()),
                    is_about_health: HEALTH.contains(&id.as_str()),
                    // Once for each process.
                    id: id.leak(),
                    index: all.len(),
                    method,
                });
            }
            paths
                .insert(path.clone(), here)
                .expect("the router has taken this path, and goes by the same rules");
        }
        Self { all, paths }
    }

    /// The ids of all.
    pub(super) fn ids(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|operation| operation.id)
    }

    /// The operation that the router will choose for a request; `None` if it
    /// will refuse it.
    pub(super) fn find<'path>(
        &'static self,
        method: &Method,
        path: &'path str,
    ) -> Option<Found<'path>> {
        let found = self.paths.at(path).ok()?;
        // The router answers HEAD as it does GET.
        let method = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let operation = found
            .value
            .iter()
            .map(|index| &self.all[*index])
            .find(|operation| operation.method == *method)?;
        let param = |name, kind| found.params.get(name).map(|value| (kind, value));
        Some(Found {
            operation,
            name: param("queue", Kind::Queue)
                .or_else(|| param("topic", Kind::Topic))
                .or_else(|| param("schedule", Kind::Schedule))
                .or_else(|| param("key", Kind::Claim)),
        })
    }
}

/// The operations of a path.
fn methods(item: &PathItem) -> impl Iterator<Item = (Method, &Described)> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
        (Method::PATCH, &item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_stands_in_the_table_of_access_once() {
        let mut named: Vec<&str> = ACCESS
            .iter()
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect();
        named.sort_unstable();
        let mut there: Vec<&str> = OPERATIONS.all.iter().map(|o| o.id).collect();
        there.sort_unstable();
        assert_eq!(named, there);
    }

    #[test]
    fn operations_are_found_as_the_router_finds_them() {
        let found = OPERATIONS
            .find(&Method::HEAD, "/v1/queues/a%2Eb")
            .expect("there");
        assert_eq!(found.operation.id, "get_queue");
        assert_eq!(found.name(), Some((Kind::Queue, "a.b".into())));
        let found = OPERATIONS
            .find(&Method::PUT, "/v1/topics/t/subscriptions/s")
            .expect("there");
        assert_eq!(found.name(), Some((Kind::Topic, "t".into())));
        assert!(OPERATIONS.find(&Method::POST, "/v1/queues/a%2Eb").is_none());
        assert!(OPERATIONS.find(&Method::GET, "/v1/queues/").is_none());
    }
}
