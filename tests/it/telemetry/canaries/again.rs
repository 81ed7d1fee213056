//! Canaries in what happens once, in order, in time, and with whoever else knows:
//! transactions, requests, claims, ordered keys, schemas, schedules, the SQL door.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{CANARY, Forbidden, canary, message, post};
use crate::support::{Answer, Database, eventually};
use crate::telemetry::Running;

async fn queue(running: &Running, name: &str, settings: Value) -> String {
    running.queue(name, settings).await;
    format!("/v1/queues/{name}")
}

/// The next message's receipt.
async fn receive(running: &Running, queue: &str, forbidden: &mut Forbidden) -> Value {
    let wish = json!({"wait_seconds": 20});
    let received = post(running, &format!("{queue}/receive"), &wish).await;
    let receipt = received.expect(StatusCode::OK)["messages"][0]["receipt"].clone();
    forbidden.add(&receipt);
    receipt
}

/// The same twice under one `Idempotency-Key`, and then something else.
async fn once(running: &Running, path: &str, json: &Value) -> Answer {
    let ask = async |body: String| {
        let request = running
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .header("idempotency-key", canary("idempotency"))
            .body(body);
        Answer::of(request).await
    };
    let first = ask(json.to_string()).await;
    assert!(first.status.is_success(), "{path}: {first:?}");
    let second = ask(json.to_string()).await;
    assert_eq!(second.headers["idempotency-replayed"], "true", "{second:?}");
    let mut other = json.clone();
    other[canary("other")] = json!(1);
    let refused = ask(other.to_string()).await;
    assert!(refused.status.is_client_error(), "{path}: {refused:?}");
    first
}

/// One that is done, and some that are not.
pub(super) async fn transactions(running: &Running, forbidden: &mut Forbidden) {
    let queue = queue(running, "jobs", json!({})).await;
    let publish = format!("{queue}/messages");
    let mut first = message();
    first["dedup_id"] = json!(canary("transaction"));
    once(running, &publish, &first).await;
    let receipt = receive(running, &queue, forbidden).await;
    let claim = format!("/v1/claims/jobs:{}", canary("claim-of-it"));
    let granted = post(running, &claim, &json!({})).await;
    let token = granted.expect(StatusCode::CREATED)["token"].clone();
    forbidden.add(&token);
    let mut sent = message();
    sent["dedup_id"] = json!(canary("of-transaction"));
    let ack = json!({"queue": "jobs", "receipt": receipt});
    let mut done = json!({
        "acks": [ack],
        "publishes": [{"queue": "jobs", "message": sent}],
        "claims": [{"key": format!("jobs:{}", canary("claim-of-it")), "token": token}],
    });
    // What is refused first: a part that is not there, one that is not well-formed.
    let mut refused = done.clone();
    refused["acks"] = json!([{"queue": "jobs", "receipt": canary("receipt")}]);
    let bad = post(running, "/v1/transactions", &refused).await;
    assert!(bad.status.is_client_error(), "{bad:?}");
    refused[canary("field")] = json!(1);
    let bad = post(running, "/v1/transactions", &refused).await;
    assert!(bad.status.is_client_error(), "{bad:?}");
    once(running, "/v1/transactions", &done).await;
    done["claims"] = json!([]);
    let lost = post(running, "/v1/transactions", &done).await;
    lost.expect_problem(409, "lease-lost");
}

/// Requests with a reply, without one, and with one too many.
pub(super) async fn requests(running: &Running, forbidden: &mut Forbidden) {
    let queue = queue(running, "questions", json!({})).await;
    let ask = json!({"body": canary("question"), "headers": {"x": canary("header")}});
    let asked = once(running, &format!("{queue}/requests"), &ask).await;
    let asked = asked.expect(StatusCode::ACCEPTED)["correlation_id"].clone();
    forbidden.add(&asked);
    let receipt = receive(running, &queue, forbidden).await;
    let reply = format!("{queue}/reply");
    let bad = json!({"receipt": canary("receipt"), "body": canary("answer")});
    let refused = post(running, &reply, &bad).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    let answer = json!({"receipt": receipt, "body": canary("answer"),
        "headers": {canary("name"): canary("value")}});
    post(running, &reply, &answer).await.expect(StatusCode::OK);
    let late = json!({"receipt": receipt, "body": canary("second")});
    post(running, &reply, &late).await;
    let read = async |id: &str| {
        Answer::of(running.request(Method::GET, &format!("/v1/replies/{id}"))).await
    };
    let given = read(asked.as_str().unwrap()).await;
    assert!(given.text.contains(&canary("answer")), "{given:?}");
    read(&canary("reply"))
        .await
        .expect_problem(404, "reply-not-found");
    // What is asked of somebody who waits, and is not answered.
    let waits = running
        .request(Method::POST, &format!("{queue}/requests"))
        .header("content-type", "application/json")
        .header("prefer", "wait=1")
        .body(json!({"body": canary("waits"), "timeout_seconds": 0.1}).to_string());
    Answer::of(waits)
        .await
        .expect_problem(504, "request-expired");
}

