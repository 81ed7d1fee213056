use serde_json::{Value, json};

use super::super::Compatibility;
use super::compiled;

/// Pointers of what is incompatible.
fn broken(old: &Value, new: &Value, by: Compatibility) -> Vec<String> {
    compiled(new)
        .incompatibilities(&compiled(old), by)
        .into_iter()
        .map(|part| part.pointer)
        .collect()
}

/// The rules of the table in the README: old, new, what of the new one is broken.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn each_rule_of_compatibility_holds() {
    let closed =
        |properties: Value| json!({"properties": properties, "additionalProperties": false});
    let of = |kind: &str| json!({"properties": {"t": {"const": kind}}, "required": ["t"]});
    let cases = [
        // Types.
        (json!({"type": "string"}), json!({}), &[][..]),
        (json!({}), json!({"type": "string"}), &["/type"][..]),
        (json!({"type": "integer"}), json!({"type": "number"}), &[]),
        (
            json!({"type": "number"}),
            json!({"type": "integer"}),
            &["/type"],
        ),
        (
            json!({"type": "string"}),
            json!({"type": ["string", "null"]}),
            &[],
        ),
        (
            json!({"type": ["string", "null"]}),
            json!({"type": "string"}),
            &["/type"],
        ),
        (
            json!({"enum": ["a", null]}),
            json!({"type": ["string", "null"]}),
            &[],
        ),
        // Values.
        (json!({"enum": ["a"]}), json!({"enum": ["a", "b"]}), &[]),
        (
            json!({"enum": ["a", "b"]}),
            json!({"enum": ["a"]}),
            &["/enum"],
        ),
        (json!({"const": 1}), json!({"enum": [1, 2]}), &[]),
        (
            json!({"type": "string"}),
            json!({"const": "a"}),
            &["/const"],
        ),
        // Bounds.
        (json!({"minimum": 2}), json!({"minimum": 1}), &[]),
        (json!({"minimum": 1}), json!({"minimum": 2}), &["/minimum"]),
        (json!({"exclusiveMinimum": 1}), json!({"minimum": 1}), &[]),
        (
            json!({"minimum": 1}),
            json!({"exclusiveMinimum": 1}),
            &["/exclusiveMinimum"],
        ),
        (
            json!({"maximum": 9_007_199_254_740_993_u64}),
            json!({"maximum": 9_007_199_254_740_992_u64}),
            &["/maximum"],
        ),
        (json!({"multipleOf": 6}), json!({"multipleOf": 3}), &[]),
        (
            json!({"multipleOf": 3}),
            json!({"multipleOf": 6}),
            &["/multipleOf"],
        ),
        (
            json!({"type": "string"}),
            json!({"type": "string", "minimum": 3}),
            &[],
        ),
        (json!({"maxLength": 3}), json!({"maxLength": 4}), &[]),
        (
            json!({"maxLength": 4}),
            json!({"maxLength": 3}),
            &["/maxLength"],
        ),
        (json!({}), json!({"pattern": "^a"}), &["/pattern"]),
        (
            json!({"format": "date"}),
            json!({"format": "email"}),
            &["/format"],
        ),
        // Objects.
        (json!({"required": ["a"]}), json!({}), &[]),
        (json!({}), json!({"required": ["a"]}), &["/required/0"]),
        (
            json!({"properties": {"a": {"type": "string"}}}),
            json!({}),
            &[],
        ),
        (
            json!({}),
            json!({"properties": {"a": {"type": "string"}}}),
            &["/properties/a"],
        ),
        (json!({}), json!({"properties": {"a": {}}}), &[]),
        (
            closed(json!({})),
            closed(json!({"a": {"type": "string"}})),
            &[],
        ),
        (
            closed(json!({"a": {}})),
            closed(json!({})),
            &["/additionalProperties"],
        ),
        (closed(json!({"a": {}})), json!({}), &[]),
        (
            json!({"properties": {"a": {}}}),
            closed(json!({"a": {}})),
            &["/additionalProperties"],
        ),
        (
            json!({"additionalProperties": {"type": "integer"}}),
            json!({"properties": {"a": {"type": "number"}}, "additionalProperties": {"type": "integer"}}),
            &[],
        ),
        (
            json!({"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}),
            json!({"patternProperties": {"^x-": {"type": ["string", "null"]}}, "additionalProperties": false}),
            &[],
        ),
        (
            json!({}),
            json!({"propertyNames": {"maxLength": 3}}),
            &["/propertyNames/maxLength"],
        ),
        (
            json!({}),
            json!({"dependentRequired": {"a": ["b"]}}),
            &["/dependentRequired/a"],
        ),
        // Arrays.
        (
            json!({"items": {"minimum": 1}}),
            json!({"items": {"minimum": 2}}),
            &["/items/minimum"],
        ),
        (
            json!({"maxItems": 2}),
            json!({"maxItems": 1}),
            &["/maxItems"],
        ),
        (json!({}), json!({"uniqueItems": true}), &["/uniqueItems"]),
        (
            json!({"prefixItems": [{"type": "string"}], "items": false}),
            json!({"prefixItems": [{"type": "string"}, {"type": "integer"}]}),
            &[],
        ),
        (
            json!({"items": {"type": "string"}}),
            json!({"prefixItems": [{"type": "null"}]}),
            &["/prefixItems/0/type"],
        ),
        // Logic.
        (
            json!({"type": "string"}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            &[],
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            json!({"type": ["null", "string"]}),
            &[],
        ),
        (
            json!({"type": ["null", "string"]}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            &[],
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            json!({"anyOf": [{"type": "string"}]}),
            &["/anyOf"],
        ),
        (
            json!({"oneOf": [of("a")]}),
            json!({"oneOf": [of("a"), of("b")]}),
            &["/oneOf"],
        ),
        (
            json!({"type": "object", "oneOf": [of("a")]}),
            json!({"oneOf": [
                {"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"]},
                {"type": "object", "properties": {"t": {"const": "b"}}, "required": ["t"]}]}),
            &[],
        ),
        (
            json!({"oneOf": [{"minimum": 1}]}),
            json!({"oneOf": [{"minimum": 1}, {"minimum": 0}]}),
            &["/oneOf"],
        ),
        (
            json!({"type": "string"}),
            json!({"not": {"type": "null"}}),
            &[],
        ),
        (json!({}), json!({"not": {"type": "null"}}), &["/not"]),
        (
            json!({"allOf": [{"type": "string"}, {"minLength": 2}]}),
            json!({"type": "string", "minLength": 1}),
            &[],
        ),
        (
            json!({}),
            json!({"if": {"type": "null"}, "then": false}),
            &["/if"],
        ),
        (
            json!({"$defs": {"a": {"minimum": 2}}, "properties": {"x": {"$ref": "#/$defs/a"}}}),
            json!({"properties": {"x": {"minimum": 1}}}),
            &[],
        ),
        (
            json!({"properties": {"x": {"minimum": 1}}}),
            json!({"$defs": {"a": {"minimum": 2}}, "properties": {"x": {"$ref": "#/$defs/a"}}}),
            &["/$defs/a/minimum"],
        ),
        (
            json!({}),
            json!({"unevaluatedProperties": false}),
            &["/unevaluatedProperties"],
        ),
        (
            json!({"unevaluatedProperties": false, "title": "a"}),
            json!({"unevaluatedProperties": false, "title": "a"}),
            &[],
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
            json!({}),
            &["/$schema"],
        ),
        (json!({}), json!(false), &[""]),
        (json!(false), json!({"type": "string"}), &[]),
    ];
    for (old, new, expected) in cases {
        let found = broken(&old, &new, Compatibility::Backward);
        assert_eq!(found, expected, "{old} -> {new}");
        assert_eq!(
            broken(&new, &old, Compatibility::Forward).is_empty(),
            expected.is_empty(),
            "{new} <- {old}"
        );
        let both = expected.is_empty() && broken(&new, &old, Compatibility::Backward).is_empty();
        assert_eq!(
            broken(&old, &new, Compatibility::Full).is_empty(),
            both,
            "{old} = {new}"
        );
        assert!(broken(&old, &new, Compatibility::None).is_empty());
    }
}

#[test]
fn what_has_too_many_alternatives_is_not_called_compatible() {
    let level = |inner: &Value| json!({"items": {"anyOf": vec![inner.clone(); 8]}});
    let deep = |last: Value| (0..3).fold(last, |inner, _| level(&inner));
    let found = broken(
        &deep(json!({"minimum": 1})),
        &deep(json!({"minimum": 2})),
        Compatibility::Backward,
    );
    assert!(!found.is_empty());
}
