//! Scripts of other origins.

use postrider::config::Server;
use reqwest::Method;
use serde_json::json;

use super::start;
use crate::support::{Answer, App, Gateway};

const ALLOWED: &str = "https://app.example";

async fn preflight(gateway: &Gateway, origin: &str) -> Answer {
    let request = gateway
        .request(Method::OPTIONS, "/v1/queues/work")
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header(
            "access-control-request-headers",
            "authorization,content-type,postrider-header-shop",
        );
    Answer::of(request).await
}

async fn get(gateway: &Gateway, origin: &str) -> Answer {
    let request = gateway.request(Method::GET, "/v1/queues");
    Answer::of(request.header("origin", origin)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_origin_may_ask_by_default() {
    let app = App::start().await;
    preflight(&app, ALLOWED)
        .await
        .expect_problem(405, "method-not-allowed");
    let answer = get(&app, ALLOWED).await;
    let cors = |name: &&str| name.starts_with("access-control-");
    let names = answer
        .headers
        .keys()
        .map(reqwest::header::HeaderName::as_str);
    assert_eq!(names.filter(cors).count(), 0, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origins_that_are_named_may_ask_and_no_others() {
    let (_database, gateway) = start(Server {
        cors_origin: vec![
            ALLOWED.parse().unwrap(),
            "http://localhost:3000".parse().unwrap(),
        ],
        ..Server::default()
    })
    .await;
    for origin in [ALLOWED, "http://localhost:3000"] {
        let answer = preflight(&gateway, origin).await;
        assert_eq!(answer.status, 200);
        let header = |name: &str| answer.headers[name].to_str().unwrap();
        assert_eq!(header("access-control-allow-origin"), origin);
        let methods = header("access-control-allow-methods");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = header("access-control-allow-headers");
        assert!(headers.contains("authorization"), "{headers}");
        assert!(headers.contains("postrider-header-shop"), "{headers}");
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials")
        );

        let answer = get(&gateway, origin).await;
        assert_eq!(answer.json()["queues"], json!([]));
        assert_eq!(answer.headers["access-control-allow-origin"], origin);
        let exposed = answer.headers["access-control-expose-headers"]
            .to_str()
            .unwrap();
        for name in [
            "x-request-id",
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
            "etag",
            "link",
            "location",
        ] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
    for stranger in ["https://evil.example", "http://app.example", "null"] {
        for answer in [
            preflight(&gateway, stranger).await,
            get(&gateway, stranger).await,
        ] {
            let allowed = answer.headers.get("access-control-allow-origin");
            assert_eq!(allowed, None, "{stranger}");
        }
    }
    // OPTIONS that no browser sends stays what it was.
    let options = gateway.request(Method::OPTIONS, "/v1/queues");
    Answer::of(options)
        .await
        .expect_problem(405, "method-not-allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_can_be_read_by_scripts_too() {
    let (_database, gateway) = start(Server {
        cors_origin: vec!["*".parse().unwrap()],
        ..Server::default()
    })
    .await;
    let request = gateway.request(Method::GET, "/v1/queues/none");
    let answer = Answer::of(request.header("origin", "https://any.example")).await;
    answer.expect_problem(404, "queue-not-found");
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
}
