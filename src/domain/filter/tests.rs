//! Whole filters: what is refused and where, what matches after SNS, and
//! properties against matchers written from the definitions, on the JSON.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::message::Headers;
use super::*;

fn headers(of: &Value) -> Headers {
    serde_json::from_value(of.clone()).unwrap()
}

/// The pointers of all that is wrong with a filter at `/filter`.
fn wrong(filter: &Value) -> Vec<String> {
    match Filter::parse(filter, "/filter") {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(wrong)) => wrong.into_iter().map(|wrong| wrong.pointer).collect(),
        Err(error) => panic!("{error}"),
    }
}

fn takes(policy: &Value, body: &Value) -> bool {
    let filter = Filter::parse(&json!({"body": policy}), "").unwrap();
    let (headers, body) = (Headers::new(), body.to_string());
    let message = Candidate::new("", &headers, Some(body.as_bytes()));
    let matches = filter.matches(&message);
    assert_eq!(
        matches,
        filter.explain(&message).is_empty(),
        "{policy} {body}"
    );
    matches
}

#[test]
fn each_fault_is_reported_at_its_part() {
    let deep = json!({"a": {"b": {"c": {"d": {"e": ["x"]}}}}});
    let long = "x".repeat(1025);
    for (filter, pointers) in [
        (json!([]), vec![""]),
        (json!("orders.#"), vec![""]),
        (
            json!({"routingkey": "a", "a/b~": 1}),
            vec!["/a~1b~0", "/routingkey"],
        ),
        (json!({"routing_key": 5}), vec!["/routing_key"]),
        (json!({"routing_key": "a\nb"}), vec!["/routing_key"]),
        (json!({"headers": {}}), vec!["/headers"]),
        (json!({"headers": ["a"]}), vec!["/headers"]),
        (json!({"headers": {"a": 1, "b": "x"}}), vec!["/headers/a"]),
        (json!({"headers": {"a b": "x"}}), vec!["/headers/a b"]),
        (json!({"headers": {"a": "x\r\ny"}}), vec!["/headers/a"]),
        (json!({"match": "all"}), vec!["/match"]),
        (
            json!({"headers": {"a": "x"}, "match": "some"}),
            vec!["/match"],
        ),
        (json!({"body": {}}), vec!["/body"]),
        (json!({"body": []}), vec!["/body"]),
        (json!({"body": {"a": "x"}}), vec!["/body/a"]),
        (json!({"body": {"a": []}}), vec!["/body/a"]),
        (json!({"body": {"a": {}}}), vec!["/body/a"]),
        (json!({"body": {"a": [["x"]]}}), vec!["/body/a/0"]),
        (json!({"body": {"a": ["x", {}]}}), vec!["/body/a/1"]),
        (
            json!({"body": {"a": [{"prefix": "x", "suffix": "y"}]}}),
            vec!["/body/a/0"],
        ),
        (
            json!({"body": {"a": [{"wildcard": "x*"}]}}),
            vec!["/body/a/0/wildcard"],
        ),
        (
            json!({"body": {"a": [{"prefix": 1}]}}),
            vec!["/body/a/0/prefix"],
        ),
        (
            json!({"body": {"a": [{"suffix": ""}]}}),
            vec!["/body/a/0/suffix"],
        ),
        (
            json!({"body": {"a": [{"exists": "true"}]}}),
            vec!["/body/a/0/exists"],
        ),
        (
            json!({"body": {"a": [{"anything-but": []}]}}),
            vec!["/body/a/0/anything-but"],
        ),
        (
            json!({"body": {"a": [{"anything-but": ["x", ["y"]]}]}}),
            vec!["/body/a/0/anything-but/1"],
        ),
        (
            json!({"body": {"a": [{"anything-but": {"prefix": null}}]}}),
            vec!["/body/a/0/anything-but/prefix"],
        ),
        (
            json!({"body": {"a": [{"anything-but": {"numeric": [">", 1]}}]}}),
            vec!["/body/a/0/anything-but/numeric"],
        ),
        (
            json!({"body": {"order": {"total": [{"numeric": [">", "5"]}]}}}),
            vec!["/body/order/total/0/numeric/1"],
        ),
        (
            json!({"body": {"a": [{"numeric": [">"]}]}}),
            vec!["/body/a/0/numeric"],
        ),
        (
            json!({"body": {"a": [{"numeric": 5}]}}),
            vec!["/body/a/0/numeric"],
        ),
        (
            json!({"body": {"a": [{"numeric": ["<>", 5]}]}}),
            vec!["/body/a/0/numeric/0"],
        ),
        (
            json!({"body": {"a": [{"numeric": ["<", 1, ">", 5]}]}}),
            vec!["/body/a/0/numeric/0", "/body/a/0/numeric/2"],
        ),
        (
            json!({"body": {"a": [{"numeric": [">", 5, "<=", 5]}]}}),
            vec!["/body/a/0/numeric/3"],
        ),
        (
            json!({"body": {"$or": [{"a": ["x"]}, {"b": ["y"]}]}}),
            vec!["/body/$or"],
        ),
        (json!({"body": {"o": deep}}), vec!["/body/o/a/b/c/d"]),
        (json!({"body": {"a": [long]}}), vec!["/body/a/0"]),
        (json!({"body": {"a": vec![1; 151]}}), vec!["/body"]),
        (
            json!({"routing_key": null, "headers": {"a": 1}, "match": 1, "body": {"b": 1}, "c": 1}),
            vec!["/c", "/match", "/headers/a", "/body/b"],
        ),
    ] {
        let expected: Vec<_> = pointers
            .iter()
            .map(|part| format!("/filter{part}"))
            .collect();
        assert_eq!(wrong(&filter), expected, "{filter}");
    }
    let many = json!({"body": {"a": vec![json!([]); 1000]}});
    assert_eq!(wrong(&many).len(), Faults::MOST);
    assert!(wrong(&json!({"body": {"a": vec![1; 150]}})).is_empty());
    assert!(wrong(&json!({"body": {"a": {"b": {"c": {"d": ["x"]}}}}})).is_empty());
    assert!(wrong(&json!({})).is_empty());
}

