//! The key of a request, for endpoints that touch more than their path names.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::super::SharedGateway;
use super::super::operations::{Access, Kind};
use super::super::problem::Problem;
use super::Known;
use super::judge::{judge_claim, judge_named};
use crate::domain::{ClaimKey, QueueName, Verb};

/// Whose request it is: what an endpoint asks before it touches what the path
/// does not name.
#[derive(Clone)]
pub(crate) struct Caller(
    /// Without a key everything is allowed.
    Option<Arc<Known>>,
);

impl Caller {
    /// With this key.
    pub(in crate::http) fn new(key: Arc<Known>) -> Self {
        Self(Some(key))
    }

    /// The id of its key; empty without one.
    pub(crate) fn id(&self) -> &str {
        self.0.as_ref().map_or("", |known| known.id())
    }

    /// Refuses what the key may not do, as if there were no such queue if it
    /// does not see it.
    pub(crate) fn check_queue(&self, verb: Verb, name: &QueueName) -> Result<(), Problem> {
        self.check(verb, Kind::Queue, name)
    }

    /// The same for a topic.
    pub(crate) fn check_topic(&self, verb: Verb, name: &QueueName) -> Result<(), Problem> {
        self.check(verb, Kind::Topic, name)
    }

    /// Refuses to complete a claim that it may not take.
    pub(crate) fn check_claim(&self, key: &ClaimKey) -> Result<(), Problem> {
        match &self.0 {
            Some(known) => judge_claim(&known.key.scopes, key),
            None => Ok(()),
        }
    }

    fn check(&self, verb: Verb, kind: Kind, name: &QueueName) -> Result<(), Problem> {
        let Some(known) = &self.0 else {
            return Ok(());
        };
        let access = Access::Named(verb);
        judge_named(&known.key.scopes, access, kind, name, false)
    }

    /// Refuses to make the own queue of a subscription that it does not manage.
    pub(crate) fn check_own_queue(
        &self,
        topic: &QueueName,
        subscription: &QueueName,
    ) -> Result<(), Problem> {
        // What would be no name is refused where it is made.
        match QueueName::parse(&format!("{topic}.{subscription}"), "") {
            Ok(queue) => self
                .check_queue(Verb::Manage, &queue)
                .map_err(|_| Problem::scope_missing(&format!("manage:{queue}"))),
            Err(_) => Ok(()),
        }
    }

    /// The patterns of the names that it manages; `None` is all.
    pub(crate) fn managed_patterns(&self) -> Option<Vec<String>> {
        self.0
            .as_ref()
            .and_then(|known| known.key.scopes.patterns_of(Verb::Manage))
    }

    /// The patterns of the names that it sees; `None` is all.
    pub(crate) fn patterns(&self) -> Option<Vec<String>> {
        self.0
            .as_ref()
            .and_then(|known| known.key.scopes.patterns())
    }
}

impl FromRequestParts<SharedGateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &SharedGateway,
    ) -> Result<Self, Problem> {
        match parts.extensions.get::<Self>() {
            Some(caller) => Ok(caller.clone()),
            None if gateway.gate.required => Err(Problem::key_missing()),
            None => Ok(Self(None)),
        }
    }
}
