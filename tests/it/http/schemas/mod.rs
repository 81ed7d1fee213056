//! `/v1/queues/{queue}/schema` and `/v1/topics/{topic}/schema`, and publishes that
//! are checked.

mod publishes;
mod versions;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::App;

const MESSAGES: &str = "/v1/queues/orders/messages";
const SCHEMA: &str = "/v1/queues/orders/schema";

/// Orders: an amount, and nothing else.
fn amounts(amount: &Value) -> Value {
    json!({"schema": {
        "type": "object", "required": ["amount"], "additionalProperties": false,
        "properties": {"amount": amount},
    }})
}

async fn app() -> App {
    let app = App::start().await;
    app.queue("orders", json!({})).await;
    let made = app.put(SCHEMA, amounts(&json!({"type": "integer"}))).await;
    let made = made.expect(StatusCode::CREATED);
    assert_eq!(
        (&made["version"], &made["compatibility"]),
        (&json!(1), &json!("backward"))
    );
    app
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect()
}
