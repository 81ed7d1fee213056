//! Every operation of the document, with every kind of key.

use std::collections::BTreeMap;

use postrider::domain::ReceiptKey;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::lives::alike;
use super::there::There;
use super::{Guarded, with_key};
use crate::http::openapi::{document, examples, operations};
use crate::support::Answer;

/// What the walk is about; all operations name it.
pub(super) const NAME: &str = "walked";

/// One operation, as it is asked.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) id: String,
    method: Method,
    /// As the document has it.
    pub(super) template: String,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    /// What the document says that a key needs; `None` is no key.
    needs: Option<Vec<String>>,
    names_something: bool,
}

/// What an operation is about: webhooks and schemas apart from the messages that
/// the others look for.
pub(super) fn name(template: &str) -> String {
    if template.contains("/webhook") {
        format!("{NAME}.pushed")
    } else if template.contains("/schema") {
        format!("{NAME}.checked")
    } else {
        NAME.to_owned()
    }
}

fn steps(receipt: &str) -> Vec<Step> {
    let document = document();
    let steps = operations(&document)
        .into_iter()
        .map(|(method, path, operation)| {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let security = operation["security"].as_array();
            let security = security.unwrap_or_else(|| panic!("{id} declares no security"));
            assert_eq!(security.len(), 1, "{id}");
            let needs = security[0].get("api_key").map(|scopes| {
                let scopes = scopes.as_array().unwrap();
                scopes
                    .iter()
                    .map(|s| s.as_str().unwrap().to_owned())
                    .collect()
            });
            let mut body = examples(&document, &operation)
                .into_iter()
                .find(|(content_type, _)| content_type == "application/json")
                .map(|(_, example)| example);
            if let Some(receipts) = body.as_mut().and_then(|body| body.get_mut("receipts")) {
                *receipts = json!([receipt]);
            }
            if let Some(acks) = body.as_mut().and_then(|body| body.get_mut("acks")) {
                acks[0]["receipt"] = json!(receipt);
            }
            if id == "put_schedule" {
                body.as_mut().unwrap()["queue"] = json!(NAME);
            }
            let name = name(&path);
            Step {
                names_something: ["{queue}", "{topic}", "{schedule}"]
                    .iter()
                    .any(|name| path.contains(name)),
                template: path.clone(),
                path: path
                    .replace("{queue}", &name)
                    .replace("{topic}", &name)
                    .replace("{key}", NAME)
                    .replace("{correlation_id}", "req_AQ")
                    .replace("{schedule}", NAME)
                    .replace("{subscription}", "sub")
                    .replace("{version}", "1")
                    .replace(
                        "{id}",
                        if path.contains("keys") {
                            "0123456789ab"
                        } else {
                            "msg_000000000001a"
                        },
                    ),
                method: method.to_uppercase().parse().unwrap(),
                id,
                body,
                needs,
            }
        });
    steps.collect()
}

impl Step {
    pub(super) async fn with(&self, app: &Guarded, key: &str) -> Answer {
        with_key(
            &app.gateway,
            key,
            self.method.clone(),
            &self.path,
            self.body.clone(),
        )
        .await
    }

    async fn without(&self, app: &Guarded) -> Answer {
        Answer::of(app.gateway.request(self.method.clone(), &self.path)).await
    }

    /// Scopes that are enough, on names that begin so.
    fn right(&self, names: &str) -> Option<Vec<String>> {
        let needs = self.needs.as_ref()?;
        Some(match needs.first().map(String::as_str) {
            // It publishes, too.
            Some("manage") if ["put_schedule", "patch_schedule"].contains(&&*self.id) => {
                vec![format!("manage:{names}*"), format!("publish:{names}*")]
            }
            Some(verb @ ("publish" | "consume" | "manage")) => vec![format!("{verb}:{names}*")],
            Some(scope) => vec![scope.to_owned()],
            // To read a reply is for those who may ask.
            None if self.id == "get_reply" => vec![format!("publish:{names}*")],
            None if self.id == "transact" => {
                vec![format!("publish:{names}*"), format!("consume:{names}*")]
            }
            None => vec![format!("consume:{names}*")],
        })
    }
}

