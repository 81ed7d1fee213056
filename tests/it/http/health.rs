//! `/livez`, `/readyz`.

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{App, http_client};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_is_live_and_ready() {
    let app = App::start().await;
    for path in ["/livez", "/readyz"] {
        let answer = app.get(path).await;
        assert_eq!(
            answer.expect(StatusCode::OK),
            json!({"status": "ok"}),
            "{path}"
        );
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn verbose_readiness_tells_versions_and_promises_that_are_off() {
    let app = App::start().await;
    for path in ["/readyz?verbose", "/readyz?verbose=true"] {
        let health = app.get(path).await.expect(StatusCode::OK);
        assert_eq!(health["status"], "ok");
        assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
        let (postgres,): (String,) = sqlx::query_as("SHOW server_version")
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
        assert_eq!(health["postgres"], postgres);
        // The tests' server does not flush.
        let off = health["promises_off"].as_array().unwrap();
        assert!(
            off.iter()
                .any(|gap| gap.as_str().unwrap().starts_with("fsync is off")),
            "{off:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_query_parameters_are_refused_by_name() {
    let app = App::start().await;
    for path in ["/livez?verbose", "/readyz?verbos", "/readyz?verbose&a=b"] {
        let problem = app.get(path).await.expect_problem(400, "invalid-query");
        let name = path
            .rsplit(['?', '&'])
            .next()
            .unwrap()
            .split('=')
            .next()
            .unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(name),
            "{problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_serves_no_more() {
    let app = App::start().await;
    let url = app.url("/readyz");
    let client = http_client();
    assert_eq!(
        client.get(&url).send().await.unwrap().status(),
        StatusCode::OK
    );
    app.gateway.app.shut_down().await.unwrap();
    assert!(client.get(&url).send().await.is_err());
}
