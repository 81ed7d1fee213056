//! Sends what must be refused, and checks the refusal whole.

use serde_json::Value;

use crate::support::{Answer, App, Database};

/// What a database holds, for seeing that it holds the same as before.
pub(super) async fn fingerprint(database: &Database) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT 'ready', count(*) FROM postrider.ready
         UNION ALL SELECT 'parked', count(*) FROM postrider.parked
         UNION ALL SELECT 'messages', count(*) FROM postrider.messages
         UNION ALL SELECT 'dead', count(*) FROM postrider.dead_letters
         UNION ALL SELECT 'dedup', count(*) FROM postrider.dedup
         UNION ALL SELECT 'stream', count(*) FROM postrider.stream
         UNION ALL SELECT name, version FROM postrider.queues
         UNION ALL SELECT 'topic ' || name, version FROM postrider.topics
         UNION ALL SELECT 'subscription ' || name, version FROM postrider.subscriptions
         ORDER BY 1",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

/// The document's name of a path.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    let named: Vec<&str> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| match (at, *part) {
            (3, _) if parts[2] == "topics" => "{topic}",
            (5, _) if parts[2] == "topics" => "{subscription}",
            (3, _) => "{queue}",
            (5, part) if !matches!(part, "redrive" | "purge") => "{id}",
            (_, part) => part,
        })
        .collect();
    named.join("/")
}

/// Sends it, and checks that the refusal is the right one and documented.
pub(super) async fn refused(
    app: &App,
    request: (&str, &str, Body<'_>),
    status: u16,
    code: &str,
) -> Value {
    let (method, path, body) = request;
    let mut builder = app.request(method.parse().unwrap(), path);
    builder = match body {
        Body::None => builder,
        Body::Json(json) => builder
            .header("content-type", "application/json")
            .body(json.to_vec()),
        Body::Typed(content_type, bytes) => builder
            .header("content-type", content_type)
            .body(bytes.to_vec()),
        Body::Untyped(bytes) => builder.body(bytes.to_vec()),
    };
    let answer = Answer::of(builder).await;
    let what = format!(
        "{method} {path} {body:?}: {} {}",
        answer.status, answer.text
    );
    assert_eq!(answer.status.as_u16(), status, "{what}");
    let problem = answer.expect_problem(status, code);
    let document = serde_json::to_value(postrider::http::document()).unwrap();
    let operation = &document["paths"][template(path)][method.to_lowercase()];
    let documented = &operation["responses"][status.to_string()];
    assert!(documented.is_object(), "not documented: {what}");
    if !matches!(status, 400 | 503) {
        let description = documented["description"].as_str().unwrap();
        assert!(
            description.contains(&format!("`{code}`")),
            "not documented: {what}"
        );
    }
    assert!(
        problem["detail"].as_str().unwrap().chars().count() <= 300,
        "{what}"
    );
    problem
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    None,
    Json(&'a [u8]),
    Typed(&'a str, &'a [u8]),
    Untyped(&'a [u8]),
}
