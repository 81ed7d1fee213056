//! Whole filters: what is refused and where, what matches after SNS, what
//! `explain` says.

mod properties;

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

fn assert_wrong<const N: usize>(table: [(Value, Vec<&str>); N]) {
    for (filter, pointers) in table {
        let expected: Vec<_> = pointers
            .iter()
            .map(|part| format!("/filter{part}"))
            .collect();
        assert_eq!(wrong(&filter), expected, "{filter}");
    }
}

#[test]
fn each_fault_of_a_filter_is_reported_at_its_part() {
    assert_wrong([
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
        (
            json!({"routing_key": null, "headers": {"a": 1}, "match": 1, "body": {"b": 1}, "c": 1}),
            vec!["/c", "/match", "/headers/a", "/body/b"],
        ),
    ]);
    assert!(wrong(&json!({})).is_empty());
}

#[test]
fn each_fault_of_a_policy_is_reported_at_its_part() {
    let deep = json!({"a": {"b": {"c": {"d": {"e": ["x"]}}}}});
    let long = "x".repeat(1025);
    assert_wrong([
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
    ]);
    let many = json!({"body": {"a": vec![json!([]); 1000]}});
    assert_eq!(wrong(&many).len(), Faults::MOST);
    assert!(wrong(&json!({"body": {"a": vec![1; 150]}})).is_empty());
    assert!(wrong(&json!({"body": {"a": {"b": {"c": {"d": ["x"]}}}}})).is_empty());
}

/// A policy, values of `a` that it takes, and values that it does not.
type Semantics = (Value, Vec<Value>, Vec<Value>);

fn assert_semantics<const N: usize>(table: [Semantics; N]) {
    for (policy, takes_these, refuses_these) in table {
        for (values, expected) in [(takes_these, true), (refuses_these, false)] {
            for value in values {
                let body = json!({"a": value, "z": 1});
                assert_eq!(takes(&policy, &body), expected, "{policy} {body}");
            }
        }
    }
}

#[test]
fn conditions_are_met_as_in_sns() {
    assert_semantics([
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
    ]);
}

#[test]
fn arrays_objects_and_missing_keys_match_as_in_sns() {
    assert_semantics([
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
    ]);
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
            "/body/order/total: it is missing and should be = 300",
            "/headers/shop: the header \"shop\" is \"us\", not \"eu\"",
            "/headers/tier: the header \"tier\" is missing",
            "/routing_key: routing_key \"orders.eu\" does not match the pattern \"orders.us.#\"",
        ]
    );
}
