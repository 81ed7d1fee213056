//! Whether an object that one version lets in, another lets in too.
//!
//! Each name that an object may have falls to `properties`, else to
//! `patternProperties` or to `additionalProperties`. Patterns are compared by their
//! text: of which names match, nothing is known, so what stands behind a pattern is
//! one of several alternatives.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::error::Invalid;
use super::compatible::{Broken, Prover, sizes};
use super::document::Node;
use super::shape::{Old, Types, required};

fn at(node: &Node<'_>, keyword: &str, detail: impl Into<String>) -> Invalid {
    Invalid {
        pointer: format!("{}/{keyword}", node.at),
        detail: detail.into(),
    }
}

/// What a part of the old version says of a name that its `properties` do not have.
/// Patterns of `skipped` do not match it.
fn others<'a>(old: Old<'a>, part: &Node<'a>, skipped: &[&str]) -> Old<'a> {
    let additional = part.child("additionalProperties");
    let patterns = part.named("patternProperties");
    if patterns.is_empty() {
        return match additional {
            Some(additional) => old.with(additional),
            None => old,
        };
    }
    let Some(additional) = additional else {
        // It may match none, and is anything then.
        return old;
    };
    let mut union: Vec<Node<'a>> = patterns
        .into_iter()
        .filter(|(pattern, _)| !skipped.contains(pattern))
        .map(|(_, node)| node)
        .collect();
    union.push(additional);
    old.with_union(union)
}

/// What the old version says of a name.
fn of_name<'a>(old: &Old<'a>, name: &str) -> Old<'a> {
    old.parts.iter().fold(Old::any(), |all, part| {
        let properties = part.named("properties");
        match properties.into_iter().find(|(known, _)| *known == name) {
            Some((_, node)) => all.with(node),
            None => others(all, part, &[]),
        }
    })
}

/// What the old version says of all names that it does not name.
fn of_others<'a>(old: &Old<'a>, skipped: &[&str]) -> Old<'a> {
    let parts = old.parts.iter();
    parts.fold(Old::any(), |all, part| others(all, part, skipped))
}

impl Prover {
    pub(super) fn objects(&mut self, old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
        sizes(old, new, ["minProperties", "maxProperties"], found);
        for (place, name) in required(new).into_iter().enumerate() {
            if !old.requires(name) {
                let keyword = format!("required/{place}");
                found.push(at(new, &keyword, "was not required before"));
            }
        }
        self.properties(old, new, found);
        if let Some(names) = new.child("propertyNames") {
            let before = old
                .parts
                .iter()
                .filter_map(|part| part.child("propertyNames"));
            let before = Old::of_all(before).only(Types::STRING);
            found.extend(self.broken(&before, &names));
        }
        self.dependencies(old, new, found);
    }

    fn properties(&mut self, old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
        let known: BTreeSet<&str> = old
            .parts
            .iter()
            .flat_map(|part| part.named("properties"))
            .map(|(name, _)| name)
            .collect();
        let properties = new.named("properties");
        for (name, node) in &properties {
            let broken = self.broken(&of_name(old, name), node);
            if broken.is_empty() || known.contains(name) {
                found.extend(broken);
            } else {
                found.push(Invalid {
                    pointer: node.at.clone(),
                    detail: "is new, and the version before let in properties that it did not \
                             name: messages may have this one with any value"
                        .to_owned(),
                });
            }
        }
        let patterns = new.named("patternProperties");
        for (pattern, node) in &patterns {
            let before = old
                .parts
                .iter()
                .flat_map(|part| part.named("patternProperties"));
            let same = before.filter(|(before, _)| before == pattern);
            let same = Old::of_all(same.map(|(_, node)| node));
            if !same.parts.is_empty() && self.broken(&same, node).is_empty() {
                continue;
            }
            for name in &known {
                found.extend(self.broken(&of_name(old, name), node));
            }
            found.extend(self.broken(&of_others(old, &[]), node));
        }
        if let Some(rest) = new.child("additionalProperties") {
            let skipped: Vec<&str> = patterns.iter().map(|(pattern, _)| *pattern).collect();
            let gone = known
                .iter()
                .filter(|name| properties.iter().all(|(now, _)| now != *name));
            for name in gone {
                if !self.broken(&of_name(old, name), &rest).is_empty() {
                    found.push(Invalid {
                        pointer: rest.at.clone(),
                        detail: format!(
                            "refuses the property {}, which was allowed before",
                            super::super::error::quoted(name)
                        ),
                    });
                }
            }
            let broken = self.broken(&of_others(old, &skipped), &rest);
            if rest.value == &Value::Bool(false) && !broken.is_empty() {
                found.push(Invalid {
                    pointer: rest.at.clone(),
                    detail: "closes an object that might have any property before".to_owned(),
                });
            } else {
                found.extend(broken);
            }
        }
    }

    fn dependencies(&mut self, old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
        for keyword in ["dependentRequired", "dependencies", "dependentSchemas"] {
            for (name, node) in new.named(keyword) {
                let before: Vec<Node<'_>> = old
                    .parts
                    .iter()
                    .flat_map(|part| part.named(keyword))
                    .filter(|(before, _)| *before == name)
                    .map(|(_, node)| node)
                    .collect();
                let holds = if let Some(names) = node.value.as_array() {
                    let listed = |wanted: &Value| {
                        let mut lists = before.iter().filter_map(|node| node.value.as_array());
                        lists.any(|list| list.contains(wanted))
                    };
                    names.iter().all(|wanted| {
                        listed(wanted) || wanted.as_str().is_some_and(|name| old.requires(name))
                    })
                } else {
                    let schemas = before.into_iter().filter(|node| !node.value.is_array());
                    let together = schemas.fold(old.clone(), Old::with);
                    self.broken(&together, &node).is_empty()
                };
                if !holds {
                    found.push(Invalid {
                        pointer: node.at,
                        detail: "asks for more than before".to_owned(),
                    });
                }
            }
        }
    }
}