#[test]
fn policies_match_as_in_sns() {
    for (policy, takes_these, refuses_these) in [
        (
            json!({"a": ["rugby", 300, true, null]}),
            vec![
                json!("rugby"),
                json!(3.0e2),
                json!(true),
                json!(null),
                json!(["x", "rugby"]),
            ],
            vec![
                json!("Rugby"),
                json!("300"),
                json!(false),
                json!([]),
                json!({"rugby": 1}),
            ],
        ),
        (
            json!({"a": [{"anything-but": ["rugby", "tennis"]}]}),
            vec![
                json!("golf"),
                json!(["rugby", "golf"]),
                json!(1),
                json!(null),
            ],
            vec![
                json!("rugby"),
                json!(["rugby", "tennis"]),
                json!([]),
                json!({"b": 1}),
            ],
        ),
        (
            json!({"a": [{"anything-but": {"prefix": "ru"}}]}),
            vec![json!("golf"), json!("r"), json!(5)],
            vec![json!("rugby"), json!(["rugby", "ru"])],
        ),
        (
            json!({"a": [{"anything-but": {"suffix": "by"}}]}),
            vec![json!("golf")],
            vec![json!("rugby")],
        ),
        (
            json!({"a": [{"numeric": [">", 0, "<=", 2.5]}]}),
            vec![json!(0.1), json!(2.5), json!([9, 1])],
            vec![
                json!(0),
                json!(2.6),
                json!("1"),
                json!(null),
                json!([9, -1]),
            ],
        ),
        (
            json!({"a": [{"numeric": ["=", 9_007_199_254_740_993_i64]}]}),
            vec![json!(9_007_199_254_740_993_i64)],
            vec![
                json!(9_007_199_254_740_992_i64),
                json!(9_007_199_254_740_992.0),
            ],
        ),
        (
            json!({"a": [{"exists": true}]}),
            vec![json!("x"), json!(0), json!(false), json!([null, 1])],
            vec![json!(null), json!(""), json!([]), json!({"b": 1})],
        ),
        (
            json!({"a": [{"exists": false}]}),
            vec![json!([]), json!({"b": 1}), json!([{"b": 1}])],
            vec![json!("x"), json!(null), json!("")],
        ),
        (
            json!({"a": [{"equals-ignore-case": "STRASSE Ä"}]}),
            vec![json!("strasse ä"), json!("Strasse Ä")],
            vec![json!("straße ä"), json!(1)],
        ),
        (
            json!({"a": [{"suffix": ".png"}, {"prefix": "img"}]}),
            vec![json!("x.png"), json!("img.gif")],
            vec![json!("x.gif"), json!(1)],
        ),
        (
            json!({"a": {"b": ["x"], "c": [{"exists": false}]}}),
            vec![
                json!({"b": "x"}),
                json!([{"b": "y"}, {"b": "x", "d": 1}]),
                json!([[{"b": "x"}]]),
            ],
            vec![
                json!([{"b": "x", "c": 1}, {"b": "y"}]),
                json!("x"),
                json!({}),
            ],
        ),
    ] {
        for value in takes_these {
            assert!(
                takes(&policy, &json!({"a": value, "z": 1})),
                "{policy} {value}"
            );
        }
        for value in refuses_these {
            assert!(
                !takes(&policy, &json!({"a": value, "z": 1})),
                "{policy} {value}"
            );
        }
    }
    assert!(takes(&json!({"a": [{"exists": false}]}), &json!({})));
    assert!(takes(
        &json!({"a": {"b": [{"exists": false}]}}),
        &json!({"a": 1})
    ));
    assert!(!takes(&json!({"a": [{"anything-but": "x"}]}), &json!({})));
    assert!(!takes(&json!({"a": ["x"], "b": ["y"]}), &json!({"a": "x"})));
}

