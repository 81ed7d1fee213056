//! NUL, carriage returns and line feeds where a name or a header's value is to
//! stand: 422 with a pointer, and never the database's complaint.

use serde_json::{Value, json};

use super::MESSAGES;
use super::check::{There, check};
use super::http::publish;
use super::table::{Row, post, raw, send};

/// Texts that no name, key or header may be.
const TEXTS: [&str; 4] = ["a\0", "\0", "a\r\nb: c", "a\nb"];

const TOPIC: &str = "/v1/topics/shop/messages";
const SUBSCRIPTION: &str = "/v1/topics/shop/subscriptions/n";
const REDRIVE: &str = "/v1/queues/orders/dead-letters/redrive";

/// Messages with this text in one of these fields, or in a header or a content
/// type, and where that is.
fn messages(text: &str, fields: &[&str]) -> Vec<(Value, String)> {
    let mut messages: Vec<(Value, String)> = fields
        .iter()
        .map(|field| (json!({"body": 1, *field: text}), format!("/{field}")))
        .collect();
    let named = json!({"body": 1, "headers": {text: "b"}});
    messages.push((named, format!("/headers/{text}")));
    let valued = json!({"body": 1, "headers": {"a": text}});
    messages.push((valued, "/headers/a".to_owned()));
    let typed = json!({"body_base64": "", "content_type": text});
    messages.push((typed, "/content_type".to_owned()));
    messages
}

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
            let fields = ["key", "dedup_id", "correlation_id", "reply_to"];
            for (message, pointer) in messages(text, &fields) {
                let batch = json!({"messages": [{"body": 1}, message]});
                wrong(path, batch, format!("/messages/1{pointer}"));
                wrong(path, message, pointer);
            }
        }
        // The rest of its texts are the gateway's.
        for (message, pointer) in messages(text, &["key"]) {
            wrong("/v1/queues/orders/requests", message, pointer);
        }
    }
    rows
}

fn of_replies(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    let reply = |reply: Value| post("/v1/queues/orders/reply", reply.to_string());
    for text in TEXTS {
        for (mut message, pointer) in messages(text, &[]) {
            message["receipt"] = json!(there.receipt);
            rows.push(reply(message).invalid(pointer).needs_postgres());
        }
        let row = reply(json!({"receipt": text, "body": 1}));
        let row = row.refused(422, "receipt-malformed");
        rows.push(row.needs_postgres());
    }
    rows
}

fn of_schedules() -> Vec<Row> {
    let mut rows = Vec::new();
    let put = |path: &str, schedule: Value| {
        let path = format!("/v1/schedules/{path}");
        send("PUT", path).json(schedule.to_string())
    };
    let patch = |patch: Value| send("PATCH", "/v1/schedules/yearly").json(patch.to_string());
    for text in TEXTS {
        let fields = ["key", "correlation_id", "reply_to"];
        for (message, pointer) in messages(text, &fields) {
            let pointer = format!("/message{pointer}");
            for target in [json!({"queue": "orders"}), json!({"topic": "shop"})] {
                let mut schedule = target;
                schedule["cron"] = json!("@yearly");
                schedule["message"] = message.clone();
                for name in ["new", "yearly"] {
                    let row = put(name, schedule.clone()).invalid(pointer.clone());
                    rows.push(row.needs_postgres());
                }
            }
            let mut message = message;
            if message.get("body_base64").is_some() {
                message["body"] = Value::Null;
            }
            let row = patch(json!({"message": message})).invalid(pointer);
            rows.push(row.needs_postgres());
        }
        let routed = json!({"body": 1, "routing_key": text});
        let schedule = json!({"cron": "@yearly", "topic": "shop", "message": routed});
        rows.push(put("new", schedule).invalid("/message/routing_key"));
        for field in ["cron", "timezone", "queue", "catch_up"] {
            let mut schedule =
                json!({"cron": "@yearly", "queue": "orders", "message": {"body": 1}});
            schedule[field] = json!(text);
            rows.push(put("new", schedule).invalid(format!("/{field}")));
            let row = patch(json!({field: text})).invalid(format!("/{field}"));
            rows.push(row.needs_postgres());
        }
        let row = patch(json!({"queue": null, "topic": text})).invalid("/topic");
        rows.push(row.needs_postgres());
    }
    rows
}

fn of_transactions(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    let lease = |queue: &str, receipt: &str| json!({"queue": queue, "receipt": receipt});
    let transact = |steps: Value| post("/v1/transactions", steps.to_string());
    let good = &there.receipt;
    for text in TEXTS {
        let fields = ["key", "dedup_id", "correlation_id", "reply_to"];
        for (message, pointer) in messages(text, &fields) {
            for (kind, name) in [("queue", "orders"), ("topic", "shop")] {
                let publish = json!({kind: name, "message": message});
                let steps = json!({"acks": [lease("orders", good)], "publishes": [publish]});
                let row = transact(steps).invalid(format!("/publishes/0/message{pointer}"));
                rows.push(row.needs_postgres());
            }
        }
        // What is told without a look at what is there.
        let routed = json!({"body": 1, "routing_key": text});
        for (steps, pointer) in [
            (
                json!({"publishes": [{"topic": "shop", "message": routed}]}),
                "/publishes/0/message/routing_key",
            ),
            (
                json!({"publishes": [{"queue": text, "message": {"body": 1}}]}),
                "/publishes/0/queue",
            ),
            (
                json!({"publishes": [{"topic": text, "message": {"body": 1}}]}),
                "/publishes/0/topic",
            ),
            (json!({"acks": [lease(text, good)]}), "/acks/0/queue"),
            (json!({"nacks": [lease(text, good)]}), "/nacks/0/queue"),
            (
                json!({"claims": [{"key": text, "token": "clm_0000000000001"}]}),
                "/claims/0/key",
            ),
            (
                json!({"claims": [{"key": "k", "token": text}]}),
                "/claims/0/token",
            ),
        ] {
            rows.push(transact(steps).invalid(pointer));
        }
        for verb in ["acks", "nacks"] {
            let row = transact(json!({verb: [lease("orders", text)]}));
            let row = row.refused(422, "receipt-malformed");
            rows.push(row.at(format!("/{verb}/0/receipt")));
        }
        let row = post("/v1/claims/k/complete", json!({"token": text}).to_string());
        rows.push(row.invalid("/token"));
        let mut nack = lease("orders", good);
        nack["reason"] = json!(format!("{text}\0"));
        let row = transact(json!({"nacks": [nack]}));
        rows.push(row.invalid("/nacks/0/reason"));
    }
    rows
}

fn of_schemas() -> Vec<Row> {
    let put = |text: &str| {
        let schema = json!({"schema": {}, "compatibility": text}).to_string();
        ["/v1/queues/orders/schema", "/v1/topics/shop/schema"]
            .map(|path| send("PUT", path).json(schema.as_str()))
            .map(|row| row.invalid("/compatibility"))
    };
    TEXTS.iter().flat_map(|text| put(text)).collect()
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
    check(|there| {
        [
            of_publishes(),
            of_replies(there),
            of_schedules(),
            of_transactions(there),
            of_schemas(),
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
