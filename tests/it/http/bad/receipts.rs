//! What is no receipt, or not the right one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::super::counts::expect_counts;
use super::check::{Bench, There, assert_away, check};
use super::table::{Row, post};
use crate::support::App;

fn settle(verb: &str, queue: &str, receipt: &str) -> Row {
    let path = format!("/v1/queues/{queue}/{verb}");
    post(path, json!({"receipts": [receipt]}).to_string()).needs_postgres()
}

/// Texts that are no receipts, though some are nearly.
fn malformed(there: &There) -> Vec<String> {
    let receipt = &there.receipt;
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
    malformed.push(there.id.clone());
    let bytes = URL_SAFE_NO_PAD.decode(receipt).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        malformed.push(URL_SAFE_NO_PAD.encode(flipped));
    }
    malformed
}

fn rows(there: &There) -> Vec<Row> {
    let mut rows = Vec::new();
    for verb in ["ack", "nack", "extend"] {
        for receipt in malformed(there) {
            rows.push(settle(verb, "orders", &receipt).refused(422, "receipt-malformed"));
        }
        rows.push(settle(verb, "other", &there.receipt).refused(404, "receipt-not-found"));
        rows.push(settle(verb, "orders", &there.older).refused(409, "lease-lost"));
    }
    rows.push(settle("extend", "slow", &there.expired).refused(409, "lease-expired"));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_good_receipt_changes_nothing() {
    check(rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_and_that_nobody_else_has_is_acked() {
    let mut bench = Bench::start(|_| {}).await;
    let ack = json!({"receipts": [bench.there.expired]}).to_string();
    let path = "/v1/queues/slow/ack";
    bench.cut().await;
    assert_away(&bench.gateway.post(path, &ack).await);
    bench.mend().await;
    bench.assert_unchanged().await;

    let acked = bench.gateway.post(path, &ack).await;
    assert_eq!(
        acked.expect(StatusCode::OK)["results"],
        json!([{"ok": true}])
    );
    expect_counts(
        &bench.gateway,
        "slow",
        &json!({"ready": 0, "leased": 0, "delayed": 0, "dead": 0}),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_others_each_receipt_has_its_result() {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    app.queue("other", json!({})).await;
    app.publish("orders", json!({"body": 1})).await;
    let message = app.receive_one("orders").await;
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
