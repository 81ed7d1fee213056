//! Statements that the database gives up for another's sake: they had no effect, so
//! they are run again, and the client hears nothing of it.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::store::number;
use crate::support::{Answer, App, Database};

/// Of what is inserted from now on, so many attempts end as in a deadlock.
async fn give_up(database: &Database, times: u32) {
    database
        .execute(&format!(
            "CREATE SEQUENCE public.attempts;
             CREATE FUNCTION public.give_up() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    -- A sequence stands, whatever becomes of the statement.
                    IF nextval('public.attempts') <= {times} THEN
                        RAISE EXCEPTION 'given up' USING ERRCODE = '40P01';
                    END IF;
                    RETURN NEW;
                END $$;
             CREATE TRIGGER give_up BEFORE INSERT ON postrider.messages
                FOR EACH ROW EXECUTE FUNCTION public.give_up()"
        ))
        .await;
}

/// How many attempts there were; each has one message.
async fn attempts(database: &Database) -> i64 {
    number(
        database,
        "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.attempts",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_was_given_up_is_run_again_and_takes_effect_once() {
    for times in [1, 3] {
        let app = App::start().await;
        app.queue("work", json!({})).await;
        give_up(&app.database, times).await;
        app.publish("work", json!({"body": times})).await;
        assert_eq!(attempts(&app.database).await, i64::from(times) + 1);
        assert_eq!(app.receive_one("work").await["body"], times);
        app.assert_conserved(&app.database, "work").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_was_given_up_is_run_again_and_takes_effect_once() {
    for times in [1, 3] {
        let app = App::start().await;
        app.queue("work", json!({})).await;
        app.publish("work", json!({"body": "in"})).await;
        let receipt = app.receive_one("work").await["receipt"].clone();
        give_up(&app.database, times).await;
        let steps = json!({
            "acks": [{"queue": "work", "receipt": receipt}],
            "publishes": [{"queue": "work", "message": {"body": "out"}}],
        });
        let done = app.post("/v1/transactions", steps).await;
        done.expect(StatusCode::OK);
        assert_eq!(attempts(&app.database).await, i64::from(times) + 1);
        assert_eq!(app.receive_one("work").await["body"], "out");
        app.assert_conserved(&app.database, "work").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_every_time_is_answered_503_after_a_few() {
    let app = App::start().await;
    app.queue("work", json!({})).await;
    give_up(&app.database, 1000).await;
    let message = json!({"body": 1});
    let steps = json!({"publishes": [{"queue": "work", "message": message}]});
    let messages = "/v1/queues/work/messages";
    // Each way three times more, and no retries of retries.
    let mut expected = 0;
    for (path, key, json) in [
        (messages, None, &message),
        (messages, Some("once"), &message),
        ("/v1/transactions", None, &steps),
        ("/v1/transactions", Some("steps"), &steps),
    ] {
        let mut request = app
            .request(Method::POST, path)
            .header("content-type", "application/json")
            .body(json.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let refused = Answer::of(request).await;
        refused.expect_problem(503, "database-unavailable");
        expected += 4;
        assert_eq!(attempts(&app.database).await, expected, "{path} {key:?}");
    }
    assert_eq!(app.counts("work").await["ready"], 0);
}
