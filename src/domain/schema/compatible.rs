//! Whether all that one version of a schema lets in, another lets in too: rules
//! over keywords, each of them sound, so that what they call compatible is. What
//! they cannot prove counts as broken. The table of rules is in the README.
//!
//! [`contains`] asks of every keyword of the new version whether the old one's
//! keywords already made sure of it. They are those that the Confluent Schema
//! Registry has for JSON Schema, without the lenient ones: there, too, a property
//! that is added to an object which may have any is not backward compatible.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::error::Invalid;
use super::document::{Document, Draft, Node};
use super::numbers::{bounds, is_multiple, size};
use super::shape::{Old, Types, are_disjoint, required};

/// How many pairs of schemas are looked at: alternatives multiply.
const MAX_STEPS: usize = 50_000;

/// What of `old` the `new` one may refuse, as pointers into the new one; empty: it
/// lets in all that the old one did.
pub(super) fn contains(old: &Document, new: &Document) -> Vec<Invalid> {
    if old.draft != new.draft {
        return vec![Invalid {
            pointer: "/$schema".to_owned(),
            detail: "is another draft than before: keywords mean other things there".to_owned(),
        }];
    }
    let mut prover = Prover { steps: 0 };
    let mut found = prover.broken(&Old::of(old.node()), &new.node());
    if prover.steps > MAX_STEPS {
        return vec![Invalid {
            pointer: String::new(),
            detail: "has too many alternatives to be compared with the version before".to_owned(),
        }];
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|broken| seen.insert(broken.pointer.clone()));
    found
}

pub(super) struct Prover {
    steps: usize,
}

/// What is broken.
pub(super) type Broken = Vec<Invalid>;

fn at(node: &Node<'_>, keyword: &str, detail: impl Into<String>) -> Invalid {
    Invalid {
        pointer: format!("{}/{keyword}", node.at),
        detail: detail.into(),
    }
}

impl Prover {
    /// What of the old one the new one may refuse.
    pub(super) fn broken(&mut self, old: &Old<'_>, new: &Node<'_>) -> Broken {
        self.steps += 1;
        if old.is_nothing() || new.value == &Value::Bool(true) {
            return Vec::new();
        }
        if self.steps > MAX_STEPS {
            return vec![at(new, "", "too many alternatives")];
        }
        if old.parts.iter().any(|part| self.same(part, new)) {
            return Vec::new();
        }
        let found = if new.value == &Value::Bool(false) {
            vec![Invalid {
                pointer: new.at.clone(),
                detail: "allows no value, and one was allowed before".to_owned(),
            }]
        } else {
            self.by_keywords(old, new)
        };
        if found.is_empty() || self.holds_for_each(old, new) {
            return Vec::new();
        }
        found
    }

    /// Whether it holds for each alternative of the old one by itself.
    fn holds_for_each(&mut self, old: &Old<'_>, new: &Node<'_>) -> bool {
        for (place, union) in old.unions.iter().enumerate() {
            let mut rest = old.clone();
            rest.unions.remove(place);
            let mut alternatives = union.iter();
            if alternatives.all(|one| self.broken(&rest.clone().with(one.clone()), new).is_empty())
            {
                return true;
            }
        }
        let types = old.types().each();
        types.len() > 1
            && (new.get("anyOf").is_some() || new.get("oneOf").is_some())
            && types
                .into_iter()
                .all(|one| self.broken(&old.clone().only(one), new).is_empty())
    }

    /// Whether two schemas are the same, and what they refer to as well.
    fn same(&mut self, a: &Node<'_>, b: &Node<'_>) -> bool {
        a.value == b.value && self.refer_to_the_same(a, b)
    }