/// Receipts of this database, whose queue is not there.
async fn receipt(app: &Guarded) -> String {
    let secret = app.gateway.app.store().secret().await.unwrap();
    ReceiptKey::new(&secret).seal(&postrider::domain::Lease {
        queue_id: 0,
        message_id: 1,
        token: 1,
        attempt: 1,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lets_in_whom_its_security_says_and_nobody_else() {
    let app = Guarded::start().await;
    let steps = steps(&receipt(&app).await);
    assert!(steps.len() > 40, "{}", steps.len());
    let revoked = app.key(&["admin"]).await;
    let path = format!("/v1/keys/{}", &revoked[3..15]);
    app.as_admin(Method::DELETE, &path, json!({})).await;
    let expired = app.key(&["admin"]).await;
    app.database
        .execute(&format!(
            "UPDATE postrider.api_keys SET expires_at = now() - interval '1 s' WHERE id = '{}'",
            &expired[3..15]
        ))
        .await;
    let scopeless = app.key(&["manage:elsewhere"]).await;
    let other_verbs = BTreeMap::from([
        (
            "publish",
            app.key(&["consume:*", "manage:*", "monitor"]).await,
        ),
        (
            "consume",
            app.key(&["publish:*", "manage:*", "monitor"]).await,
        ),
        (
            "manage",
            app.key(&["publish:*", "consume:*", "monitor"]).await,
        ),
        (
            "monitor",
            app.key(&["publish:*", "consume:*", "manage:*"]).await,
        ),
        (
            "admin",
            app.key(&["publish:*", "consume:*", "manage:*", "monitor"])
                .await,
        ),
    ]);
    let mut open = Vec::new();
    for step in &steps {
        let id = &step.id;
        let Some(needs) = &step.needs else {
            assert!(step.without(&app).await.status.is_success(), "{id}");
            open.push(id.as_str());
            continue;
        };
        step.without(&app).await.expect_problem(401, "key-missing");
        for key in ["pr_garbage", &revoked, &expired] {
            step.with(&app, key)
                .await
                .expect_problem(401, "key-refused");
        }
        if let [scope] = needs.as_slice() {
            let answer = step.with(&app, &other_verbs[scope.as_str()]).await;
            answer.expect_problem(403, "scope-missing");
        } else if id == "transact" {
            // Every part of it needs a scope.
            let answer = step.with(&app, &scopeless).await;
            answer.expect_problem(403, "scope-missing");
        } else if !step.names_something {
            // A list, of nothing for this key; or what only its id could show.
            let expected = match id.as_str() {
                "get_reply" => StatusCode::NOT_FOUND,
                _ => StatusCode::OK,
            };
            assert_eq!(step.with(&app, &scopeless).await.status, expected, "{id}");
        }
    }
    open.sort_unstable();
    assert_eq!(open, ["livez", "readyz"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_key_does_not_see_is_answered_as_one_that_is_not_there() {
    let app = Guarded::start().await;
    let steps = steps(&receipt(&app).await);
    let (mut makers, mut named) = (Vec::new(), Vec::new());
    for step in steps.iter().filter(|step| step.names_something) {
        let id = &step.id;
        let right: Vec<String> = step.right(NAME).unwrap();
        let right: Vec<&str> = right.iter().map(String::as_str).collect();
        let right = app.key(&right).await;
        let wrong = step.right("elsewhere").unwrap();
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        let wrong = app.key(&wrong).await;
        if ["put_queue", "put_topic", "put_schedule"].contains(&id.as_str()) {
            // What it would make tells nothing of what is there.
            step.with(&app, &wrong)
                .await
                .expect_problem(403, "scope-missing");
            makers.push((step, right));
            continue;
        }
        let missing = step.with(&app, &right).await;
        assert_eq!(
            missing.status,
            StatusCode::NOT_FOUND,
            "{id} {}",
            missing.text
        );
        assert_eq!(
            alike(&step.with(&app, &wrong).await),
            alike(&missing),
            "{id}"
        );
        named.push((step, right, wrong, alike(&missing)));
    }
    assert!(named.len() > 30, "{}", named.len());

    assert_eq!(makers.len(), 3);
    for (step, right) in &makers {
        let made = step.with(&app, right).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    }
    // Those last that delete what the others are about.
    named.sort_by_key(|(step, ..)| {
        let deletes_all = ["delete_queue", "delete_topic"].contains(&step.id.as_str());
        (step.id.starts_with("delete_"), deletes_all)
    });
    let there = There::make(&app).await;
    for (step, right, wrong, missing) in &named {
        let step = there.real(&app, step).await;
        let id = &step.id;
        assert_eq!(&alike(&step.with(&app, wrong).await), missing, "{id}");
        assert_let_in(id, &step.with(&app, right).await);
    }
}

/// What is there and may be had is given, and not refused for any other reason.
#[track_caller]
fn assert_let_in(id: &str, answer: &Answer) {
    assert!(answer.status.is_success(), "{id}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_scope_alone_opens_what_names_nothing() {
    let app = Guarded::start().await;
    let steps = steps(&receipt(&app).await);
    let there = There::make(&app).await;
    let mut opened = Vec::new();
    for step in steps.iter().filter(|step| !step.names_something) {
        let Some(right) = step.right("") else {
            continue;
        };
        let right: Vec<&str> = right.iter().map(String::as_str).collect();
        let key = app.key(&right).await;
        let step = there.real(&app, step).await;
        let wrong = step.right("elsewhere").unwrap();
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        if step.template.starts_with("/v1/claims/") {
            let wrong = app.key(&wrong).await;
            let refused = step.with(&app, &wrong).await;
            refused.expect_problem(403, "scope-missing");
        } else if step.id == "get_reply" {
            let wrong = app.key(&wrong).await;
            let hidden = step.with(&app, &wrong).await;
            hidden.expect_problem(404, "reply-not-found");
        } else if step.id == "transact" {
            let wrong = app.key(&wrong).await;
            let hidden = step.with(&app, &wrong).await;
            hidden.expect_problem(404, "queue-not-found");
        }
        assert_let_in(&step.id, &step.with(&app, &key).await);
        opened.push((step.id.clone(), right[0].to_owned()));
    }
    for expected in [
        ("metrics", "monitor"),
        ("storage_health", "monitor"),
        ("create_key", "admin"),
        ("list_keys", "admin"),
        ("get_key", "admin"),
        ("rotate_key", "admin"),
        ("delete_key", "admin"),
    ] {
        assert!(
            opened
                .iter()
                .any(|(id, scope)| (id.as_str(), scope.as_str()) == expected),
            "{expected:?}: {opened:?}"
        );
    }
}
