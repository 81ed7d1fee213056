//! NUL, carriage returns and line feeds where a name or a header's value is to
//! stand: 422 with a pointer, and never the database's complaint.

use serde_json::{Value, json};

use super::MESSAGES;
use super::check::check;
use super::http::publish;
use super::table::{Row, post, raw, send};

/// Texts that no name, key or header may be.
const TEXTS: [&str; 4] = ["a\0", "\0", "a\r\nb: c", "a\nb"];

const TOPIC: &str = "/v1/topics/shop/messages";
const SUBSCRIPTION: &str = "/v1/topics/shop/subscriptions/n";
const REDRIVE: &str = "/v1/queues/orders/dead-letters/redrive";

fn of_publishes() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut wrong = |path: &str, message: Value, pointer: String| {
        let row = post(path, message.to_string());
        rows.push(row.invalid(pointer).needs_postgres());
    };
    for text in TEXTS {
        for path in [TOPIC, "/v1/topics/shop/explain"] {
            let message = json!({"body": 1, "routing_key": text});
            wrong(path, message, "/routing_key".to_owned());
        }
        for path in [TOPIC, MESSAGES] {
            for field in ["key", "dedup_id", "correlation_id", "reply_to"] {
                wrong(path, json!({"body": 1, field: text}), format!("/{field}"));
            }
            let named = json!({"body": 1, "headers": {text: "b"}});
            wrong(path, named, format!("/headers/{text}"));
            let valued = json!({"body": 1, "headers": {"a": text}});
            wrong(path, valued, "/headers/a".to_owned());
            let typed = json!({"body_base64": "", "content_type": text});
            wrong(path, typed, "/content_type".to_owned());
        }
    }
    rows
}

fn of_subscriptions() -> Vec<Row> {
    let mut rows = Vec::new();
    for text in TEXTS {
        for (subscription, pointer) in [
            (json!({"queue": text}), "/queue".to_owned()),
            (
                json!({"filter": {"routing_key": text}}),
                "/filter/routing_key".to_owned(),
            ),
            (
                json!({"filter": {"headers": {text: "b"}}}),
                format!("/filter/headers/{text}"),
            ),
            (
                json!({"filter": {"headers": {"a": text}}}),
                "/filter/headers/a".to_owned(),
            ),
            (
                json!({"webhook": {"url": "https://1.1.1.1/", "headers": {text: "b"}}}),
                format!("/webhook/headers/{text}"),
            ),
            (
                json!({"webhook": {"url": "https://1.1.1.1/", "headers": {"a": text}}}),
                "/webhook/headers/a".to_owned(),
            ),
        ] {
            let row = send("PUT", SUBSCRIPTION).json(subscription.to_string());
            rows.push(row.invalid(pointer));
        }
    }
    rows
}

fn of_webhooks() -> Vec<Row> {
    let mut rows = Vec::new();
    for text in TEXTS {
        for (headers, pointer) in [
            (json!({text: "b"}), format!("/headers/{text}")),
            (json!({"a": text}), "/headers/a".to_owned()),
        ] {
            let webhook = json!({"url": "https://1.1.1.1/", "headers": headers});
            for (method, queue) in [("PUT", "orders"), ("PUT", "pushed"), ("PATCH", "pushed")] {
                let row = send(method, format!("/v1/queues/{queue}/webhook"));
                let row = row.json(webhook.to_string()).invalid(pointer.clone());
                rows.push(row.needs_postgres());
            }
        }
        // An id is no name: what cannot be one is of no message.
        let resend = json!({"message_ids": [text]}).to_string();
        let row = post("/v1/queues/pushed/webhook/resend", resend);
        rows.push(row.answered(200).needs_postgres());
    }
    rows
}

fn of_dead_letters() -> Vec<Row> {
    let mut rows = Vec::new();
    for text in TEXTS {
        let elsewhere = json!({"filter": {}, "to_queue": text}).to_string();
        let row = post(REDRIVE, elsewhere).invalid("/to_queue");
        rows.push(row.needs_postgres());
        // Neither is this a name.
        let row = post(REDRIVE, json!({"ids": [text]}).to_string());
        let row = row.refused(404, "dead-letter-not-found");
        rows.push(row.needs_postgres());
    }
    rows
}

fn of_keys() -> Vec<Row> {
    let mut rows = Vec::new();
    for text in TEXTS {
        let named = json!({"name": text, "scopes": ["monitor"]}).to_string();
        rows.push(post("/v1/keys", named).invalid("/name"));
        for scope in [
            text.to_owned(),
            format!("publish:{text}"),
            format!("publish:{text}*"),
        ] {
            let key = json!({"name": "x", "scopes": ["monitor", scope]}).to_string();
            rows.push(post("/v1/keys", key).invalid("/scopes/1"));
        }
    }
    rows
}

/// What is sent as bytes has its properties in HTTP's own headers.
fn of_properties() -> Vec<Row> {
    let mut rows = Vec::new();
    let with = |header: &str| {
        let headers = format!(
            "Connection: close\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n{header}"
        );
        raw(publish(&headers, b"x"))
    };
    for name in ["Postrider-Key", "Postrider-Header-A", "Postrider-Reply-To"] {
        // A NUL in a header of HTTP is no HTTP: 400 by the server, before there is
        // a message of which it could be said that it has a NUL in it (422).
        for value in ["a\0b", "\0", "a\rb", "a\u{7f}b", "\u{1}"] {
            rows.push(with(&format!("{name}: {value}")).rejected(&[400]));
        }
        // This is HTTP, and no property.
        let row = with(&format!("{name}: \u{e4}\u{202e}"));
        rows.push(row.invalid(name.to_lowercase()).needs_postgres());
    }
    for header in ["Postrider-Header-A\0: b", "Postrider-Header-\r\n: b"] {
        rows.push(with(header).rejected(&[400]));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_and_no_header_holds_control_characters() {
    check(|_| {
        [
            of_publishes(),
            of_subscriptions(),
            of_webhooks(),
            of_dead_letters(),
            of_keys(),
            of_properties(),
        ]
        .concat()
    })
    .await;
}
