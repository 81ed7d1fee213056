//! What schemas refuse, and publishes by them.

use serde_json::json;

use super::check::check;
use super::table::{Row, post, send};

fn put(path: &str, body: impl Into<Vec<u8>>) -> Row {
    send("PUT", path).json(body)
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (kind, there) in [("queue", "orders"), ("topic", "shop")] {
        let path = &format!("/v1/{kind}s/{there}/schema");
        let missing = &format!("/v1/{kind}s/none/schema");
        let system = &format!("/v1/{kind}s/system.events/schema");
        let gone = &format!("{kind}-not-found");
        let invalid = |body: &str| put(path, body).refused(422, "schema-invalid");
        let large = json!({"schema": {"title": "x".repeat(65_536)}}).to_string();
        rows.extend([
            put(path, "{}").refused(422, "invalid"),
            put(path, "[]").refused(422, "invalid"),
            put(path, "{").refused(400, "malformed-json"),
            put(path, "").refused(400, "malformed-json"),
            put(path, r#"{"schema": {}, "compatibility": "most"}"#).invalid("/compatibility"),
            put(path, r#"{"schema": {}, "x": 1}"#).refused(422, "invalid"),
            put(&format!("{path}?x=1"), r#"{"schema": {}}"#).refused(400, "invalid-query"),
            send("PUT", path.as_str())
                .untyped(r#"{"schema": {}}"#)
                .refused(415, "unsupported-media-type"),
            put(system, r#"{"schema": {}}"#).refused(422, "invalid"),
            put(missing, r#"{"schema": {}}"#)
                .refused(404, gone)
                .needs_postgres(),
            // Told without a look at the database.
            put(path, large).refused(422, "schema-invalid"),
            invalid(r#"{"schema": {"a": 1, "a": 2}}"#),
            invalid(r#"{"schema": {"minimum": 1e999}}"#),
            // The owner is looked for first.
            invalid(r#"{"schema": null}"#).needs_postgres(),
            invalid(r#"{"schema": []}"#).needs_postgres(),
            invalid(r#"{"schema": 7}"#).needs_postgres(),
            invalid(r#"{"schema": {"type": "text"}}"#).needs_postgres(),
            invalid(r#"{"schema": {"$schema": "x"}}"#).needs_postgres(),
            invalid(r#"{"schema": {"$ref": "http://127.0.0.1/"}}"#).needs_postgres(),
            invalid(r##"{"schema": {"$ref": "#"}}"##).needs_postgres(),
            invalid(r#"{"schema": {"pattern": "(?=a)"}}"#).needs_postgres(),
            send("GET", path.as_str())
                .refused(404, "schema-not-found")
                .needs_postgres(),
            send("GET", missing.as_str())
                .refused(404, gone)
                .needs_postgres(),
            send("GET", format!("{path}?x=1")).refused(400, "invalid-query"),
            send("DELETE", path.as_str())
                .refused(404, "schema-not-found")
                .needs_postgres(),
            send("DELETE", missing.as_str())
                .refused(404, gone)
                .needs_postgres(),
            send("DELETE", system.as_str()).refused(422, "invalid"),
            send("GET", format!("{path}/versions?limit=0")).refused(400, "invalid-query"),
            send("GET", format!("{path}/versions?cursor=x")).refused(400, "invalid-cursor"),
            // A cursor over names.
            send("GET", format!("{path}/versions?cursor=bmE")).refused(400, "invalid-cursor"),
            send("GET", format!("{missing}/versions"))
                .refused(404, gone)
                .needs_postgres(),
            send("GET", format!("{path}/versions/1"))
                .refused(404, "schema-not-found")
                .needs_postgres(),
            send("GET", format!("{path}/versions/x"))
                .refused(404, "schema-not-found")
                .needs_postgres(),
            send("GET", format!("{path}/versions/%ff")).refused(400, "invalid-path"),
        ]);
    }
    rows
}

/// What may not follow a schema, and messages that it refuses. Those of `checked`
/// are integers.
fn by_what_is_there() -> Vec<Row> {
    let violation = |row: Row, pointer: &str| {
        let row = row.refused(422, "schema-violation").at(pointer);
        row.needs_postgres()
    };
    let mut rows = Vec::new();
    for kind in ["queue", "topic"] {
        let path = &format!("/v1/{kind}s/checked/schema");
        for narrower in [
            r#"{"schema": {"type": "string"}}"#,
            r#"{"schema": {"type": "integer", "minimum": 0}}"#,
            r#"{"schema": false, "compatibility": "backward"}"#,
            r#"{"schema": {"type": "number"}, "compatibility": "forward"}"#,
            r#"{"schema": {"type": "number"}, "compatibility": "full"}"#,
        ] {
            let row = put(path, narrower).refused(409, "schema-incompatible");
            rows.push(row.needs_postgres());
        }
        let messages = format!("/v1/{kind}s/checked/messages");
        for body in [r#""x""#, "1.5", "null", "1e999"] {
            let message = format!(r#"{{"body": {body}}}"#);
            rows.push(violation(post(&messages, message.as_str()), "/body"));
            let batch = format!(r#"{{"messages": [{{"body": 1}}, {message}]}}"#);
            rows.push(violation(post(&messages, batch), "/messages/1/body"));
            let steps = format!(
                r#"{{"publishes": [{{"queue": "orders", "message": {{"body": 1}}}},
                {{"{kind}": "checked", "message": {message}}}]}}"#
            );
            let row = post("/v1/transactions", steps);
            rows.push(violation(row, "/publishes/1/message/body"));
            let schedule =
                format!(r#"{{"cron": "@yearly", "{kind}": "checked", "message": {message}}}"#);
            for name in ["new", "yearly"] {
                let row = put(&format!("/v1/schedules/{name}"), schedule.as_str());
                rows.push(violation(row, "/message/body"));
            }
        }
    }
    for body in [r#""x""#, "1.5"] {
        let request = format!(r#"{{"body": {body}}}"#);
        let row = post("/v1/queues/checked/requests", request);
        rows.push(violation(row, "/body"));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_schemas_is_documented_and_changes_nothing() {
    check(|_| [rows(), by_what_is_there()].concat()).await;
}