/// Claims that are taken, held by another, completed and given up; the token is in
/// the query there.
pub(super) async fn claims(running: &Running, forbidden: &mut Forbidden) {
    for name in ["done", "left"] {
        let path = format!("/v1/claims/orders:{}", canary(name));
        let granted = once(running, &path, &json!({"lock_seconds": 60})).await;
        let token = granted.json()["token"].clone();
        forbidden.add(&token);
        let token = token.as_str().unwrap();
        let held = post(running, &path, &json!({})).await;
        held.expect_problem(409, "claim-held");
        let give_up = async |token: &str| {
            let path = format!("{path}?token={token}");
            Answer::of(running.request(Method::DELETE, &path)).await
        };
        let refused = give_up(&canary("token")).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
        if name == "done" {
            let complete = format!("{path}/complete");
            let wrong = json!({"token": canary("token")});
            let refused = post(running, &complete, &wrong).await;
            assert!(refused.status.is_client_error(), "{refused:?}");
            let done = post(running, &complete, &json!({"token": token})).await;
            done.expect(StatusCode::OK);
        } else {
            give_up(token).await.expect(StatusCode::NO_CONTENT);
        }
        // No operation, but meant as one.
        let path = format!("{path}/{CANARY}");
        Answer::of(running.request(Method::GET, &path)).await;
    }
}

/// A key that a dead letter blocks, until it is let go.
pub(super) async fn blocked_keys(running: &Running, forbidden: &mut Forbidden) {
    let ordered = json!({"ordered": true, "on_blocked": "dead_letter_key"});
    let queue = queue(running, "lined", ordered).await;
    for body in ["first", "second"] {
        let one = json!({"body": canary(body), "key": canary("ordered-key")});
        let stored = post(running, &format!("{queue}/messages"), &one).await;
        stored.expect(StatusCode::CREATED);
    }
    let receipt = receive(running, &queue, forbidden).await;
    let nack = json!({"receipts": [receipt], "dead_letter": true, "reason": canary("reason")});
    let nacked = post(running, &format!("{queue}/nack"), &nack).await;
    nacked.expect(StatusCode::OK);
    let path = format!("{queue}/blocked-keys");
    let listed = Answer::of(running.request(Method::GET, &path)).await;
    assert!(listed.text.contains(&canary("ordered-key")), "{listed:?}");
    let keys = json!({"keys": [canary("ordered-key"), canary("free-key")]});
    let unblocked = post(running, &format!("{queue}/unblock"), &keys).await;
    unblocked.expect(StatusCode::OK);
}

/// Schemas with canaries in them, and messages that break them.
pub(super) async fn schemas(running: &Running) {
    let queue = queue(running, "checked", json!({})).await;
    let path = format!("{queue}/schema");
    let schema = json!({"schema": {"title": canary("title"), "type": "object",
        "properties": {canary("property"): {"const": canary("const")}},
        "required": [canary("property")]}});
    let made = running.send(Method::PUT, &path, schema).await;
    made.expect(StatusCode::CREATED);
    for bad in [
        json!({"schema": {"$ref": format!("https://{CANARY}/")}}),
        json!({"schema": {"type": canary("type")}}),
        json!({"schema": {"pattern": format!("({CANARY}")}}),
        json!({"schema": {"type": "integer", "title": canary("incompatible")}}),
    ] {
        let refused = running.send(Method::PUT, &path, bad).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
    }
    for body in [
        json!({canary("property"): canary("wrong")}),
        json!({canary("other"): 1}),
        json!(canary("text")),
    ] {
        let broken = post(
            running,
            &format!("{queue}/messages"),
            &json!({"body": body}),
        )
        .await;
        broken.expect_problem(422, "schema-violation");
    }
    let read = Answer::of(running.request(Method::GET, &path)).await;
    assert!(read.text.contains(&canary("title")), "{read:?}");
}

/// A message that a schedule publishes, and one that it cannot.
pub(super) async fn schedules(running: &Running) {
    for queue in ["ticks", "brimful"] {
        running.queue(queue, json!({"max_ready": 1})).await;
        if queue == "brimful" {
            let path = format!("/v1/queues/{queue}/messages");
            let filled = post(running, &path, &json!({"body": canary("fills")})).await;
            filled.expect(StatusCode::CREATED);
        }
        let path = format!("/v1/schedules/{queue}");
        let schedule = json!({"cron": "* * * * * *", "queue": queue, "message": {
            "body": {"secret": canary("tick")}, "headers": {"x": canary("header")},
            "key": canary("key"), "correlation_id": canary("correlation")}});
        let mut bad = schedule.clone();
        bad["cron"] = json!(canary("cron"));
        let refused = running.send(Method::PUT, &path, bad).await;
        assert!(refused.status.is_client_error(), "{refused:?}");
        let made = running.send(Method::PUT, &path, schedule).await;
        made.expect(StatusCode::CREATED);
    }
    let read = async |name: &str| {
        Answer::of(running.request(Method::GET, &format!("/v1/schedules/{name}"))).await
    };
    eventually("both have ticked", async || {
        let (ticked, failed) = (read("ticks").await, read("brimful").await);
        ticked.json()["last_run"].is_string() && failed.json()["last_error"].is_object()
    })
    .await;
}

/// Messages through the SQL door: one that is published, one that is refused.
pub(super) async fn door(running: &Running, database: &Database) {
    running.queue("door", json!({})).await;
    for queue in ["door", "checked"] {
        database
            .execute(&format!(
                "SELECT postrider.publish('{queue}', '{{\"secret\": \"{body}\"}}',
                    headers => '{{\"x\": \"{header}\"}}', key => '{key}',
                    correlation_id => '{correlation}', dedup_id => '{dedup}')",
                body = canary("door"),
                header = canary("header"),
                key = canary("key"),
                correlation = canary("correlation"),
                dedup = canary("dedup"),
            ))
            .await;
    }
    eventually("it was published", async || {
        let queue = running.request(Method::GET, "/v1/queues/door");
        Answer::of(queue).await.json()["ready"] == 1
    })
    .await;
    eventually("the other was refused", async || {
        let refused: i64 = sqlx::query_scalar("SELECT count(*) FROM postrider.door_refused")
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
        refused == 1
    })
    .await;
}
