//! Heads of requests that are too much.

use postrider::config::Server;
use reqwest::Method;

use super::super::bad::http::{exchange, exchange_lossy, problem, status};
use super::{http2_client, start};
use crate::support::{Answer, App};

fn livez(headers: &str) -> Vec<u8> {
    format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_64_headers_or_one_over_16_kib_are_refused() {
    let app = App::start().await;
    let many = |count: usize| "X: y\r\n".repeat(count - 2);
    // With the name of three bytes.
    let long = |size: usize| format!("Big: {}\r\n", "x".repeat(size - 3));
    for (headers, expected) in [
        (many(64), 200),
        (many(65), 431),
        (many(100), 431),
        (long(16 * 1024), 200),
        (long(16 * 1024 + 1), 431),
        (long(200 * 1024), 431),
    ] {
        let answer = exchange(&app, &livez(&headers)).await;
        assert_eq!(status(&answer), expected, "{}", headers.len());
        if expected == 431 {
            assert_eq!(problem(&answer)["code"], "headers-too-large", "{answer}");
        }
    }
    // Beyond that hyper answers by itself, or the answer is lost while it is
    // sent to.
    for headers in [many(1000), long(300 * 1024), long(1 << 20)] {
        let answer = exchange_lossy(&app, &livez(&headers)).await;
        assert!(matches!(status(&answer), 431 | 0), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_over_8_kib_is_refused() {
    let app = App::start().await;
    for (path, expected) in [
        (format!("/{}", "x".repeat(8 * 1024 - 1)), 404),
        (format!("/{}", "x".repeat(8 * 1024)), 414),
        (format!("/livez?{}", "x".repeat(8 * 1024)), 414),
        (format!("/{}", "x".repeat(60_000)), 414),
    ] {
        let answer = Answer::of(app.request(Method::GET, &path)).await;
        let code = if expected == 414 {
            "uri-too-long"
        } else {
            "not-found"
        };
        answer.expect_problem(expected, code);
    }
    let beyond = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    let answer = exchange_lossy(&app, beyond.as_bytes()).await;
    assert!(matches!(status(&answer), 414 | 0), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_hold_over_http_2() {
    let (_database, gateway) = start(Server::default()).await;
    let client = http2_client();
    let livez = || client.get(gateway.url("/livez"));
    let mut many = livez();
    for n in 0..65 {
        many = many.header(format!("x-{n}"), "y");
    }
    Answer::of(many)
        .await
        .expect_problem(431, "headers-too-large");
    let long = livez().header("big", "x".repeat(16 * 1024));
    Answer::of(long)
        .await
        .expect_problem(431, "headers-too-large");
    let far = client.get(gateway.url(&format!("/{}", "x".repeat(8 * 1024))));
    Answer::of(far).await.expect_problem(414, "uri-too-long");
    let good = livez().send().await.unwrap();
    assert_eq!(good.version(), reqwest::Version::HTTP_2);
    assert_eq!(good.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_not_to_be_guessed_at_and_docs_load_only_what_is_theirs() {
    let app = App::start().await;
    for path in ["/livez", "/nothing", "/metrics", "/docs/", "/openapi.json"] {
        let answer = app.get(path).await;
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{path}"
        );
        let is_docs = matches!(path, "/docs/" | "/openapi.json");
        assert_eq!(
            answer.headers.contains_key("content-security-policy"),
            is_docs
        );
    }
    let docs = app.get("/docs/").await;
    assert_eq!(docs.headers["x-frame-options"], "DENY");
    assert_eq!(docs.headers["referrer-policy"], "no-referrer");
    let policy = docs.headers["content-security-policy"].to_str().unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self';",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    // No script in the page itself, which the policy would not let run; those
    // that it names are there.
    let mut scripts = 0;
    for script in docs.text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        assert!(rest.trim_start().starts_with("</script"), "{script}");
        let source = tag
            .split("src=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let path = format!("/docs/{}", source.trim_start_matches("./"));
        assert_eq!(app.get(&path).await.status, 200, "{path}");
        scripts += 1;
    }
    assert!(scripts >= 2, "{}", docs.text);
}
