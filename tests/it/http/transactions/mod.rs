//! `POST /v1/transactions`: all of it or nothing.

mod claims;
mod limits;
mod ordered;
mod races;
mod steps;

use serde_json::{Value, json};

use crate::support::{Answer, App, Gateway};

const PATH: &str = "/v1/transactions";

async fn transact(gateway: &Gateway, steps: Value) -> Answer {
    gateway.post(PATH, steps).await
}

/// A refusal that names a part.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, pointer: &str) {
    let problem = answer.expect_problem(status, code);
    assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
}

/// A leased message's receipt.
async fn lease(app: &App, queue: &str) -> Value {
    app.publish(queue, json!({"body": queue})).await;
    app.receive_one(queue).await["receipt"].clone()
}

fn part(queue: &str, receipt: &Value) -> Value {
    json!({"queue": queue, "receipt": receipt})
}
