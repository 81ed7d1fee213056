//! Who may call, and what the caller's session can change.

use reqwest::StatusCode;
use serde_json::json;
use sqlx::Connection as _;

use super::{refusal, rows, run};
use crate::http::idempotency::keyed;
use crate::support::{App, Database, Gateway, config, eventually};

/// A role of this test's own that may publish and nothing else.
async fn publisher(database: &Database) -> String {
    let role = format!("publisher_of_{}", database.name);
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN IN ROLE postrider_publisher"
        ))
        .await;
    role
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_may_publish_and_nothing_else() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    app.topic("t", json!({})).await;
    app.subscription("t", "s", json!({})).await;
    let role = publisher(&app.database).await;
    let mut publisher = app.database.connect_as(&role).await;
    run(
        &mut publisher,
        "SELECT postrider.door_version();
         SELECT postrider.publish('q', '1'); SELECT postrider.publish_topic('t', '2')",
    )
    .await;
    assert_eq!(app.receive_one("q").await["body"], 1);
    assert_eq!(app.receive_one("t.s").await["body"], 2);
    let mut owner = app.database.connect().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'postrider'::regnamespace AND relkind IN ('r', 'p', 'S')",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    for table in tables {
        for statement in [
            format!("SELECT * FROM postrider.{table}"),
            format!("DELETE FROM postrider.{table}"),
        ] {
            let (state, ..) = refusal(&mut publisher, &statement).await;
            // Of a sequence nobody can delete.
            assert!(
                ["42501", "42809"].contains(&&*state),
                "{statement}: {state}"
            );
        }
    }
    for statement in [
        "SELECT postrider.door_enter(NULL, 'q', '', 9, '1', NULL, NULL, 0, NULL, NULL, NULL, NULL,
            NULL, NULL, NULL)",
        "SELECT postrider.body_of(1, 1, false)",
        "SELECT postrider.free_in_flight(1, 1, 0)",
        "INSERT INTO postrider.door (queue, body, priority) VALUES ('q', '1', 0)",
        "CREATE TABLE postrider.mine (x integer)",
    ] {
        let (state, ..) = refusal(&mut publisher, statement).await;
        assert_eq!(state, "42501", "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_publisher_may_not_publish() {
    let app = App::start().await;
    app.queue("q", json!({})).await;
    let role = format!("stranger_of_{}", app.database.name);
    app.database
        .execute(&format!("CREATE ROLE {role} LOGIN"))
        .await;
    let mut stranger = app.database.connect_as(&role).await;
    let (state, ..) = refusal(&mut stranger, "SELECT postrider.publish('q', '1')").await;
    assert_eq!(state, "42501");
    stranger.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_names_nor_settings_of_the_caller_change_what_a_call_does() {
    let app = App::start().await;
    app.queue("q", json!({"max_message_bytes": 100})).await;
    let role = publisher(&app.database).await;
    app.database
        .execute(&format!("CREATE SCHEMA hostile AUTHORIZATION {role}"))
        .await;
    let mut publisher = app.database.connect_as(&role).await;
    run(
        &mut publisher,
        r"CREATE TEMP TABLE queues (name text, max_message_bytes bigint);
        INSERT INTO pg_temp.queues VALUES ('free', 1000000);
        CREATE FUNCTION hostile.octet_length(bytea) RETURNS integer LANGUAGE sql RETURN 0;
        CREATE FUNCTION hostile.is_not(text, text) RETURNS boolean LANGUAGE sql RETURN false;
        CREATE FUNCTION hostile.convert_to(text, name) RETURNS bytea LANGUAGE sql RETURN ''::bytea;
        CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            RETURN '2000-01-01'::timestamptz;
        CREATE OPERATOR hostile.!~ (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.is_not);
        CREATE OPERATOR hostile.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.is_not);
        SET search_path = hostile, pg_temp, pg_catalog;
        SET standard_conforming_strings = off;
        SET escape_string_warning = off;
        SET timezone = 'Pacific/Kiritimati';
        SET datestyle = 'SQL, DMY';
        SET intervalstyle = 'sql_standard';
        SET extra_float_digits = -15;
        SET bytea_output = 'escape'",
    )
    .await;
    for call in [
        "postrider.publish('free', '1')",
        "postrider.publish('q', to_jsonb(repeat('x', 100)))",
        "postrider.publish('q', '1', key => E'\\n')",
        "postrider.publish('q', '1', headers => '{\"a b\": \"\"}')",
        "postrider.publish('a/b', '1')",
        "postrider.publish('q', '1', deliver_at => pg_catalog.clock_timestamp() + '367 days')",
    ] {
        let (state, message, ..) = refusal(&mut publisher, &format!("SELECT {call}")).await;
        assert!(
            ["22023", "54000", "42704"].contains(&&*state),
            "{call}: {state} {message}"
        );
    }
    run(
        &mut publisher,
        r#"SELECT postrider.publish('q', '{"n": 1.23456789012345, "ü": "é"}', delay_seconds => 0.5)"#,
    )
    .await;
    let message = app.receive_one("q").await;
    assert_eq!(
        message["body"],
        json!({"n": 1.234_567_890_123_45, "ü": "é"})
    );
    // As a collation that has no order of characters: nothing is compared by it.
    let has_icu = sqlx::query_scalar::<_, bool>(
        "SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')",
    )
    .fetch_one(&mut app.database.connect().await)
    .await
    .unwrap();
    if has_icu {
        run(
            &mut publisher,
            "CREATE COLLATION hostile.loose
                (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             SELECT postrider.publish('q' COLLATE hostile.loose, '7',
                key => 'k' COLLATE hostile.loose)",
        )
        .await;
        assert_eq!(app.receive_one("q").await["body"], 7);
        let call = "SELECT postrider.publish('Q' COLLATE hostile.loose, '7')";
        assert_eq!(refusal(&mut publisher, call).await.0, "42704");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_are_migrated_at_the_same_time_share_the_role() {
    let mut migrations = tokio::task::JoinSet::new();
    for _ in 0..4 {
        migrations.spawn(async {
            let database = Database::empty().await;
            let store = database.store(1000);
            store.migrate().await.unwrap();
            store.close().await;
            database
        });
    }
    for database in migrations.join_all().await {
        let granted: bool = sqlx::query_scalar(
            "SELECT has_function_privilege('postrider_publisher', oid, 'EXECUTE')
             FROM pg_proc WHERE proname = 'publish' AND pronamespace = 'postrider'::regnamespace",
        )
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
        assert!(granted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_may_make_no_roles_migrates_all_the_same() {
    let database = Database::empty().await;
    let role = format!("modest_{}", database.name);
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}",
            database.name
        ))
        .await;
    let url: postrider::config::DatabaseUrl = database.url_as(&role).parse().unwrap();
    let store = postrider::store::Store::new(url.options(), 4, 1000);
    store.migrate().await.unwrap();
    store.close().await;
}

/// Functions of the schema that a role may call.
async fn callable(database: &Database, role: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'postrider'::regnamespace
           AND has_function_privilege($1, oid, 'EXECUTE')
         ORDER BY proname COLLATE \"C\"",
    )
    .bind(role)
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

/// Tables and sequences of the schema of which a role may do anything at all.
async fn reachable(database: &Database, role: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'postrider'::regnamespace
           AND CASE
               WHEN relkind = 'S' THEN has_sequence_privilege($1, oid, 'USAGE, SELECT, UPDATE')
               WHEN relkind IN ('r', 'p', 'v', 'm', 'f') THEN
                   has_table_privilege($1, oid,
                       'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                   OR has_any_column_privilege($1, oid, 'SELECT, INSERT, UPDATE, REFERENCES')
               ELSE false
           END
         ORDER BY relname COLLATE \"C\"",
    )
    .bind(role)
    .fetch_all(&mut database.connect().await)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_has_a_right_to_three_functions_and_to_no_table() {
    let database = Database::migrated().await;
    let role = "postrider_publisher";
    let three = ["door_version", "publish", "publish_topic"];
    assert_eq!(callable(&database, role).await, three);
    assert_eq!(reachable(&database, role).await, [""; 0]);
    // What everybody may, a publisher may who can use the schema.
    assert_eq!(callable(&database, "public").await, [""; 0]);
    assert_eq!(reachable(&database, "public").await, [""; 0]);
    // Who has a right is found.
    assert!(callable(&database, "postgres").await.len() > 10);
    assert!(reachable(&database, "postgres").await.len() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_no_superuser_serves_what_functions_do() {
    let database = Database::empty().await;
    let role = format!("owner_{}", database.name);
    let application = format!("application_{}", database.name);
    database
        .execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role};
             CREATE ROLE {application} LOGIN",
            database.name
        ))
        .await;
    let app = App {
        gateway: Gateway::start(&config(&database.url_as(&role))).await,
        database,
    };
    let every = callable(&app.database, "postgres").await;
    assert_eq!(callable(&app.database, &role).await, every);
    // As an administrator does where the gateway may make no roles (README).
    app.database
        .execute(&format!(
            "GRANT USAGE ON SCHEMA postrider TO {application};
             GRANT EXECUTE ON FUNCTION postrider.publish, postrider.publish_topic,
                 postrider.door_version TO {application}"
        ))
        .await;
    for (queue, settings) in [
        ("ordered", json!({"ordered": true})),
        ("fair", json!({"fair": true})),
        ("bounded", json!({"max_in_flight": 1})),
        ("full", json!({"max_ready": 1, "overflow": "drop_oldest"})),
    ] {
        app.queue(queue, settings).await;
        let mut caller = app.database.connect_as(&application).await;
        for body in 1..=2 {
            let call = format!("SELECT postrider.publish('{queue}', '{body}', key => 'k')");
            run(&mut caller, &call).await;
        }
        caller.close().await.unwrap();
        eventually("the door is empty", async || {
            rows(&app.database).await == (0, 0)
        })
        .await;
        let message = app.receive_one(queue).await;
        let path = format!(
            "/v1/queues/{queue}/messages/{}",
            message["id"].as_str().unwrap()
        );
        app.get(&path).await.expect(StatusCode::OK);
        app.settle("ack", queue, &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
        if queue != "full" {
            assert_eq!(app.receive_one(queue).await["body"], 2, "{queue}");
        }
    }
    keyed(&app, "/v1/queues/ordered/messages", "a", json!({"body": 3}))
        .await
        .expect(StatusCode::CREATED);
}
