//! Properties of filters, against matchers written from the definitions, on the
//! JSON, without a look at the real ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::message::Headers;
use super::super::*;
use super::{headers, wrong};

fn naive(filter: &Value, key: &str, headers: &Headers, body: Option<&Value>) -> bool {
    let key_matches = filter["routing_key"]
        .as_str()
        .is_none_or(|pattern| naive_pattern(pattern, key));
    let header_matches = filter["headers"].as_object().is_none_or(|wanted| {
        let met = wanted
            .iter()
            .filter(|(name, value)| headers.get(*name).map(String::as_str) == value.as_str())
            .count();
        met == wanted.len() || (filter["match"] == "any" && met > 0)
    });
    let body_matches = filter["body"].is_null()
        || body.is_some_and(|body| body.is_object() && naive_policy(&filter["body"], Some(body)));
    key_matches && header_matches && body_matches
}

fn naive_pattern(pattern: &str, key: &str) -> bool {
    let split = |text: &str| {
        let mut words: Vec<String> = text.split('.').map(str::to_owned).collect();
        words.retain(|_| !text.is_empty());
        words
    };
    let (pattern, key) = (split(pattern), split(key));
    // fits[n]: the pattern so far fits the first n words of the key.
    let mut fits: Vec<bool> = (0..=key.len()).map(|n| n == 0).collect();
    for word in pattern {
        fits = (0..=key.len())
            .map(|n| match word.as_str() {
                "#" => fits[..=n].contains(&true),
                "*" => n > 0 && fits[n - 1],
                word => n > 0 && fits[n - 1] && key[n - 1] == word,
            })
            .collect();
    }
    fits[key.len()]
}

/// Every object that a value may be read as, or nothing.
fn readings(found: Option<&Value>) -> Vec<Option<&Value>> {
    match found {
        Some(Value::Array(elements)) if !elements.is_empty() => elements
            .iter()
            .flat_map(|one| readings(Some(one)))
            .collect(),
        Some(Value::Object(_)) => vec![found],
        _ => vec![None],
    }
}

fn naive_policy(policy: &Value, found: Option<&Value>) -> bool {
    readings(found).into_iter().any(|object| {
        policy.as_object().unwrap().iter().all(|(key, wanted)| {
            let found = object.and_then(|object| object.get(key));
            match wanted {
                Value::Array(conditions) => conditions.iter().any(|one| naive_met(one, found)),
                nested => naive_policy(nested, found),
            }
        })
    })
}

fn naive_met(condition: &Value, found: Option<&Value>) -> bool {
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9,
        _ => a == b,
    };
    let leaves: Vec<&Value> = match found {
        None | Some(Value::Object(_)) => Vec::new(),
        Some(Value::Array(elements)) => {
            return if condition["exists"] == false {
                elements.iter().all(|one| naive_met(condition, Some(one)))
            } else {
                elements.iter().any(|one| naive_met(condition, Some(one)))
            };
        }
        Some(value) => vec![value],
    };
    let Some(value) = leaves.first() else {
        return condition["exists"] == false;
    };
    let text = value.as_str();
    let Some((name, wanted)) = condition.as_object().and_then(|one| one.iter().next()) else {
        return same(condition, value);
    };
    let affix = |name: &str, wanted: &Value| {
        let wanted = wanted.as_str().unwrap();
        text.is_some_and(|text| match name {
            "prefix" => text.find(wanted) == Some(0),
            _ => text
                .rfind(wanted)
                .is_some_and(|at| at + wanted.len() == text.len()),
        })
    };
    match (name.as_str(), wanted) {
        ("exists", wanted) => wanted == true && !value.is_null() && text != Some(""),
        ("equals-ignore-case", wanted) => {
            text.map(str::to_uppercase) == wanted.as_str().map(str::to_uppercase)
        }
        ("anything-but", Value::Object(affixes)) => {
            !affixes.iter().any(|(name, wanted)| affix(name, wanted))
        }
        ("anything-but", Value::Array(values)) => !values.iter().any(|one| same(one, value)),
        ("anything-but", one) => !same(one, value),
        ("numeric", wanted) => value.as_f64().is_some_and(|number| {
            wanted.as_array().unwrap().chunks(2).all(|pair| {
                let bound = pair[1].as_f64().unwrap();
                match pair[0].as_str().unwrap() {
                    "<" => number < bound,
                    "<=" => number <= bound,
                    ">" => number > bound,
                    ">=" => number >= bound,
                    _ => (number - bound).abs() < 1e-9,
                }
            })
        }),
        (name, wanted) => affix(name, wanted),
    }
}

fn one_of(values: &Value) -> impl Strategy<Value = Value> + Clone + use<> {
    prop::sample::select(values.as_array().unwrap().clone())
}

fn any_scalar() -> impl Strategy<Value = Value> + Clone {
    one_of(&json!([
        null, true, false, "", "a", "ab", "AB", "ba", -1, 0, 1, 1.0, 1.5, 2
    ]))
}