    fn refer_to_the_same(&mut self, a: &Node<'_>, b: &Node<'_>) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return false;
        }
        let targets = match (a.target(), b.target()) {
            (Ok(None), Ok(None)) => true,
            (Ok(Some(a)), Ok(Some(b))) => self.same(&a, &b),
            _ => false,
        };
        let (below_a, below_b) = (a.children(), b.children());
        targets
            && below_a.len() == below_b.len()
            && below_a
                .iter()
                .zip(&below_b)
                .all(|(a, b)| self.refer_to_the_same(a, b))
    }

    fn all_same(&mut self, a: &[Node<'_>], b: &[Node<'_>]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b))
    }

    fn by_keywords(&mut self, old: &Old<'_>, new: &Node<'_>) -> Broken {
        let mut found = Vec::new();
        match new.target() {
            Ok(Some(target)) => found.extend(self.broken(old, &target)),
            Ok(None) => {}
            Err(_) => found.push(at(new, "$ref", "leads nowhere")),
        }
        values(old, new, &mut found);
        if old.types().meets(Types::NUMBER) {
            numbers(old, new, &mut found);
        }
        if old.types().meets(Types::STRING) {
            strings(old, new, &mut found);
        }
        if old.types().meets(Types::ARRAY) {
            self.arrays(old, new, &mut found);
        }
        if old.types().meets(Types::OBJECT) {
            self.objects(old, new, &mut found);
        }
        self.logic(old, new, &mut found);
        found
    }

    fn logic(&mut self, old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
        for part in new.list("allOf").unwrap_or_default() {
            found.extend(self.broken(old, &part));
        }
        if let Some(branches) = new.list("anyOf")
            && !self.one_holds(old, &branches)
        {
            let detail = "no alternative is known to allow all that was allowed before";
            found.push(at(new, "anyOf", detail));
        }
        if let Some(branches) = new.list("oneOf") {
            let are_apart = branches.iter().enumerate().all(|(place, one)| {
                branches[place + 1..]
                    .iter()
                    .all(|other| are_disjoint(one, other))
            });
            let holds = if are_apart {
                self.one_holds(old, &branches)
            } else {
                old.parts.iter().any(|part| {
                    let before = part.list("oneOf");
                    before.is_some_and(|before| self.all_same(&before, &branches))
                })
            };
            if !holds {
                let detail = if are_apart {
                    "no alternative is known to allow all that was allowed before"
                } else {
                    "has changed, and more than one alternative may match: use anyOf, or a \
                     required property with another const in each"
                };
                found.push(at(new, "oneOf", detail));
            }
        }
        if let Some(not) = new.child("not") {
            let is_apart = !old.types().meets(Old::of(not.clone()).types());
            let holds = is_apart
                || old.parts.iter().any(|part| {
                    part.child("not").is_some_and(|before| {
                        self.broken(&Old::of(not.clone()), &before).is_empty()
                    })
                });
            if !holds {
                found.push(at(new, "not", "may refuse what was allowed before"));
            }
        }
        let of_if = ["if", "then", "else"];
        if new.get("if").is_some()
            && (new.get("then").is_some() || new.get("else").is_some())
            && !old.parts.iter().any(|part| {
                of_if
                    .iter()
                    .all(|keyword| match (part.child(keyword), new.child(keyword)) {
                        (None, None) => true,
                        (Some(before), Some(now)) => self.same(&before, &now),
                        _ => false,
                    })
            })
        {
            found.push(at(
                new,
                "if",
                "is not as it was: what it allows is not compared",
            ));
        }
        for keyword in ["unevaluatedItems", "unevaluatedProperties"] {
            if new
                .get(keyword)
                .is_some_and(|value| value != &Value::Bool(true))
            {
                let detail = "what it allows is not compared, and the schema beside it has changed";
                found.push(at(new, keyword, detail));
            }
        }
    }

    fn one_holds(&mut self, old: &Old<'_>, branches: &[Node<'_>]) -> bool {
        branches
            .iter()
            .any(|branch| self.broken(old, branch).is_empty())
    }

    fn arrays(&mut self, old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
        sizes(old, new, ["minItems", "maxItems"], found);
        let longest = old.at_most("maxItems");
        if new.get("uniqueItems") == Some(&Value::Bool(true))
            && longest.is_none_or(|longest| longest > 1)
            && !says(old, "uniqueItems", &Value::Bool(true))
        {
            found.push(at(new, "uniqueItems", "was not asked for before"));
        }
        let now = Items::of(new);
        let before: Vec<Items<'_>> = old.parts.iter().map(Items::of).collect();
        let most = before.iter().map(|items| items.tuple.len()).max();
        let fixed = now.tuple.len().max(most.unwrap_or(0));
        // What stands at a place, and then what stands behind all of them.
        for place in 0..=fixed {
            let beyond = longest.is_some_and(|longest| longest <= place as u64);
            if let Some(new) = now.at(place)
                && !beyond
            {
                let old = Old::of_all(before.iter().filter_map(|items| items.at(place).cloned()));
                found.extend(self.broken(&old, new));
            }
        }
        if let Some(contains) = new.child("contains") {
            let (least, most) = (
                size(new, "minContains").unwrap_or(1),
                size(new, "maxContains"),
            );
            let holds = (least == 0 && most.is_none())
                || old.parts.iter().any(|part| {
                    let Some(before) = part.child("contains") else {
                        return false;
                    };
                    size(part, "minContains").unwrap_or(1) >= least
                        && match most {
                            None => self.broken(&Old::of(before), &contains).is_empty(),
                            Some(most) => {
                                size(part, "maxContains").is_some_and(|before| before <= most)
                                    && self.same(&before, &contains)
                            }
                        }
                });
            if !holds {
                found.push(at(new, "contains", "was not asked for before"));
            }
        }
    }
}

