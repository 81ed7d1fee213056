//! What is not there, and receipts that are none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, App};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_queue_is_not_found_whatever_is_asked_of_it() {
    let app = App::start().await;
    let message = "messages/msg_0000000000001";
    let letter = "dead-letters/msg_0000000000001";
    for (method, path, body) in [
        ("GET", "", ""),
        ("PATCH", "", "{}"),
        ("DELETE", "", ""),
        ("POST", "/purge", "{}"),
        ("POST", "/messages", r#"{"body": 1}"#),
        ("GET", "/messages", ""),
        ("GET", &format!("/{message}"), ""),
        ("DELETE", &format!("/{message}"), ""),
        ("POST", "/receive", r#"{"wait_seconds": 60}"#),
        ("POST", "/ack", r#"{"receipts": ["r"]}"#),
        ("POST", "/nack", r#"{"receipts": ["r"]}"#),
        ("POST", "/extend", r#"{"receipts": ["r"]}"#),
        ("GET", "/dead-letters", ""),
        ("GET", &format!("/{letter}"), ""),
        ("DELETE", &format!("/{letter}"), ""),
        ("POST", "/dead-letters/redrive", r#"{"filter": {}}"#),
        ("POST", "/dead-letters/purge", "{}"),
    ] {
        // The second belongs to the gateway, and is not there either.
        for queue in ["nope", "system.events"] {
            let path = format!("/v1/queues/{queue}{path}");
            let mut request = app.request(method.parse().unwrap(), &path);
            if !body.is_empty() {
                request = request
                    .header("content-type", "application/json")
                    .body(body);
            }
            let problem = Answer::of(request)
                .await
                .expect_problem(404, "queue-not-found");
            assert!(
                problem["detail"].as_str().unwrap().contains(queue),
                "{problem}"
            );
        }
    }
    app.queue("orders", json!({})).await;
    app.post(
        "/v1/queues/orders/dead-letters/redrive",
        json!({"filter": {}, "to_queue": "nope"}),
    )
    .await
    .expect_problem(404, "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_none_are_refused() {
    let app = App::start().await;
    for name in [
        "%20",
        "a%20b",
        "a%2Fb",
        "a%0Ab",
        "a%7Fb",
        "a%E2%80%AEb",
        "a%E2%80%8Fb",
        "a..b",
        "a%5Cb",
        "-a",
        "%C3%BC",
        "a%3Fb",
        "a;b",
        "a:b",
        "a*",
        "a%25",
        "%2E%2E%2Fx",
        ".hidden",
        &"x".repeat(81),
    ] {
        let path = format!("/v1/queues/{name}");
        let answers = [
            app.put(&path, "{}").await,
            app.get(&path).await,
            app.post(&format!("{path}/messages"), r#"{"body": 1}"#)
                .await,
            app.get(&format!("{path}/messages/msg_0000000000001")).await,
        ];
        for answer in answers {
            let problem = answer.expect_problem(422, "invalid");
            assert_eq!(problem["errors"][0]["pointer"], "queue", "{name}");
        }
    }
    app.get("/v1/queues//messages")
        .await
        .expect_problem(422, "invalid");
    let list = app.get("/v1/queues").await.expect(StatusCode::OK);
    assert_eq!(list["queues"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_messages_id_is_not_found() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.publish("orders", json!({"body": 1})).await;
    for id in [
        "msg_0000000000000",
        "msg_7zzzzzzzzzzzz",
        "msg_zzzzzzzzzzzzz",
        "MSG_0000000000001",
        "msg_1",
        "1",
        "msg_000000000000u",
        "%20",
        "msg_000000000000%31x",
        "a%2Fb",
        &"x".repeat(5000),
    ] {
        let message = format!("/v1/queues/orders/messages/{id}");
        app.get(&message)
            .await
            .expect_problem(404, "message-not-found");
        app.delete(&message)
            .await
            .expect_problem(404, "message-not-found");
        // As far as their document says.
        let letter = app
            .get(&format!("/v1/queues/orders/dead-letters/{id}"))
            .await;
        assert_eq!(letter.status, StatusCode::NOT_FOUND, "{}", letter.text);
    }
    assert_eq!(app.counts("orders").await["ready"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_receipt_changes_nothing() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("other", json!({})).await;
    app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
    let receipt = message["receipt"].as_str().unwrap();

    let mut malformed: Vec<String> = ["", " ", "garbage", "\u{0}", "ä", "AAAA", "🦀", "null"]
        .map(str::to_owned)
        .to_vec();
    malformed.push("A".repeat(receipt.len()));
    malformed.push("A".repeat(100_000));
    malformed.push(receipt[..receipt.len() - 1].to_owned());
    malformed.push(receipt[1..].to_owned());
    malformed.push(format!("{receipt}A"));
    malformed.push(format!("{receipt}="));
    malformed.push(format!(" {receipt}"));
    malformed.push(receipt.to_lowercase());
    malformed.push(message["id"].as_str().unwrap().to_owned());
    let bytes = URL_SAFE_NO_PAD.decode(receipt).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        malformed.push(URL_SAFE_NO_PAD.encode(flipped));
    }
    for verb in ["ack", "nack", "extend"] {
        for receipt in &malformed {
            app.settle(verb, "orders", &[&json!(receipt)], json!({}))
                .await
                .expect_problem(422, "receipt-malformed");
        }
        app.settle(verb, "other", &[&message["receipt"]], json!({}))
            .await
            .expect_problem(404, "receipt-not-found");
    }

    // Among others each has its result.
    let garbage = json!("garbage");
    let receipts: [&Value; 2] = [&garbage, &message["receipt"]];
    let elsewhere = app.settle("ack", "other", &receipts, json!({})).await;
    let elsewhere = elsewhere.expect(StatusCode::OK)["results"].clone();
    assert_eq!(elsewhere[0]["code"], "receipt-malformed");
    assert_eq!(elsewhere[0]["status"], 422);
    assert_eq!(elsewhere[1]["code"], "receipt-not-found");
    let here = app.settle("ack", "orders", &receipts, json!({})).await;
    let here = here.expect(StatusCode::OK)["results"].clone();
    assert_eq!(
        (&here[0]["ok"], &here[1]),
        (&json!(false), &json!({"ok": true}))
    );
    app.assert_conserved(&app.database, "orders").await;
}
