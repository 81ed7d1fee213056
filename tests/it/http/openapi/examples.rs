//! Each example of the document is sent as it stands, and answered as the document says.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{document, examples, operations};
use crate::http::schema::fits;
use crate::support::{Answer, App};

/// One message in `orders`, to settle or to look at; dead for those who ask for
/// dead ones. Or a key, or the claim that is named as the operation is, or a request.
/// Its id, and its receipt if that is wanted.
async fn prepare(app: &App, path: &str, id: &str, wants_receipt: bool) -> (String, Value) {
    if path.starts_with("/v1/claims/") {
        if id == "take_claim" {
            return (String::new(), Value::Null);
        }
        let claim = app.post(&format!("/v1/claims/{id}"), "{}").await;
        let token = claim.expect(StatusCode::CREATED)["token"].clone();
        return (token.as_str().unwrap().to_owned(), Value::Null);
    }
    if path.starts_with("/v1/keys/") {
        let key = json!({"name": "example", "scopes": ["monitor"]});
        let made = app.post("/v1/keys", key).await.expect(StatusCode::CREATED);
        return (made["id"].as_str().unwrap().to_owned(), Value::Null);
    }
    if ["get_reply", "reply_to_request"].contains(&id) {
        app.post("/v1/queues/orders/purge", "{}").await;
        let ask = json!({"body": "example"});
        let asked = app.post("/v1/queues/orders/requests", ask).await;
        let asked = asked.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
        let receipt = app.receive_one("orders").await["receipt"].clone();
        return (asked.as_str().unwrap().to_owned(), receipt);
    }
    app.post("/v1/queues/orders/purge", json!({"dead_letters": true}))
        .await
        .expect(StatusCode::OK);
    let id = app
        .publish("orders", json!({"body": "example", "priority": 9}))
        .await;
    let mut receipt = Value::Null;
    let is_dead = path.contains("dead-letters");
    if is_dead || wants_receipt {
        receipt = app.receive_one("orders").await["receipt"].clone();
    }
    if is_dead {
        app.settle("nack", "orders", &[&receipt], json!({"dead_letter": true}))
            .await
            .expect(StatusCode::OK);
    }
    (id, receipt)
}

/// A queue and a topic with a schema, apart from those that publishes go to.
async fn make_checked(app: &App) {
    app.queue("checked", json!({})).await;
    app.topic("checked", json!({})).await;
    for owner in ["queues", "topics"] {
        let path = format!("/v1/{owner}/checked/schema");
        let put = app.put(&path, json!({"schema": false})).await;
        put.expect(StatusCode::CREATED);
    }
}

/// Makes a schedule that does not fire meanwhile.
async fn rare_schedule(app: &App, name: &str) {
    let yearly = json!({"cron": "@yearly", "queue": "orders", "message": {"body": 1}});
    let made = app.put(&format!("/v1/schedules/{name}"), yearly).await;
    made.expect(StatusCode::CREATED);
}

/// The queue and the topic that an example is tried on.
fn named(path: &str, operation_id: &str, made: &mut usize) -> (String, &'static str) {
    if operation_id == "put_queue" {
        // Each makes another: their orders differ.
        *made += 1;
        return (format!("made-{made}"), "shop");
    }
    let (queue, topic) = if path.contains("/webhook") {
        ("pushed", "shop")
    } else if path.contains("/schema") {
        ("checked", "checked")
    } else {
        ("orders", "shop")
    };
    (queue.to_owned(), topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs_as_it_stands() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.topic("shop", json!({})).await;
    app.subscription("shop", "billing", json!({})).await;
    // Apart from those who receive: a webhook takes what they wait for.
    app.queue("pushed", json!({})).await;
    make_checked(&app).await;
    rare_schedule(&app, "nightly-report").await;
    let document = document();
    let mut ran = BTreeSet::new();
    let mut made = 0;
    // What takes messages away comes after what leaves them.
    let mut operations = operations(&document);
    operations.sort_by_key(|(method, path, _)| {
        let is_purge = path.ends_with("/purge");
        (
            method == "delete",
            path.ends_with("{queue}") && method == "delete",
            path.ends_with("{topic}") && method == "delete",
            is_purge,
        )
    });
    for (method, path, operation) in &operations {
        let bodies = examples(&document, operation);
        let is_bytes_only = |content_type: &&String| *content_type == "application/octet-stream";
        let content = operation["requestBody"]["content"].as_object();
        let types = content
            .into_iter()
            .flatten()
            .map(|(content_type, _)| content_type);
        for content_type in types.filter(|content_type| !is_bytes_only(content_type)) {
            let has_example = bodies.iter().any(|(of, _)| of == content_type);
            assert!(has_example, "{method} {path} {content_type} has no example");
        }
        let bodies: Vec<Option<(String, Value)>> = if bodies.is_empty() {
            vec![None]
        } else {
            bodies.into_iter().map(Some).collect()
        };
        for body in bodies {
            let wants_receipt = body
                .as_ref()
                .is_some_and(|(_, b)| b.to_string().contains("\"RECEIPT\""));
            let operation_id = operation["operationId"].as_str().unwrap();
            let (id, receipt) = prepare(&app, path, operation_id, wants_receipt).await;
            let (queue, topic) = named(path, operation_id, &mut made);
            let real = path
                .replace("{queue}", &queue)
                .replace("{id}", &id)
                .replace("{correlation_id}", &id)
                .replace("{key}", operation_id)
                .replace("{topic}", topic)
                .replace("{version}", "1")
                .replace("{subscription}", "billing")
                .replace("{schedule}", "nightly-report");
            let real = if operation_id == "give_up_claim" {
                format!("{real}?token={id}")
            } else {
                real
            };
            let mut request = app.request(method.to_uppercase().parse().unwrap(), &real);
            if let Some((content_type, body)) = body {
                let json = body
                    .to_string()
                    .replace("\"RECEIPT\"", &receipt.to_string())
                    .replace("clm_000000000001a", &id);
                request = request.header("content-type", content_type).body(json);
            }
            let answer = Answer::of(request).await;
            let status = answer.status.as_u16();
            assert!((200..300).contains(&status), "{method} {path}: {answer:?}");
            let documented = &operation["responses"][status.to_string()];
            assert!(documented.is_object(), "{method} {path} {status}");
            let documents_body = documented["content"].is_object();
            assert_eq!(documents_body, !answer.text.is_empty(), "{method} {path}");
            if documented["content"]["application/json"].is_object() {
                let schema = &documented["content"]["application/json"]["schema"];
                if let Err(error) = fits(&document, schema, &answer.json()) {
                    panic!("{method} {path}: {error}: {}", answer.text);
                }
            }
            for name in documented["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|h| h.0)
            {
                let is_there = answer.headers.contains_key(name.as_str());
                let is_seldom = ["Link", "Idempotency-Replayed"].contains(&name.as_str());
                assert!(is_there || is_seldom, "{method} {path} {name}");
            }
        }
        ran.insert(operation["operationId"].as_str().unwrap().to_owned());
    }
    assert_eq!(ran.len(), operations.len());
}