#[test]
fn a_body_that_is_no_json_object_matches_no_policy_and_explain_says_so() {
    let filter = Filter::parse(&json!({"body": {"a": [{"exists": false}]}}), "").unwrap();
    let headers = Headers::new();
    for (body, detail) in [
        (None, "the body is not JSON, so"),
        (Some("[1]"), "the body is not a JSON object"),
        (Some("{\"a\":"), "the body cannot be read as JSON: EOF"),
        (
            Some("{\"b\": 1e999}"),
            "the body cannot be read as JSON: number out of range",
        ),
    ] {
        let message = Candidate::new("", &headers, body.map(str::as_bytes));
        assert!(!filter.matches(&message));
        assert!(Filter::everything().matches(&message));
        let [mismatch] = &filter.explain(&message)[..] else {
            panic!("{body:?}");
        };
        assert_eq!(mismatch.part, "/body");
        assert!(mismatch.detail.starts_with(detail), "{}", mismatch.detail);
    }
}

#[test]
fn explain_names_each_part_that_does_not_match() {
    let json = json!({
        "routing_key": "orders.us.#",
        "headers": {"shop": "eu", "tier": "gold", "ok": "yes"},
        "body": {
            "ok": [1],
            "a/b": ["x", {"prefix": "y"}, {"numeric": [">=", 1, "<", 2]}, true, false],
            "order": {"total": [{"numeric": ["=", 300]}], "items": {"sku": [{"suffix": "-eu"}]}},
        },
    });
    let filter = Filter::parse(&json, "/filter").unwrap();
    assert_eq!(filter.as_json(), &json);
    let headers = headers(&json!({"shop": "us", "ok": "yes"}));
    let body = json!({
        "ok": 1,
        "a/b": "z",
        "order": {"items": [{"sku": "a-us"}, {"sku": "b-us"}]},
    })
    .to_string();
    let message = Candidate::new("orders.eu", &headers, Some(body.as_bytes()));
    let mut told: Vec<_> = filter
        .explain(&message)
        .into_iter()
        .map(|mismatch| format!("{}: {}", mismatch.part, mismatch.detail))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "/body/a~1b: it is \"z\" and should be \"x\", or begin with \"y\", \
             or be >= 1 and < 2, or meet one of 2 more conditions",
            "/body/order/items: it is an array of 2, of which one should match all keys below",
            "/body/order/total: it is missing and should be >= 300 and <= 300",
            "/headers/shop: the header \"shop\" is \"us\", not \"eu\"",
            "/headers/tier: the header \"tier\" is missing",
            "/routing_key: routing_key \"orders.eu\" does not match the pattern \"orders.us.#\"",
        ]
    );
}

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

