//! `/openapi.json`, `/docs`: the document is true, and it is the one that is
//! committed.

mod examples;

use std::collections::{BTreeMap, BTreeSet};

use reqwest::StatusCode;
use serde_json::Value;

use super::schema::resolve;
use crate::support::App;

pub(super) const METHODS: [&str; 5] = ["put", "post", "get", "patch", "delete"];

pub(crate) fn document() -> Value {
    serde_json::to_value(postrider::http::document()).unwrap()
}

/// Every operation: its method, path and description.
pub(crate) fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                operations.push((method.to_owned(), path.clone(), operation.clone()));
            }
        }
    }
    operations
}

/// The examples of a request's body, by content type.
pub(crate) fn examples(document: &Value, operation: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let content = operation["requestBody"]["content"].as_object();
    for (content_type, media) in content.into_iter().flatten() {
        if let Some(example) = media.get("example") {
            found.push((content_type.clone(), example.clone()));
        } else if let Some(examples) = media["examples"].as_object() {
            let values = examples.values();
            found.extend(values.map(|e| (content_type.clone(), e["value"].clone())));
        } else if let Some(example) = resolve(document, &media["schema"]).get("example") {
            found.push((content_type.clone(), example.clone()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_that_is_served_is_the_one_that_is_committed() {
    let app = App::start().await;
    let served = app.get("/openapi.json").await;
    assert_eq!(served.headers["content-type"], "application/json");
    // Not assert_eq: the document fills many screens.
    assert!(served.expect(StatusCode::OK) == document());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(committed == document(), "`make openapi` writes it anew");
}

#[test]
fn the_document_is_openapi_3_1_and_its_references_lead_somewhere() {
    fn check(document: &Value, part: &Value) {
        match part {
            Value::Object(fields) => {
                resolve(document, part);
                fields.values().for_each(|field| check(document, field));
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            _ => {}
        }
    }
    let document = document();
    let version = document["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1."), "{version}");
    check(&document, &document);
}

#[test]
fn every_operation_is_described() {
    let document = document();
    let tags: Vec<&Value> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(
            operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
            "{what}"
        );
        let its_tags = operation["tags"].as_array().unwrap();
        assert_eq!(its_tags.len(), 1, "{what}");
        assert!(tags.contains(&&its_tags[0]), "{what}");
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
            "{what}"
        );

        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{what}"
        );
        for required in ["400", "500", "503"] {
            assert!(responses.contains_key(required), "{what} {required}");
        }
        let has_body = operation.get("requestBody").is_some();
        for required in ["408", "413", "415"] {
            assert_eq!(
                responses.contains_key(required),
                has_body,
                "{what} {required}"
            );
        }
        for (status, response) in responses {
            assert!(
                !response["description"].as_str().unwrap().is_empty(),
                "{what} {status}"
            );
            if status.starts_with(['4', '5']) {
                let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{what} {status}");
            }
        }
        let in_path: Vec<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let documented: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(documented, in_path, "{what}");
        for parameter in &parameters {
            assert!(parameter["description"].is_string(), "{what} {parameter}");
        }
    }
    assert_eq!(ids.len(), 77);
}

#[test]
fn operations_on_one_path_are_all_there() {
    let document = document();
    let mut methods: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (method, path, _) in operations(&document) {
        methods.entry(path).or_default().push(method);
    }
    assert_eq!(methods["/v1/queues/{queue}/messages"], ["post", "get"]);
    assert_eq!(
        methods["/v1/queues/{queue}"],
        ["put", "get", "patch", "delete"]
    );
    assert_eq!(
        methods["/v1/queues/{queue}/messages/{id}"],
        ["get", "delete"]
    );
}

/// POSTs that take no idempotency key, and why they need none.
const NOT_KEYED: &[(&str, &str)] = &[
    ("/v1/claims/{key}/complete", "the token says which: done"),
    ("/v1/keys", "the answer has a secret, which is not kept"),
    ("/v1/keys/{id}/rotate", "the answer has a secret"),
    ("/v1/queues/{queue}/ack", "the receipt says which: settled"),
    ("/v1/queues/{queue}/dead-letters/purge", "gone is gone"),
    ("/v1/queues/{queue}/extend", "the receipt says which"),
    ("/v1/queues/{queue}/nack", "the receipt says which: settled"),
    ("/v1/queues/{queue}/purge", "gone is gone"),
    (
        "/v1/queues/{queue}/receive",
        "what is lost comes again when its lease ends",
    ),
    ("/v1/queues/{queue}/reply", "the first reply stays"),
    (
        "/v1/queues/{queue}/unblock",
        "a second time changes nothing",
    ),
    ("/v1/queues/{queue}/webhook/pause", "paused is paused"),
    ("/v1/queues/{queue}/webhook/resume", "resumed is resumed"),
    (
        "/v1/queues/{queue}/webhook/rotate-secret",
        "the answer has a secret",
    ),
    ("/v1/queues/{queue}/webhook/test", "it stores nothing"),
    ("/v1/schedules/{schedule}/pause", "paused is paused"),
    ("/v1/schedules/{schedule}/resume", "resumed is resumed"),
    ("/v1/topics/{topic}/explain", "it changes nothing"),
];

#[test]
fn every_post_takes_an_idempotency_key_or_needs_none() {
    let document = document();
    let mut without = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array();
        let takes_key = parameters.into_iter().flatten().any(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            parameter["in"] == "header" && name.eq_ignore_ascii_case("idempotency-key")
        });
        if takes_key {
            assert_eq!(method, "post", "{path}");
            for status in ["409", "422"] {
                let is_told = operation["responses"][status].is_object();
                assert!(is_told, "{path} has a key and no {status}");
            }
        } else if method == "post" {
            without.insert(path);
        }
    }
    let known: BTreeSet<String> = NOT_KEYED.iter().map(|(path, _)| (*path).into()).collect();
    assert_eq!(without, known);
}

#[test]
fn the_push_is_described_under_webhooks() {
    let document = document();
    let push = &document["webhooks"]["push"]["post"];
    assert!(push["summary"].is_string(), "{push}");
    assert_eq!(push["requestBody"]["required"], true);
    let headers: Vec<&str> = push["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| {
            assert_eq!(parameter["in"], "header", "{parameter}");
            parameter["name"].as_str().unwrap()
        })
        .collect();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert!(headers.contains(&name), "{headers:?}");
    }
    for status in ["2XX", "3XX", "410", "429", "503", "default"] {
        let description = &push["responses"][status]["description"];
        assert!(description.is_string(), "{status}: {push}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_page_loads_nothing_from_elsewhere() {
    let app = App::start().await;
    let page = app.get("/docs").await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let loaded: Vec<&str> = page
        .text
        .split(['"', '\''])
        .filter(|text| {
            let end = text.rsplit('.').next().unwrap_or_default();
            matches!(end, "js" | "css" | "png") && !text.contains(char::is_whitespace)
        })
        .collect();
    assert!(loaded.len() >= 3, "{}", page.text);
    for file in loaded {
        assert!(!file.contains("//"), "{file} is elsewhere");
        let path = format!("/docs/{}", file.trim_start_matches("./"));
        let answer = app
            .request(reqwest::Method::GET, &path)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert!(!answer.bytes().await.unwrap().is_empty(), "{path}");
    }
    let script = app.get("/docs/swagger-initializer.js").await;
    assert_eq!(script.status, StatusCode::OK);
    assert!(script.text.contains("/openapi.json"), "{}", script.text);
    assert!(!script.text.contains("://"), "{}", script.text);
}