/// Values with parts; keys are few, so that policies find them.
fn any_body(scalar: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[ab]", inner, 0..3)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn any_condition() -> impl Strategy<Value = Value> {
    let text = one_of(&json!(["a", "b", "ab", "AB"]));
    let number = one_of(&json!([0, 1.0, 1.5]));
    prop_oneof![
        4 => any_scalar(),
        1 => text.clone().prop_map(|text| json!({"prefix": text})),
        1 => text.clone().prop_map(|text| json!({"suffix": text})),
        1 => text.clone().prop_map(|text| json!({"equals-ignore-case": text})),
        1 => any_scalar().prop_map(|one| json!({"anything-but": one})),
        1 => prop::collection::vec(any_scalar(), 1..4)
            .prop_map(|values| json!({"anything-but": values})),
        1 => text.clone().prop_map(|text| json!({"anything-but": {"prefix": text}})),
        1 => text.prop_map(|text| json!({"anything-but": {"suffix": text}})),
        2 => any::<bool>().prop_map(|exists| json!({"exists": exists})),
        2 => (one_of(&json!(["<", "<=", ">", ">=", "="])), number)
            .prop_map(|(operator, number)| json!({"numeric": [operator, number]})),
        2 => (one_of(&json!([">", ">="])), one_of(&json!(["<", "<="])))
            .prop_map(|(low, high)| json!({"numeric": [low, 0, high, 1.5]})),
    ]
}

fn any_policy(condition: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let conditions = prop::collection::vec(condition, 1..3).prop_map(Value::from);
    let keys = |inner: BoxedStrategy<Value>| {
        prop::collection::hash_map("[ab]", inner, 1..3)
            .prop_map(|fields| fields.into_iter().collect::<Value>())
            .boxed()
    };
    let nested = conditions.boxed().prop_recursive(2, 8, 2, keys);
    keys(nested.boxed())
}

fn any_headers(least: usize) -> impl Strategy<Value = Value> {
    prop::collection::hash_map("[abc]", "[xy]", least..4).prop_map(|headers| json!(headers))
}

fn any_words() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#", "#"]), 0..5)
        .prop_map(|words| words.join("."))
}

fn any_filter() -> impl Strategy<Value = Value> {
    (
        prop::option::weighted(0.3, any_words()),
        prop::option::weighted(0.3, (any_headers(1), one_of(&json!([null, "all", "any"])))),
        prop::option::weighted(0.6, any_policy(any_condition())),
    )
        .prop_map(|(key, headers, body)| {
            let (headers, mode) = headers.unzip();
            json!({"routing_key": key, "headers": headers, "match": mode, "body": body})
        })
}

/// The body's own rules, without the other parts in the way.
fn agree_on_body(policy: &Value, body: &Value) -> Result<(), TestCaseError> {
    agree(&json!({"body": policy}), "", &Headers::new(), body)
}

fn agree(filter: &Value, key: &str, sent: &Headers, body: &Value) -> Result<(), TestCaseError> {
    let compiled = Filter::parse(filter, "").unwrap();
    let bytes = body.to_string();
    let message = Candidate::new(key, sent, Some(bytes.as_bytes()));
    let matches = compiled.matches(&message);
    prop_assert_eq!(matches, naive(filter, key, sent, Some(body)));
    let mismatches = compiled.explain(&message);
    prop_assert_eq!(matches, mismatches.is_empty(), "{:?}", mismatches);
    for mismatch in mismatches {
        let part = mismatch.part;
        prop_assert!(filter.pointer(&part).is_some(), "{}", part);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_condition_is_met_by_what_its_definition_says(
        condition in any_condition(),
        one in any_scalar(), several in prop::collection::vec(any_scalar(), 0..3),
    ) {
        let policy = json!({"a": [condition]});
        agree_on_body(&policy, &json!({"a": one}))?;
        agree_on_body(&policy, &json!({"a": several}))?;
        agree_on_body(&policy, &json!({"b": one}))?;
    }

    #[test]
    fn a_policy_matches_shapes_as_its_definition_says(
        policy in any_policy(one_of(&json!([1, 2, {"exists": false}, {"anything-but": 1}]))),
        body in prop::collection::hash_map(
            "[ab]", any_body(one_of(&json!([1, 2]))), 0..3,
        ),
    ) {
        agree_on_body(&policy, &body.into_iter().collect())?;
    }

    #[test]
    fn a_filter_matches_what_the_definitions_match_and_explain_agrees(
        filter in any_filter(), key in any_words(), sent in any_headers(0),
        fields in prop::collection::hash_map("[ab]", any_body(any_scalar()), 0..3),
        other in any_body(any_scalar()), object in prop::bool::weighted(0.9),
    ) {
        let body = if object { fields.into_iter().collect() } else { other };
        agree(&filter, &key, &headers(&sent), &body)?;
    }

    #[test]
    fn every_fault_points_at_a_part_that_is_there(
        filter in any_filter(), part in "[a-z/~]{1,3}", junk in any_body(any_scalar()), place in 0..5usize,
    ) {
        let mut filter = filter;
        match place {
            0 => filter[part] = junk,
            1 => filter["body"] = json!({part: {"a": [1, {"prefix": junk}, {"numeric": [junk, junk]}]}}),
            2 => filter["body"] = json!({"a": {part: junk, "b": [{"anything-but": junk}]}}),
            3 => filter["headers"] = json!({part: junk}),
            _ => filter["body"] = junk,
        }
        for pointer in wrong(&filter) {
            let part = pointer.strip_prefix("/filter").unwrap();
            prop_assert!(filter.pointer(part).is_some(), "{} in {}", pointer, filter);
        }
    }
}
