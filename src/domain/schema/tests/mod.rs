mod generated;
mod rules;

use serde_json::{Value, json};

use super::Schema;
use crate::domain::error::Error;

fn compiled(schema: &Value) -> Schema {
    Schema::compile(schema).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn refusal(schema: &Value) -> (String, String) {
    match Schema::compile(schema) {
        Err(Error::Invalid(parts)) => (parts[0].pointer.clone(), parts[0].detail.clone()),
        other => panic!("{schema}: {other:?}"),
    }
}

#[test]
fn a_body_that_breaks_a_schema_is_told_where_and_not_repeated() {
    let schema = compiled(&json!({
        "type": "object", "required": ["id"], "additionalProperties": false,
        "properties": {"id": {"type": "string", "maxLength": 5}, "lines": {
            "type": "array", "items": {"type": "object", "properties": {"n~/": {"minimum": 1}}}}},
    }));
    assert_eq!(schema.check(&json!({"id": "a"}), 20), Ok(()));
    let long = "x".repeat(5000);
    let body = json!({"id": long, "lines": [{}, {"n~/": 0}], long.as_str(): 1});
    let found = schema.check(&body, 20).unwrap_err();
    let mut pointers: Vec<&str> = found.iter().map(|part| &*part.pointer).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["", "/id", "/lines/1/n~0~1"]);
    for part in &found {
        assert!(!part.detail.contains(&"x".repeat(101)), "{part:?}");
    }
    assert_eq!(schema.check(&body, 2).unwrap_err().len(), 2);
}

#[test]
fn formats_are_checked() {
    let schema = compiled(&json!({"format": "date-time"}));
    assert!(schema.check(&json!("2026-11-25T12:00:00Z"), 1).is_ok());
    assert!(schema.check(&json!("yesterday"), 1).is_err());
}

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    for (schema, pointer) in [
        (json!({"type": "sting"}), "/type"),
        (
            json!({"properties": {"a": {"minimum": "1"}}}),
            "/properties/a/minimum",
        ),
        (json!([]), ""),
        (json!("x"), ""),
        (json!({"$schema": "https://example.com/mine"}), "/$schema"),
        (json!({"$schema": 7}), "/$schema"),
        (
            json!({"properties": {"a": {"pattern": "("}}}),
            "/properties/a/pattern",
        ),
    ] {
        let (at, detail) = refusal(&schema);
        assert_eq!(at, pointer, "{schema}: {detail}");
    }
}

#[test]
fn what_could_take_the_gateway_down_is_refused() {
    let doubling = |levels: usize| {
        let mut defs = json!({"d0": {"minimum": 1}});
        for level in 1..=levels {
            let part = json!({"$ref": format!("#/$defs/d{}", level - 1)});
            defs[format!("d{level}")] = json!({"allOf": [part, part]});
        }
        json!({"$defs": defs, "$ref": format!("#/$defs/d{levels}")})
    };
    let chained = |levels: usize| {
        let defs = (0..levels).map(|level| {
            let next = json!({"$ref": format!("#/$defs/d{}", level.saturating_sub(1))});
            (
                format!("d{level}"),
                if level == 0 { json!({}) } else { next },
            )
        });
        let last = format!("#/$defs/d{}", levels - 1);
        json!({"$defs": defs.collect::<serde_json::Map<_, _>>(), "$ref": last})
    };
    let nested =
        |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    let patterns = |count: usize| {
        let names = (0..count).map(|n| (format!("p{n}"), json!({"pattern": "^a"})));
        json!({"properties": names.collect::<serde_json::Map<_, _>>()})
    };
    for (what, schema, pointer) in [
        ("a doubling", doubling(30), ""),
        ("depth", nested(40), ""),
        ("much depth", chained(1000), "/$defs/d871"),
        ("patterns", patterns(101), ""),
        ("a loop", json!({"$ref": "#"}), ""),
        (
            "a tree",
            json!({"$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}),
            "/$defs/t",
        ),
        (
            "a fetch",
            json!({"items": {"$ref": "http://localhost/x"}}),
            "/items/$ref",
        ),
        ("a file", json!({"$ref": "file:///etc/passwd"}), "/$ref"),
        (
            "an anchor",
            json!({"$ref": "#a", "$defs": {"b": {"$anchor": "a"}}}),
            "/$ref",
        ),
        ("nothing there", json!({"$ref": "#/$defs/a"}), "/$ref"),
        (
            "another base",
            json!({"items": {"$id": "http://x/"}}),
            "/items/$id",
        ),
        (
            "a dynamic one",
            json!({"$dynamicRef": "#a"}),
            "/$dynamicRef",
        ),
        ("look-around", json!({"pattern": "(?=a)"}), "/pattern"),
        ("a back-reference", json!({"pattern": "(a)\\1"}), "/pattern"),
        (
            "a large pattern",
            json!({"pattern": "(\\p{L}{500}){500}"}),
            "/pattern",
        ),
    ] {
        let (at, detail) = refusal(&schema);
        assert_eq!(at, pointer, "{what}: {detail}");
        assert!(detail.len() < 400, "{what}: {detail}");
    }
    compiled(&doubling(8));
    compiled(&nested(31));
    compiled(&patterns(100));
}
