//! Keys that are none, or not for this.

use postrider::config::{Auth, Config};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::keys::lives::alike;
use crate::support::{Answer, Database, Gateway, Link, config, eventually};

/// A key or none, what it is used for, and the answer; that while Postgres is
/// away, too, where it is another one.
struct Row {
    authorization: Option<String>,
    path: String,
    up: (u16, &'static str),
    down: (u16, &'static str),
}

fn row(
    authorization: Option<String>,
    path: &str,
    up: (u16, &'static str),
    down: (u16, &'static str),
) -> Row {
    Row {
        authorization,
        path: path.to_owned(),
        up,
        down,
    }
}

fn with_key(key: &str, path: &str, up: (u16, &'static str), down: (u16, &'static str)) -> Row {
    row(Some(format!("Bearer {key}")), path, up, down)
}

/// Whether a key is still good only the database knows: what was known of it is
/// too old after some seconds.
const AWAY: (u16, &str) = (503, "database-unavailable");

async fn ask(gateway: &Gateway, row: &Row) -> Answer {
    // What only takes a POST is asked by one.
    let method = if row.path.ends_with("/receive") {
        Method::POST
    } else {
        Method::GET
    };
    let mut request = gateway.request(method, &row.path);
    if let Some(authorization) = &row.authorization {
        request = request.header("authorization", authorization);
    }
    Answer::of(request).await
}

async fn as_admin(
    gateway: &Gateway,
    admin: &str,
    method: Method,
    path: &str,
    json: Value,
) -> Value {
    let request = gateway
        .request(method, path)
        .bearer_auth(admin)
        .header("content-type", "application/json")
        .body(json.to_string());
    let answer = Answer::of(request).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    if answer.text.is_empty() {
        Value::Null
    } else {
        answer.json()
    }
}

/// A gateway that asks for keys, and its Postgres, which can be taken away.
struct Guarded {
    gateway: Gateway,
    admin: String,
    database: Database,
    link: Link,
}

impl Guarded {
    async fn start() -> Self {
        let database = Database::migrated().await;
        let link = Link::to(&database).await;
        let settings = Config {
            auth: Auth::Required,
            ..config(link.url())
        };
        let gateway = Gateway::start(&settings).await;
        let admin = gateway.app.admin_key().unwrap().to_owned();
        let guarded = Self {
            gateway,
            admin,
            database,
            link,
        };
        for path in ["queues/orders", "queues/secret", "topics/secret"] {
            let path = format!("/v1/{path}");
            guarded.as_admin(Method::PUT, &path, json!({})).await;
        }
        guarded
    }

    async fn as_admin(&self, method: Method, path: &str, json: Value) -> Value {
        as_admin(&self.gateway, &self.admin, method, path, json).await
    }

    /// A key with this scope, and its id.
    async fn key(&self, scope: &str) -> (String, String) {
        let request = json!({"name": "x", "scopes": [scope]});
        let made = self.as_admin(Method::POST, "/v1/keys", request).await;
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("key"), text("id"))
    }

    /// Keys that were good, or look as if they were: unknown, revoked, expired,
    /// and one with a secret that is not its own.
    async fn no_good(&self) -> [String; 4] {
        let (revoked, id) = self.key("admin").await;
        let path = format!("/v1/keys/{id}");
        self.as_admin(Method::DELETE, &path, json!({})).await;
        let (expired, id) = self.key("admin").await;
        let past = format!(
            "UPDATE postrider.api_keys SET expires_at = now() - interval '1 s' WHERE id = '{id}'"
        );
        self.database.execute(&past).await;
        let (good, _) = self.key("admin").await;
        let end = if good.ends_with('0') { '1' } else { '0' };
        let mistyped = format!("{}{end}", &good[..good.len() - 1]);
        // Of the form that keys have, and of an id that none has.
        let begin = if revoked.starts_with("pr_0") {
            '1'
        } else {
            '0'
        };
        let unknown = format!("pr_{begin}{}", &revoked[4..]);
        [unknown, revoked, expired, mistyped]
    }

    /// Asks all and judges each by the answer and its challenge; the answers.
    async fn ask_all(&self, rows: &[Row], is_up: bool) -> Vec<Answer> {
        // Together: with Postgres away each takes its time.
        let asked = rows.iter().map(|row| ask(&self.gateway, row));
        let answers = futures_util::future::join_all(asked).await;
        for (row, answer) in rows.iter().zip(&answers) {
            let (status, code) = if is_up { row.up } else { row.down };
            answer.expect_problem(status, code);
            let challenge = answer.headers.get("www-authenticate");
            let expected = match code {
                "key-missing" => Some("Bearer realm=\"postrider\""),
                "key-refused" => Some("Bearer realm=\"postrider\", error=\"invalid_token\""),
                _ => None,
            };
            assert_eq!(challenge.map(|c| c.to_str().unwrap()), expected, "{code}");
        }
        answers
    }
}

const QUEUE: &str = "/v1/queues/orders";

/// Keys that are none, and such as were good once.
async fn bad_keys(guarded: &Guarded) -> (Vec<Row>, Vec<Row>) {
    let missing = (401, "key-missing");
    let invalid = (401, "key-refused");
    let admin = &guarded.admin;
    let in_the_url = format!("{QUEUE}?key={admin}");
    let none = vec![
        row(None, QUEUE, missing, missing),
        row(None, &in_the_url, missing, missing),
        row(Some("Basic YTpi".to_owned()), QUEUE, invalid, invalid),
        with_key("garbage", QUEUE, invalid, invalid),
        with_key(&admin[..admin.len() - 1], QUEUE, invalid, invalid),
    ];
    let no_good = guarded.no_good().await;
    let no_good = no_good.map(|key| with_key(&key, QUEUE, invalid, AWAY));
    (none, no_good.into())
}

/// What a key may not do; and what it does not see, and in the same places what is
/// not there.
fn denied(key: &str) -> (Vec<Row>, Vec<Row>, Vec<Row>) {
    let denied = vec![
        with_key(key, "/v1/keys", (403, "scope-missing"), AWAY),
        with_key(key, "/metrics", (403, "scope-missing"), AWAY),
        with_key(
            key,
            &format!("{QUEUE}/webhook"),
            (403, "scope-missing"),
            AWAY,
        ),
    ];
    let named = |name: &str| -> Vec<Row> {
        [
            ("queues", "", "queue-not-found"),
            ("queues", "/messages", "queue-not-found"),
            ("queues", "/receive", "queue-not-found"),
            ("queues", "/dead-letters", "queue-not-found"),
            ("topics", "", "topic-not-found"),
            ("topics", "/messages", "topic-not-found"),
        ]
        .map(|(kind, below, code)| {
            let path = format!("/v1/{kind}/{name}{below}");
            with_key(key, &path, (404, code), AWAY)
        })
        .into()
    };
    // Names of one length, so that only the name may differ.
    (denied, named("secret"), named("absent"))
}

/// All answers are the same, byte for byte.
#[track_caller]
fn assert_alike<'a>(answers: impl IntoIterator<Item = &'a Answer>) {
    let mut answers: Vec<String> = answers.into_iter().map(alike).collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_none_or_not_for_this_are_refused() {
    let mut guarded = Guarded::start().await;
    let (none, no_good) = bad_keys(&guarded).await;
    let (consumer, _) = guarded.key("consume:orders").await;
    let (denied, hidden, absent) = denied(&consumer);
    for is_up in [true, false] {
        if !is_up {
            guarded.link.cut().await;
            eventually("what was known of keys is too old", async || {
                ask(&guarded.gateway, &denied[0]).await.status == 503
            })
            .await;
        }
        guarded.ask_all(&none, is_up).await;
        // Why a key is no good is not to be seen.
        let refused = guarded.ask_all(&no_good, is_up).await;
        assert_alike(&refused);
        guarded.ask_all(&denied, is_up).await;
        // What it may not see is like what is not there, but for the name.
        let hidden = guarded.ask_all(&hidden, is_up).await;
        let absent = guarded.ask_all(&absent, is_up).await;
        for (mut hidden, absent) in hidden.into_iter().zip(absent) {
            hidden.text = hidden.text.replace("secret", "absent");
            assert_alike([&hidden, &absent]);
        }
    }
    let live = guarded.gateway.get("/livez").await;
    live.expect(StatusCode::OK);
    guarded.link.mend().await;
    eventually("it is back", async || {
        guarded.gateway.get("/readyz").await.status == 200
    })
    .await;
    guarded.ask_all(&denied, true).await;
}
