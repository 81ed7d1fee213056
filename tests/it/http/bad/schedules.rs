//! Schedules that cannot be.

use serde_json::{Value, json};

use super::check::check;
use super::table::{Row, post, send};

const SCHEDULE: &str = "/v1/schedules/s";

/// A schedule that could be, with one part that is otherwise.
fn with(part: &str, value: Value) -> String {
    let mut schedule = json!({"cron": "@daily", "queue": "orders", "message": {"body": 1}});
    let (parent, name) = part.rsplit_once('/').unwrap();
    let parent = schedule.pointer_mut(parent).unwrap();
    parent[name] = value;
    schedule.to_string()
}

/// What is refused without a look at what is there.
fn parts() -> Vec<Row> {
    let mut rows = Vec::new();
    for (pointer, value) in [
        ("/cron", json!("")),
        ("/cron", json!("* * * *")),
        ("/cron", json!("61 * * * *")),
        ("/cron", json!("0 0 30 2 *")),
        ("/cron", json!("@reboot")),
        ("/cron", json!("\u{0}")),
        ("/cron", json!(5)),
        ("/timezone", json!("Mars/Olympus")),
        ("/timezone", json!("")),
        ("/queue", json!("a/b")),
        ("/queue", json!("a\u{0}")),
        ("/topic", json!("t")),
        ("/catch_up", json!("some")),
        ("/paused", json!(1)),
        ("/message", json!("x")),
        ("/message/deliver_at", json!("2026-01-01T00:00:00Z")),
        ("/message/dedup_id", json!("x")),
        ("/message/body_base64", json!("")),
        ("/message/content_type", json!("text/plain")),
        ("/message/routing_key", json!("a")),
        ("/message/headers/Postrider-x", json!("y")),
        ("/next_run", json!(null)),
    ] {
        let body = if let Some(name) = pointer.strip_prefix("/message/headers/") {
            with("/message/headers", json!({name: value}))
        } else {
            with(pointer, value)
        };
        rows.push(send("PUT", SCHEDULE).json(body).invalid(pointer));
    }
    rows.push(send("PUT", SCHEDULE).json("{}").refused(422, "invalid"));
    rows.push(send("PUT", SCHEDULE).json("[]").refused(422, "invalid"));
    rows.push(
        send("PUT", SCHEDULE)
            .json("{")
            .refused(400, "malformed-json"),
    );
    rows.push(send("PUT", SCHEDULE).refused(415, "unsupported-media-type"));
    let system = send("PUT", "/v1/schedules/system.s").json(with("/cron", json!("@daily")));
    rows.push(system.invalid("schedule"));
    for query in ["limit=0", "limit=1001", "cursor=x", "prefix=%00", "x=1"] {
        let code = if query.starts_with("cursor") {
            "invalid-cursor"
        } else {
            "invalid-query"
        };
        rows.push(send("GET", format!("/v1/schedules?{query}")).refused(400, code));
    }
    rows
}

/// Names that nothing can have, and what is not there.
fn names() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, is_name) in [
        ("a%20b", false),
        ("a..b", false),
        ("-a", false),
        ("none", true),
    ] {
        let path = format!("/v1/schedules/{name}");
        for row in [
            send("GET", &path),
            send("DELETE", &path),
            send("PATCH", &path).json("{}"),
            post(format!("{path}/pause"), ""),
            post(format!("{path}/resume"), ""),
        ] {
            rows.push(if is_name {
                row.refused(404, "schedule-not-found").needs_postgres()
            } else {
                row.invalid("schedule")
            });
        }
    }
    for (target, code) in [("queue", "queue-not-found"), ("topic", "topic-not-found")] {
        let settings = json!({"cron": "@daily", target: "none", "message": {"body": 1}});
        let row = send("PUT", SCHEDULE).json(settings.to_string());
        rows.push(row.refused(404, code).needs_postgres());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_that_cannot_be_are_refused() {
    check(|_| [parts(), names()].concat()).await;
}
