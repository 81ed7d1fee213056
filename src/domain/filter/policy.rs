//! What a filter asks of a message's body: an [Amazon SNS filter policy on the
//! payload][sns].
//!
//! Each key of the policy names a key of the body; its value is an array of
//! conditions, of which one must be met, or an object with such keys for the
//! object there. All keys must match; keys of the body that the policy does not
//! name do not matter. Where SNS's documentation leaves a choice:
//!
//! - An array in the body stands for its elements, and one that matches is
//!   enough, for `anything-but` too (`["rugby", "tennis"]` is anything but
//!   rugby: that is SNS's own example). Of an array of objects, one object must
//!   match all keys below; SNS's own engine calls it array consistency.
//! - A missing key, an empty array, and an object where the policy wants a value
//!   meet `{"exists": false}` and nothing else, not even `anything-but`: what
//!   exists are the leaves. `{"exists": true}` is met by a value that is neither
//!   null nor the empty string.
//! - `anything-but` is met by a value of another type, null among them.
//! - Numbers are compared by value, see [`super::number`]; `numeric` takes no
//!   strings for numbers, and there is no bound on their size.
//! - Case is ignored character by character (Unicode's simple lower case).
//!
//! Bounds, so that a publish costs little however many subscriptions there are:
//! [`DEPTH`], [`CONDITIONS`], [`KEY`], [`TEXT`]. `$or`, `wildcard` and `cidr`
//! are not supported.
//!
//! [sns]: https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html

use serde_json::Value;

use super::super::error::quoted;
use super::condition::Condition;
use super::{Mismatch, escaped};

/// Objects in one another, the policy itself included.
pub(super) const DEPTH: usize = 5;
/// Values and conditions in a policy; each value of an `anything-but` counts.
pub(super) const CONDITIONS: usize = 150;
/// Bytes of a key.
pub(super) const KEY: usize = 256;
/// Bytes of a string to compare with.
pub(super) const TEXT: usize = 1024;

/// The conditions that a mismatch names before it only counts them.
const NAMED: usize = 3;

/// Keys that must all match.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Policy(pub(super) Vec<(String, Node)>);

/// What a key must have.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// A value that meets one of these.
    OneOf(Vec<Condition>),
    /// An object that matches.
    Object(Policy),
}

impl Policy {
    /// Whether what the body has here matches; `None` if it has nothing.
    pub(super) fn matches(&self, found: Option<&Value>) -> bool {
        match found {
            Some(Value::Array(elements)) if !elements.is_empty() => {
                elements.iter().any(|element| self.matches(Some(element)))
            }
            found => self.0.iter().all(|(key, node)| {
                let found = found.and_then(|found| found.get(key));
                match node {
                    Node::OneOf(conditions) => is_met(conditions, found),
                    Node::Object(policy) => policy.matches(found),
                }
            }),
        }
    }

    /// Adds each key that does not match to `into`; `at` is this policy's place
    /// in the filter.
    pub(super) fn explain(&self, found: Option<&Value>, at: &str, into: &mut Vec<Mismatch>) {
        match found {
            Some(Value::Array(elements)) if elements.len() == 1 => {
                self.explain(elements.first(), at, into);
            }
            Some(Value::Array(elements)) if elements.len() > 1 => {
                if !self.matches(found) {
                    into.push(Mismatch {
                        part: at.to_owned(),
                        detail: format!(
                            "it is an array of {}, of which one should match all keys below",
                            elements.len()
                        ),
                    });
                }
            }
            found => {
                for (key, node) in &self.0 {
                    let found = found.and_then(|found| found.get(key));
                    let at = format!("{at}/{}", escaped(key));
                    match node {
                        Node::Object(policy) => policy.explain(found, &at, into),
                        Node::OneOf(conditions) if is_met(conditions, found) => {}
                        Node::OneOf(conditions) => into.push(Mismatch {
                            part: at,
                            detail: format!("{} {}", described(found), wished(conditions)),
                        }),
                    }
                }
            }
        }
    }
}

fn is_met(conditions: &[Condition], found: Option<&Value>) -> bool {
    let mut values = Vec::new();
    leaves(found, &mut values);
    conditions
        .iter()
        .any(|condition| condition.is_met_by(&values))
}

/// The values at a key: those of an array, the one, or none.
fn leaves<'a>(found: Option<&'a Value>, into: &mut Vec<&'a Value>) {
    match found {
        None | Some(Value::Object(_)) => {}
        Some(Value::Array(elements)) => {
            for element in elements {
                leaves(Some(element), into);
            }
        }
        Some(value) => into.push(value),
    }
}

/// What is there, and the beginning of what should be.
fn described(found: Option<&Value>) -> String {
    match found {
        None => "it is missing and should".to_owned(),
        Some(Value::String(text)) => format!("it is {} and should", quoted(text)),
        Some(Value::Object(_)) => "it is an object, not a value, and should".to_owned(),
        Some(Value::Array(elements)) => {
            format!("it is an array of {}, of which one should", elements.len())
        }
        Some(value) => format!("it is {value} and should"),
    }
}

fn wished(conditions: &[Condition]) -> String {
    let named: Vec<String> = conditions
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let named = named.join(", or ");
    match conditions.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}, or meet one of {more} more conditions"),
    }
}
