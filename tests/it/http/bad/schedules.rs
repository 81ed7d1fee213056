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

/// Changes of a schedule that is there.
fn changes() -> Vec<Row> {
    let yearly = "/v1/schedules/yearly";
    let mut rows = Vec::new();
    for (patch, pointer) in [
        // What it cannot do without is missing.
        (json!({"cron": null}), ""),
        (json!({"cron": "* * * *"}), "/cron"),
        (json!({"cron": 5}), "/cron"),
        (json!({"timezone": "Mars/Olympus"}), "/timezone"),
        (json!({"queue": "a/b"}), "/queue"),
        (json!({"queue": null}), "/queue"),
        (json!({"topic": "shop"}), "/topic"),
        (json!({"catch_up": "some"}), "/catch_up"),
        (json!({"paused": 1}), "/paused"),
        (json!({"message": "x"}), "/message"),
        (json!({"message": {"body": null}}), "/message/body"),
        (
            json!({"message": {"body_base64": ""}}),
            "/message/body_base64",
        ),
        (
            json!({"message": {"content_type": "a/b"}}),
            "/message/content_type",
        ),
        (
            json!({"message": {"routing_key": "a"}}),
            "/message/routing_key",
        ),
        (json!({"message": {"dedup_id": "a"}}), "/message/dedup_id"),
        (json!({"message": {"priority": 10}}), "/message/priority"),
        (json!({"message": {"priority": 1.5}}), "/message/priority"),
        (
            json!({"message": {"delay_seconds": -1}}),
            "/message/delay_seconds",
        ),
        (
            json!({"message": {"ttl_seconds": 0}}),
            "/message/ttl_seconds",
        ),
        (
            json!({"message": {"ttl_seconds": 1e300}}),
            "/message/ttl_seconds",
        ),
        (
            json!({"message": {"headers": {"Postrider-x": "y"}}}),
            "/message/headers/Postrider-x",
        ),
        (json!({"next_run": "2026-01-01T00:00:00Z"}), "/next_run"),
    ] {
        for content_type in ["application/json", "application/merge-patch+json"] {
            let row = send("PATCH", yearly).typed(content_type, patch.to_string());
            rows.push(row.invalid(pointer).needs_postgres());
        }
    }
    for (target, code) in [("queue", "queue-not-found"), ("topic", "topic-not-found")] {
        let mut patch = json!({"queue": null});
        patch[target] = json!("none");
        let row = send("PATCH", yearly).json(patch.to_string());
        rows.push(row.refused(404, code).needs_postgres());
    }
    let large = json!({"message": {"body": "x".repeat(1 << 20)}}).to_string();
    let row = send("PATCH", yearly).json(large);
    rows.push(row.refused(413, "message-too-large").needs_postgres());
    for method in ["PUT", "PATCH", "DELETE"] {
        let row = send(method, yearly).json(with("/cron", json!("@daily")));
        let row = row.header("if-match", "\"other\"");
        rows.push(row.refused(412, "precondition-failed").needs_postgres());
    }
    // It rests already: there is nothing to change.
    for verb in ["pause", "resume"] {
        rows.push(post(format!("{yearly}/{verb}?at=1"), "").refused(400, "invalid-query"));
        rows.push(send("GET", format!("{yearly}/{verb}")).refused(405, "method-not-allowed"));
        rows.push(post(format!("{yearly}/{verb}/now"), "").refused(404, "not-found"));
    }
    rows.push(
        post(format!("{yearly}/pause"), "")
            .answered(200)
            .needs_postgres(),
    );
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
    check(|_| [parts(), changes(), names()].concat()).await;
}
