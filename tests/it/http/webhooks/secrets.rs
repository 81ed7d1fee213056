//! A secret is shown once, and is nowhere to be found after that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{HOOK, app_with_webhook};
use crate::support::{App, Database, Process, config, http_client};

/// A secret in the spellings it could leak in.
fn spellings(secret: &Value) -> Vec<String> {
    let text = secret.as_str().unwrap().strip_prefix("whsec_").unwrap();
    let bytes = STANDARD.decode(text).unwrap();
    assert_eq!(bytes.len(), 32);
    vec![
        text.to_owned(),
        // As Postgres shows bytes, and as Rust does.
        format!("{bytes:02x?}").replace([' ', ',', '[', ']'], ""),
        format!("{bytes:?}"),
    ]
}

#[track_caller]
fn assert_hidden(what: &str, text: &str, secrets: &[&Value]) {
    for secret in secrets {
        for spelling in spellings(secret) {
            assert!(!text.contains(&spelling), "{what} shows a secret: {text}");
        }
    }
}

/// Every row of a table, as text.
async fn dump(database: &Database, table: &str) -> String {
    let sql = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM postrider.{table} AS t");
    let (text,): (String,) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_after_the_first_and_no_table_has_the_secret() {
    let (app, made) = app_with_webhook(json!({})).await;
    let rotated = app
        .post(&format!("{HOOK}/rotate-secret"), "")
        .await
        .expect(StatusCode::OK);
    let secrets = [&made["secret"], &rotated["secret"]];
    let url = json!({"url": "http://127.0.0.1:9/hook"});
    for answer in [
        app.get(HOOK).await,
        app.put(HOOK, &url).await,
        app.patch(HOOK, json!({"max_in_flight": 3})).await,
        app.post(&format!("{HOOK}/pause"), "").await,
        app.post(&format!("{HOOK}/resume"), "").await,
        app.post(&format!("{HOOK}/pause"), "").await,
        app.post(&format!("{HOOK}/test"), "").await,
        app.get(&format!("{HOOK}/attempts")).await,
        app.get("/v1/queues/orders").await,
    ] {
        answer.expect(StatusCode::OK);
        assert_hidden("an answer", &answer.text, &secrets);
    }
    for table in ["webhooks", "queues", "push_attempts", "cluster"] {
        assert_hidden(table, &dump(&app.database, table).await, &secrets);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_webhooks_have_two_secrets_and_one_sealed_opens_for_no_other() {
    let (app, made) = app_with_webhook(json!({})).await;
    app.queue("other", json!({})).await;
    let other = app
        .put(
            "/v1/queues/other/webhook",
            json!({"url": "http://127.0.0.1:9/hook"}),
        )
        .await
        .expect(StatusCode::CREATED);
    assert_ne!(made["secret"], other["secret"]);
    // Who may write to the database cannot make one endpoint sign as another.
    let swap = "UPDATE postrider.webhooks SET secret = (
        SELECT w.secret FROM postrider.webhooks AS w
        JOIN postrider.queues AS q ON q.id = w.queue_id WHERE q.name = 'other')";
    crate::store::execute(&app.database, swap).await;
    app.post(&format!("{HOOK}/test"), "")
        .await
        .expect_problem(409, "secret-damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_no_secret_however_much_it_says() {
    let database = Database::migrated().await;
    let key = config(&database.url()).secret_key_file.unwrap();
    let process = Process::start(&[
        "--log",
        "trace",
        "--database-url",
        &database.url(),
        "--webhook-allow",
        "127.0.0.0/8",
        "--secret-key-file",
        key.to_str().unwrap(),
    ]);
    let url = &process.url;
    let client = http_client();
    let call = async |method: Method, path: &str, body: Value| -> Value {
        let request = client
            .request(method, format!("{url}{path}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    };
    call(Method::PUT, "/v1/queues/orders", json!({})).await;
    let hook = json!({"url": "http://127.0.0.1:9/hook"});
    let made = call(Method::PUT, HOOK, hook).await;
    let rotated = call(Method::POST, &format!("{HOOK}/rotate-secret"), json!({})).await;
    call(Method::POST, &format!("{HOOK}/test"), json!({})).await;

    let log = process.stop();
    assert!(log.contains("webhook created"), "{log}");
    assert_hidden("the log", &log, &[&made["secret"], &rotated["secret"]]);
    let key = std::fs::read_to_string(key).unwrap();
    assert!(!log.contains(key.trim()), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_survives_its_gateway() {
    let (app, made) = app_with_webhook(json!({})).await;
    let App { database, gateway } = app;
    drop(gateway);
    let app = App::start_on(database).await;
    let tested = app.post(&format!("{HOOK}/test"), "").await;
    // It could be opened; nobody listens there.
    assert_eq!(tested.expect(StatusCode::OK)["outcome"], "failed");
    assert_hidden("an answer", &tested.text, &[&made["secret"]]);
}
