//! Claims that cannot be, and tokens that are none.

use super::check::check;
use super::table::{Row, post, send};

/// Keys that no claim can have.
fn keys() -> Vec<Row> {
    let long = "x".repeat(256);
    let long_too = "%C3%A9".repeat(256);
    let mut rows = Vec::new();
    for (key, refusal) in [
        ("a%0Ab", (422, "invalid")),
        ("a%C2%85", (422, "invalid")),
        ("%7F", (422, "invalid")),
        (&long, (422, "invalid")),
        (&long_too, (422, "invalid")),
        ("a%00b", (400, "invalid-path")),
        ("%ff", (400, "invalid-path")),
    ] {
        let claim = format!("/v1/claims/{key}");
        let token = r#"{"token": "clm_0000000000001"}"#;
        for row in [
            post(&claim, "{}"),
            post(format!("{claim}/complete"), token),
            send("DELETE", format!("{claim}?token=clm_0000000000001")),
        ] {
            rows.push(row.refused(refusal.0, refusal.1));
        }
    }
    rows
}

/// How long a claim cannot be locked or kept.
fn times() -> Vec<Row> {
    let mut rows = Vec::new();
    for (field, too_much) in [
        ("lock_seconds", "43200.001"),
        ("keep_seconds", "31536000.001"),
    ] {
        for value in [
            "0", "-1", "0.0001", too_much, "1e300", "\"1\"", "true", "[]",
        ] {
            let body = format!("{{\"{field}\": {value}}}");
            rows.push(post("/v1/claims/k", body).invalid(format!("/{field}")));
        }
    }
    rows.push(post("/v1/claims/k", r#"{"lock": 1}"#).invalid("/lock"));
    rows.push(post("/v1/claims/k", "[]").invalid(""));
    rows.push(post("/v1/claims/k?x=1", "{}").refused(400, "invalid-query"));
    rows
}

/// What is no token of a claim, and one that is another's.
fn tokens() -> Vec<Row> {
    let mut rows = Vec::new();
    let complete = "/v1/claims/k/complete";
    for token in [
        "",
        "clm_",
        "clm_1",
        "clm_00000000000001",
        "clm_000000000000u",
        "clm_8000000000000",
        "msg_0000000000001",
        "CLM_0000000000001",
    ] {
        let body = format!("{{\"token\": \"{token}\"}}");
        rows.push(post(complete, body).invalid("/token"));
        let path = format!("/v1/claims/k?token={token}");
        rows.push(send("DELETE", path).invalid("token"));
    }
    for body in ["{}", r#"{"token": 1}"#, r#"{"token": null}"#] {
        let row = post(complete, body).refused(422, "invalid");
        rows.push(row);
    }
    rows.push(send("DELETE", "/v1/claims/k").refused(400, "invalid-query"));
    let nobodys = r#"{"token": "clm_0000000000001"}"#;
    let row = post(complete, nobodys).refused(409, "claim-lost");
    rows.push(row.needs_postgres());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_cannot_be_are_refused() {
    check(|_| [keys(), times(), tokens()].concat()).await;
}