fn one_of(values: Value) -> impl Strategy<Value = Value> + Clone {
    prop::sample::select(values.as_array().unwrap().clone())
}

fn any_scalar() -> impl Strategy<Value = Value> + Clone {
    one_of(json!([
        null, true, false, "", "a", "ab", "AB", "ba", -1, 0, 1, 1.0, 1.5, 2
    ]))
}

fn any_body() -> impl Strategy<Value = Value> {
    any_scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[abc]", inner, 0..4)
                .prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

fn any_policy() -> impl Strategy<Value = Value> {
    let text = one_of(json!(["a", "b", "ab", "AB"]));
    let condition = prop_oneof![
        4 => any_scalar(),
        1 => text.clone().prop_map(|text| json!({"prefix": text})),
        1 => text.clone().prop_map(|text| json!({"suffix": text})),
        1 => text.clone().prop_map(|text| json!({"equals-ignore-case": text})),
        1 => any_scalar().prop_map(|one| json!({"anything-but": one})),
        1 => prop::collection::vec(any_scalar(), 1..4)
            .prop_map(|values| json!({"anything-but": values})),
        1 => text.clone().prop_map(|text| json!({"anything-but": {"prefix": text}})),
        1 => text.prop_map(|text| json!({"anything-but": {"suffix": text}})),
        1 => any::<bool>().prop_map(|exists| json!({"exists": exists})),
        1 => (one_of(json!(["<", "<=", ">", ">=", "="])), one_of(json!([0, 1.0, 1.5])))
            .prop_map(|(operator, number)| json!({"numeric": [operator, number]})),
        1 => (one_of(json!([">", ">="])), one_of(json!(["<", "<="])))
            .prop_map(|(low, high)| json!({"numeric": [low, 0.5, high, 1.5]})),
    ];
    let conditions = prop::collection::vec(condition, 1..3).prop_map(Value::from);
    let keys = |inner: BoxedStrategy<Value>| {
        prop::collection::hash_map("[abc]", inner, 1..3)
            .prop_map(|fields| fields.into_iter().collect::<Value>())
            .boxed()
    };
    let nested = conditions
        .boxed()
        .prop_recursive(2, 8, 2, move |inner| keys(inner));
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
        prop::option::weighted(0.3, (any_headers(1), one_of(json!([null, "all", "any"])))),
        prop::option::weighted(0.8, any_policy()),
    )
        .prop_map(|(key, headers, body)| {
            let (headers, mode) = headers.unzip();
            json!({"routing_key": key, "headers": headers, "match": mode, "body": body})
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_filter_matches_what_the_definitions_match_and_explain_agrees(
        filter in any_filter(), key in any_words(), sent in any_headers(0), body in any_body(),
        fields in prop::collection::hash_map("[abc]", any_body(), 0..4), object in any::<bool>(),
    ) {
        let body = if object { fields.into_iter().collect() } else { body };
        let compiled = Filter::parse(&filter, "").unwrap();
        let (sent, bytes) = (headers(&sent), body.to_string());
        let message = Candidate::new(&key, &sent, Some(bytes.as_bytes()));
        let matches = compiled.matches(&message);
        prop_assert_eq!(matches, naive(&filter, &key, &sent, Some(&body)));
        let mismatches = compiled.explain(&message);
        prop_assert_eq!(matches, mismatches.is_empty(), "{:?}", mismatches);
        for mismatch in mismatches {
            prop_assert!(filter.pointer(&mismatch.part).is_some(), "{}", mismatch.part);
        }
    }

    #[test]
    fn every_fault_points_at_a_part_that_is_there(
        filter in any_filter(), part in "[a-z/~]{1,3}", junk in any_body(), place in 0..5usize,
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
