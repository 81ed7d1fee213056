//! The log's lines about requests.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Running, admin_key, start};
use crate::support::Answer;

const JSON: [&str; 2] = ["--log-format", "json"];

/// The lines about requests in a log of JSON.
fn lines(log: &str) -> Vec<Value> {
    let all = log.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let fields = line.as_object().unwrap().values();
        assert!(fields.into_iter().all(|field| !field.is_object()), "{line}");
        line
    });
    all.filter(|line| line["message"] == "request").collect()
}

/// A queue is made, looked at by its health, and asked for wrongly.
async fn use_it(running: &Running) {
    running.queue("orders", json!({})).await;
    Answer::of(running.request(Method::GET, "/livez")).await;
    let request = running
        .request(Method::POST, "/v1/queues/orders/ack?token=geheim")
        .header("content-type", "application/json")
        .header("x-request-id", "mine")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        )
        .body(r#"{"receipts":["geheim"]}"#);
    let refused = Answer::of(request).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_what_failed_has_a_line_with_all_that_is_asked_for() {
    let (_database, running) = start(&JSON, &[]).await;
    use_it(&running).await;
    let log = running.stop();
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "{log}");
    for (field, value) in [
        ("level", json!("INFO")),
        ("target", json!("postrider::request")),
        ("method", json!("POST")),
        ("path", json!("/v1/queues/orders/ack")),
        ("operation", json!("ack")),
        ("status", json!(400)),
        ("code", json!("invalid-query")),
        ("request_id", json!("mine")),
        ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
    ] {
        assert_eq!(lines[0][field], value, "{field}: {}", lines[0]);
    }
    assert!(lines[0]["milliseconds"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(!log.contains("geheim"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_has_a_line_for_every_request_and_off_for_none() {
    let (_database, running) = start(&["--log-requests", "all"], &[]).await;
    use_it(&running).await;
    let log = running.stop();
    for said in [
        "operation=\"put_queue\" status=201",
        "operation=\"livez\"",
        "status=400",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(!log.contains("geheim"), "{log}");

    let off = [("POSTRIDER_LOG_REQUESTS", "off")];
    let (_database, running) = start(&JSON, &off).await;
    use_it(&running).await;
    assert_eq!(lines(&running.stop()), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_has_one_line_for_each_request_and_no_second() {
    let (_database, running) = start(&JSON, &[("POSTRIDER_LOG_REQUESTS", "all")]).await;
    use_it(&running).await;
    // Such as are answered at once, in the end, by no handler, and by the outermost
    // layers; side by side.
    let asked = (0..60).map(|n| {
        let (method, path) = match n % 6 {
            0 => (Method::GET, "/v1/queues/orders"),
            1 => (Method::GET, "/nowhere"),
            2 => (Method::DELETE, "/livez"),
            3 => (Method::GET, "/metrics"),
            4 => (Method::HEAD, "/readyz"),
            _ => (Method::POST, "/v1/queues/orders/receive"),
        };
        let id = format!("request-{n}");
        let request = running
            .request(method, path)
            .header("x-request-id", &id)
            .header("content-type", "application/json");
        let request = match n % 6 {
            5 => request.body(r#"{"wait_seconds":0.2}"#),
            _ => request,
        };
        async move {
            Answer::of(request).await;
            id
        }
    });
    let mut asked = futures_util::future::join_all(asked).await;
    let log = running.stop();
    let (of_those, of_others): (Vec<_>, Vec<_>) = lines(&log)
        .into_iter()
        .map(|line| line["request_id"].as_str().unwrap().to_owned())
        .partition(|id| id.starts_with("request-"));
    let mut of_those: Vec<String> = of_those;
    of_those.sort();
    asked.sort();
    assert_eq!(of_those, asked);
    assert_eq!(of_others.len(), 3, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_a_warning_save_for_health_checks() {
    let (database, running) = start(&JSON, &[]).await;
    running.queue("orders", json!({})).await;
    // As if the schema were another program's.
    sqlx::query("ALTER TABLE postrider.queues RENAME TO somebody_elses")
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    let failed = Answer::of(running.request(Method::GET, "/v1/queues")).await;
    failed.expect(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::of(running.request(Method::GET, "/readyz")).await;
    let log = running.stop();
    let lines = lines(&log);
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!(lines[0]["level"], "WARN");
    assert_eq!(lines[0]["operation"], "list_queues");
    assert_eq!(lines[0]["code"], "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_not_a_flood_of_lines() {
    let (_database, running) = start(&JSON, &[]).await;
    let begun = std::time::Instant::now();
    // A hundred at a time.
    let asking = (0..100).map(async |_| {
        for _ in 0..20 {
            let refused = Answer::of(running.request(Method::GET, "/v1/queues/none")).await;
            refused.expect(StatusCode::NOT_FOUND);
        }
    });
    futures_util::future::join_all(asking).await;
    let windows = begun.elapsed().as_secs() + 1;
    let written = lines(&running.stop()).len() as u64;
    let most = 100 * (windows + 1);
    assert!(most < 2000, "{windows} s: too slow to say anything");
    assert!((100..=most).contains(&written), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_names_the_key_that_was_used_but_not_its_secret() {
    let args = ["--log-format", "json", "--auth", "required"];
    let (database, mut running) = start(&args, &[("POSTRIDER_LOG_REQUESTS", "all")]).await;
    let key = admin_key(&database.url());
    let (id, secret) = key.strip_prefix("pr_").unwrap().split_once('_').unwrap();
    running.key = Some(key.clone());
    // Once it is read from the database, once it is in memory.
    running.queue("orders", json!({})).await;
    running.queue("others", json!({})).await;
    let log = running.stop();
    let made = lines(&log).into_iter().filter(|line| line["status"] == 201);
    let keys: Vec<Value> = made.map(|line| line["key"].clone()).collect();
    assert_eq!(keys, [id, id], "{log}");
    assert!(!log.contains(secret), "{log}");
}
