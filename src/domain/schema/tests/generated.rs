//! Schemas, what edits make of them, and values, as chance has it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Compatibility, Schema};

/// Decisions one after the other; those that are not there are the first.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, bound: u8) -> u8 {
        self.0.next().map_or(0, |choice| choice % bound)
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::from(self.below(u8::try_from(all.len()).unwrap()))].clone()
    }
}

const NAMES: [&str; 3] = ["a", "b", "ab"];

fn number(choices: &mut Choices<'_>) -> Value {
    choices.of(&[
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(1.5),
        json!(1.0),
        json!(-1),
    ])
}

fn value(choices: &mut Choices<'_>, depth: u8) -> Value {
    match choices.below(if depth == 0 { 4 } else { 8 }) {
        0 => json!(null),
        1 => json!(choices.below(2) == 0),
        2 => number(choices),
        3 => json!(choices.of(&["", "a", "b", "ab", "aaa", "2026-01-01"])),
        4 | 5 => (0..choices.below(4))
            .map(|_| value(choices, depth - 1))
            .collect(),
        _ => {
            let mut object = serde_json::Map::new();
            for _ in 0..choices.below(4) {
                object.insert(choices.of(&NAMES).to_owned(), value(choices, depth - 1));
            }
            object.into()
        }
    }
}

/// One keyword and what it says.
fn keyword(choices: &mut Choices<'_>, depth: u8) -> (&'static str, Value) {
    let size = |choices: &mut Choices<'_>| json!(choices.below(4));
    let kinds = [
        "null", "boolean", "integer", "number", "string", "array", "object",
    ];
    match choices.below(if depth == 0 { 17 } else { 37 }) {
        0 | 1 => ("type", json!(choices.of(&kinds))),
        2 => (
            "type",
            json!([choices.of(&kinds[..4]), choices.of(&kinds[4..])]),
        ),
        3 => (
            "enum",
            (0..=choices.below(3)).map(|_| value(choices, 1)).collect(),
        ),
        4 => ("const", value(choices, 1)),
        5 => ("minimum", number(choices)),
        6 => ("maximum", number(choices)),
        7 => ("exclusiveMinimum", number(choices)),
        8 => ("exclusiveMaximum", number(choices)),
        9 => (
            "multipleOf",
            choices.of(&[json!(1), json!(2), json!(0.5), json!(4)]),
        ),
        10 => (choices.of(&["minLength", "maxLength"]), size(choices)),
        11 => ("pattern", json!(choices.of(&["^a", "b$", "^a*$"]))),
        12 => ("format", json!("date")),
        13 => (choices.of(&["minItems", "maxItems"]), size(choices)),
        14 => ("uniqueItems", json!(true)),
        15 => (
            choices.of(&["minProperties", "maxProperties"]),
            size(choices),
        ),
        16 => ("required", json!([choices.of(&NAMES)])),
        17..=20 => ("properties", named(choices, depth, &NAMES)),
        21 => ("patternProperties", named(choices, depth, &["^a", "b$"])),
        22 | 23 => ("additionalProperties", schema(choices, depth - 1)),
        24 => ("propertyNames", schema(choices, 0)),
        25 => (
            "dependentRequired",
            json!({choices.of(&NAMES): [choices.of(&NAMES)]}),
        ),
        26 => ("dependentSchemas", named(choices, depth, &NAMES)),
        27 => ("items", schema(choices, depth - 1)),
        28 => ("prefixItems", list(choices, depth)),
        29 => ("contains", schema(choices, depth - 1)),
        30 => (choices.of(&["minContains", "maxContains"]), size(choices)),
        31 => ("allOf", list(choices, depth)),
        32 => ("anyOf", list(choices, depth)),
        33 => ("oneOf", list(choices, depth)),
        34 => ("not", schema(choices, depth - 1)),
        35 => (
            choices.of(&["if", "then", "else"]),
            schema(choices, depth - 1),
        ),
        _ => (
            choices.of(&["unevaluatedProperties", "unevaluatedItems"]),
            json!(false),
        ),
    }
}