/// The schemas of an array's items.
struct Items<'a> {
    tuple: Vec<Node<'a>>,
    rest: Option<Node<'a>>,
}

impl<'a> Items<'a> {
    fn of(node: &Node<'a>) -> Self {
        let one_schema = |keyword| node.child(keyword).filter(|child| !child.value.is_array());
        if node.document.draft == Draft::Y2020 {
            return Self {
                tuple: node.list("prefixItems").unwrap_or_default(),
                rest: one_schema("items"),
            };
        }
        match node.list("items") {
            Some(tuple) => Self {
                tuple,
                rest: one_schema("additionalItems"),
            },
            None => Self {
                tuple: Vec::new(),
                rest: one_schema("items"),
            },
        }
    }

    fn at(&self, place: usize) -> Option<&Node<'a>> {
        self.tuple.get(place).or(self.rest.as_ref())
    }
}

/// Whether the old one says the same.
fn says(old: &Old<'_>, keyword: &str, value: &Value) -> bool {
    old.parts
        .iter()
        .any(|part| part.get(keyword) == Some(value))
}

fn values(old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
    if let Some(types) = new.get("type") {
        let gone = old.types().without(Types::said(types));
        if !gone.is_empty() {
            let detail = format!("no longer allows {}", gone.names());
            found.push(at(new, "type", detail));
        }
    }
    let allowed = [
        ("const", new.get("const").map(std::slice::from_ref)),
        (
            "enum",
            new.get("enum").and_then(Value::as_array).map(Vec::as_slice),
        ),
    ];
    for (keyword, allowed) in allowed {
        if let Some(allowed) = allowed {
            let before = old.values();
            let holds =
                before.is_some_and(|before| before.iter().all(|value| allowed.contains(value)));
            if !holds {
                let detail = "does not list every value that was allowed before";
                found.push(at(new, keyword, detail));
            }
        }
    }
}

fn numbers(old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
    for (keywords, tighter) in [
        (["minimum", "exclusiveMinimum"], Ordering::Greater),
        (["maximum", "exclusiveMaximum"], Ordering::Less),
    ] {
        for bound in bounds(new, keywords) {
            let mut before = old.parts.iter().flat_map(|part| bounds(part, keywords));
            if !before.any(|before| bound.follows_from(&before, tighter)) {
                found.push(at(new, bound.keyword, "is tighter than before"));
            }
        }
    }
    if let Some(of) = new.get("multipleOf") {
        let mut before = old.parts.iter().filter_map(|part| part.get("multipleOf"));
        if !before.any(|before| is_multiple(before, of)) {
            let detail = "allows numbers that are not multiples of what it was before no more";
            found.push(at(new, "multipleOf", detail));
        }
    }
}

fn strings(old: &Old<'_>, new: &Node<'_>, found: &mut Broken) {
    sizes(old, new, ["minLength", "maxLength"], found);
    for keyword in ["pattern", "format", "contentEncoding", "contentMediaType"] {
        if let Some(value) = new.get(keyword)
            && !says(old, keyword, value)
        {
            found.push(at(new, keyword, "was another before, or none"));
        }
    }
}

/// A lower and an upper bound on lengths.
pub(super) fn sizes(old: &Old<'_>, new: &Node<'_>, keywords: [&str; 2], found: &mut Broken) {
    let [least, most] = keywords;
    let names = match least {
        // Names that are required are there.
        "minProperties" => {
            let mut names: Vec<&str> = old.parts.iter().flat_map(required).collect();
            names.sort_unstable();
            names.dedup();
            names.len() as u64
        }
        _ => 0,
    };
    if size(new, least).is_some_and(|now| now > old.at_least(least).max(names)) {
        found.push(at(new, least, "is more than before"));
    }
    if let Some(now) = size(new, most)
        && old.at_most(most).is_none_or(|before| before > now)
    {
        found.push(at(new, most, "is less than before"));
    }
    // A bound that is no number that can be compared.
    for keyword in keywords {
        if new.get(keyword).is_some() && size(new, keyword).is_none() {
            found.push(at(new, keyword, "cannot be compared"));
        }
    }
}
