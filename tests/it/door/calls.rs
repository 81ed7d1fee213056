//! What a call is refused with, in the caller's transaction.

use serde_json::json;

use super::{refusal, rows, run};
use crate::support::{App, Database};

/// SQLSTATE and code of what is refused.
const CALLS: &[(&str, &str, &str)] = &[
    (
        "42704",
        "queue-not-found",
        "postrider.publish('other', '1')",
    ),
    (
        "42704",
        "topic-not-found",
        "postrider.publish_topic('q', '1')",
    ),
    ("22023", "invalid", "postrider.publish(NULL, '1')"),
    ("22023", "invalid", "postrider.publish('', '1')"),
    ("22023", "invalid", "postrider.publish('a/b', '1')"),
    ("22023", "invalid", "postrider.publish('a..b', '1')"),
    ("22023", "invalid", "postrider.publish(E'q\\n', '1')"),
    ("22023", "invalid", "postrider.publish_topic('-t', '1')"),
    (
        "22023",
        "invalid",
        "postrider.publish_topic('system.events', '1')",
    ),
    ("22004", "invalid", "postrider.publish('q', NULL)"),
    (
        "54000",
        "message-too-large",
        "postrider.publish('q', '12345678901')",
    ),
    (
        "54000",
        "message-too-large",
        "postrider.publish_topic('t', '12345678901')",
    ),
    // Ten bytes are not ten characters.
    (
        "54000",
        "message-too-large",
        "postrider.publish('q', '\"äöüäö\"')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', priority => 10)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', priority => -1)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', delay_seconds => -0.0001)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', delay_seconds => 31536000.001)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', delay_seconds => 'NaN')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', delay_seconds => 1, deliver_at => now())",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', deliver_at => now() + interval '367 days')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', deliver_at => 'infinity')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', deliver_at => '-infinity')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', ttl_seconds => 0)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', ttl_seconds => 0.0001)",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', ttl_seconds => 'NaN')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', ttl_seconds => 31536001)",
    ),
    ("22023", "invalid", "postrider.publish('q', '1', key => '')"),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', key => repeat('x', 257))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', dedup_id => E'a\\nb')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', dedup_id => E'a\\u0085b')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', correlation_id => E'\\x7f')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', reply_to => repeat('ä', 129))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', traceparent => 'none')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '[]')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '\"x\"')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"a\": 1}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"a\": null}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"\": \"x\"}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"a b\": \"x\"}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"ä\": \"x\"}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => '{\"a\": \"x\\ny\"}')",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => jsonb_build_object('a', repeat('x', 4097)))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => jsonb_build_object(repeat('x', 129), ''))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish('q', '1', headers => (SELECT jsonb_object_agg(n, '') FROM generate_series(1, 65) n))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish_topic('t', '1', routing_key => repeat('x', 256))",
    ),
    (
        "22023",
        "invalid",
        "postrider.publish_topic('t', '1', routing_key => E'a\\tb')",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_refused_with_a_state_a_code_and_a_hint() {
    let app = App::start().await;
    app.queue("q", json!({"max_message_bytes": 10})).await;
    app.topic("t", json!({"max_message_bytes": 10})).await;
    let mut application = app.database.connect().await;
    for (state, code, call) in CALLS {
        let (got, message, detail, hint) =
            refusal(&mut application, &format!("SELECT {call}")).await;
        assert_eq!(
            (got.as_str(), detail),
            (*state, format!("code: {code}")),
            "{call}: {message}"
        );
        assert!(!message.is_empty() && !hint.is_empty(), "{call}");
    }
    // jsonb itself refuses NUL.
    let (state, ..) = refusal(
        &mut application,
        r#"SELECT postrider.publish('q', '"\u0000"')"#,
    )
    .await;
    assert_eq!(state, "22P05");
    assert_eq!(rows(&app.database).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_within_the_bounds_is_taken() {
    // No gateway that would take the rows away.
    let database = Database::migrated().await;
    database
        .execute(
            "INSERT INTO postrider.topics (name, retention_ms, max_message_bytes, dedup_window_ms)
             VALUES ('t', 0, 10, 1000)",
        )
        .await;
    let mut application = database.connect().await;
    for arguments in [
        "'1234567890'",
        "'null'",
        "'1', priority => 9, key => repeat('x', 256), routing_key => repeat('x', 255)",
        "'1', delay_seconds => 31536000, ttl_seconds => 31536000",
        "'1', delay_seconds => 0, ttl_seconds => 0.0005",
        "'1', deliver_at => '0001-01-01', headers => 'null'",
        "'1', headers => '{}'",
        "'1', headers => jsonb_build_object(repeat('x', 128), repeat('x', 4096), '!#$%&''*+-.^_`|~', 'ä')",
        "'1', headers => (SELECT jsonb_object_agg(n, '') FROM generate_series(1, 64) n)",
    ] {
        let call = format!("SELECT postrider.publish_topic('t', {arguments})");
        run(&mut application, &call).await;
    }
    assert_eq!(rows(&database).await, (9, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_are_described_and_have_a_version() {
    let database = Database::migrated().await;
    let mut application = database.connect().await;
    let version: i32 = sqlx::query_scalar("SELECT postrider.door_version()")
        .fetch_one(&mut application)
        .await
        .unwrap();
    assert_eq!(version, 1);
    let bare: Vec<String> = sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'postrider'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL",
    )
    .fetch_all(&mut application)
    .await
    .unwrap();
    assert_eq!(bare, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_functions_of_version_1_take_and_return_this() {
    // Applications call them so. Parameters with defaults may be added at the end;
    // anything else is another version, and the functions of this one stay.
    let rest = "key text DEFAULT NULL::text, \
         priority integer DEFAULT NULL::integer, \
         delay_seconds numeric DEFAULT NULL::numeric, \
         deliver_at timestamp with time zone DEFAULT NULL::timestamp with time zone, \
         ttl_seconds numeric DEFAULT NULL::numeric, \
         dedup_id text DEFAULT NULL::text, \
         correlation_id text DEFAULT NULL::text, \
         reply_to text DEFAULT NULL::text, \
         traceparent text DEFAULT NULL::text";
    let database = Database::migrated().await;
    let functions: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid)
         FROM pg_proc
         WHERE pronamespace = 'postrider'::regnamespace
           AND proname IN ('door_version', 'publish', 'publish_topic')
         ORDER BY proname",
    )
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap();
    let function = |name: &str, arguments: &str, result: &str| {
        (name.to_owned(), arguments.to_owned(), result.to_owned())
    };
    let publish = format!("queue text, body jsonb, headers jsonb DEFAULT NULL::jsonb, {rest}");
    let publish_topic = format!(
        "topic text, body jsonb, routing_key text DEFAULT ''::text, \
         headers jsonb DEFAULT NULL::jsonb, {rest}"
    );
    assert_eq!(
        functions,
        [
            function("door_version", "", "integer"),
            function("publish", &publish, "bigint"),
            function("publish_topic", &publish_topic, "bigint"),
        ]
    );
}