fn named(choices: &mut Choices<'_>, depth: u8, names: &[&str]) -> Value {
    let mut map = serde_json::Map::new();
    for _ in 0..=choices.below(2) {
        map.insert(choices.of(names).to_owned(), schema(choices, depth - 1));
    }
    map.into()
}

fn list(choices: &mut Choices<'_>, depth: u8) -> Value {
    (0..=choices.below(3))
        .map(|_| schema(choices, depth - 1))
        .collect()
}

fn schema(choices: &mut Choices<'_>, depth: u8) -> Value {
    match choices.below(12) {
        0 => return json!(true),
        1 => return json!(false),
        2 => return json!({"$ref": "#/$defs/d"}),
        _ => {}
    }
    let mut object = serde_json::Map::new();
    for _ in 0..choices.below(4) {
        let (name, says) = keyword(choices, depth);
        object.insert(name.to_owned(), says);
    }
    object.into()
}

/// A schema that is like another: some of it is left out, put in or other.
fn edited(old: &Value, choices: &mut Choices<'_>, depth: u8) -> Value {
    match old {
        Value::Object(map) => {
            let mut new = serde_json::Map::new();
            for (name, inner) in map {
                match choices.below(10) {
                    0 => {}
                    1..=4 => {
                        new.insert(
                            name.clone(),
                            edited(inner, choices, depth.saturating_sub(1)),
                        );
                    }
                    _ => {
                        new.insert(name.clone(), inner.clone());
                    }
                }
            }
            if choices.below(6) == 5 {
                let (name, says) = keyword(choices, depth.min(1));
                new.insert(name.to_owned(), says);
            }
            new.into()
        }
        Value::Array(list) => {
            let mut new: Vec<Value> = list
                .iter()
                .map(|inner| edited(inner, choices, depth.saturating_sub(1)))
                .collect();
            match choices.below(6) {
                4 if new.len() > 1 => {
                    new.pop();
                }
                5 if !list.is_empty() => new.push(list[0].clone()),
                _ => {}
            }
            new.into()
        }
        Value::Number(_) if choices.below(3) == 2 => number(choices),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES")
            .ok()
            .and_then(|cases| cases.parse().ok())
            .unwrap_or(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The promise of every rule, and of all of them together.
    #[test]
    fn what_is_called_compatible_lets_in_all_that_was_let_in(
        choices in prop::collection::vec(any::<u8>(), 20..120),
        edits in prop::collection::vec(any::<u8>(), 0..40),
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 60),
        likewise in any::<bool>(),
        draft_seven in any::<bool>(),
    ) {
        let mut choices = Choices(choices.iter());
        let whole = |body: Value, definition: Value| {
            let mut schema = match body {
                Value::Object(map) => map,
                other => serde_json::Map::from_iter([("not".to_owned(), json!({"not": other}))]),
            };
            if draft_seven {
                let uri = "http://json-schema.org/draft-07/schema#";
                schema.insert("$schema".to_owned(), json!(uri));
            }
            schema.insert("$defs".to_owned(), json!({"d": definition}));
            Value::Object(schema)
        };
        let definition = (schema(&mut choices, 0), schema(&mut choices, 0));
        let old = schema(&mut choices, 2);
        let new = if likewise {
            edited(&old, &mut Choices(edits.iter()), 2)
        } else {
            schema(&mut choices, 2)
        };
        let old = whole(old, definition.0.clone());
        let new = whole(new, if likewise { definition.0 } else { definition.1 });
        let (Ok(before), Ok(after)) = (Schema::compile(&old), Schema::compile(&new)) else {
            return Ok(());
        };
        if after.incompatibilities(&before, Compatibility::Backward).is_empty() {
            for choices in values {
                let value = value(&mut Choices(choices.iter()), 2);
                if before.check(&value, 1).is_ok() {
                    prop_assert!(
                        after.check(&value, 1).is_ok(),
                        "{value} is let in by {old} and not by {new}"
                    );
                }
            }
        }
    }
}
