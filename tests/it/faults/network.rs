//! What a network can do between a gateway and Postgres, besides ending.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::load::Load;
use crate::support::{Chaos, Database, Gateway, Weather, config, eventually, http_client};

/// Service is back so long after the trouble is over, at most.
const BACK: Duration = Duration::from_secs(10);

/// And readiness.
const READY: Duration = Duration::from_secs(5);

/// Publishes through a gateway that reaches its database through trouble.
struct Troubled {
    database: Database,
    chaos: Chaos,
    gateway: Gateway,
    load: Arc<Load>,
    clients: tokio::task::JoinSet<()>,
}

impl Troubled {
    async fn start() -> Self {
        let database = Database::migrated().await;
        let chaos = Chaos::over(&database).await;
        let gateway = Gateway::start(&config(chaos.url())).await;
        gateway.queue("work", json!({})).await;
        let load = Arc::new(Load::default());
        let clients = load.start(&gateway.url(""));
        let troubled = Self {
            database,
            chaos,
            gateway,
            load,
            clients,
        };
        troubled.publishes_more(300).await;
        troubled
    }

    /// Waits until so many more publishes have been acknowledged.
    async fn publishes_more(&self, more: usize) {
        let wanted = self.load.stored().await + more;
        eventually("publishes work", async || {
            self.load.stored().await >= wanted
        })
        .await;
    }

    /// Publishes to another queue, and comes again as `Retry-After` says: twice at
    /// most.
    async fn publishes_politely(&self, body: u64) {
        for last in [false, false, true] {
            let message = json!({"body": body});
            let answer = self
                .gateway
                .post("/v1/queues/polite/messages", message)
                .await;
            if last || answer.status == StatusCode::CREATED {
                answer.expect(StatusCode::CREATED);
                return;
            }
            answer.expect_problem(503, "overloaded");
            let seconds = answer.headers["retry-after"].to_str().unwrap();
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
        }
    }

    /// Publishes are back in time, and so is readiness.
    async fn is_back(&self) {
        let started = Instant::now();
        let ready = async {
            eventually("it is ready", async || {
                self.gateway.get("/readyz").await.status == 200
            })
            .await;
            started.elapsed()
        };
        // More than those whose answers were on their way.
        let ((), ready) = tokio::join!(self.publishes_more(50), ready);
        let after = started.elapsed();
        assert!(after < BACK, "publishes work after {after:?}");
        assert!(ready < READY, "ready after {ready:?}");
    }

    /// Readiness and life are told within so long.
    async fn tells(&self, ready: u16) {
        let started = Instant::now();
        assert_eq!(self.gateway.get("/readyz").await.status.as_u16(), ready);
        assert_eq!(self.gateway.get("/livez").await.status, 200);
        let after = started.elapsed();
        assert!(after < Duration::from_secs(4), "told after {after:?}");
    }

    /// Nothing that was acknowledged is lost, and nothing else was answered than
    /// that and 503.
    async fn end(self) {
        self.load.end(self.clients).await;
        self.load.assert_stored_or_refused().await;
        self.load.check(&self.gateway.url("")).await;
        // A connection that has died while it rested is noticed when it is used.
        eventually("what died is thrown away", async || {
            self.gateway.app.store().fold().await.is_ok()
        })
        .await;
        self.gateway.assert_conserved(&self.database, "work").await;
    }
}

/// A firewall that has forgotten its connections, an old primary that has lost
/// its power: no connection ever hears of it. New ones work.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_went_silent_are_replaced() {
    let troubled = Troubled::start().await;
    for _ in 0..2 {
        let made = troubled.chaos.connections();
        troubled.chaos.silence_old();
        troubled.is_back().await;
        assert!(troubled.chaos.connections() > made);
    }
    troubled.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_silent_for_a_while_is_not_ready_and_then_works_again() {
    let troubled = Troubled::start().await;
    troubled.chaos.weather(Weather::Silent);
    troubled.tells(503).await;
    // Every statement has been given up by now, and new ones are.
    let refused = || async {
        let statuses = troubled.load.statuses.lock().await;
        statuses.get(&503).copied().unwrap_or_default()
    };
    eventually("publishes are refused", async || refused().await > 20).await;
    troubled.tells(503).await;
    troubled.chaos.weather(Weather::Fair);
    troubled.is_back().await;
    troubled.end().await;
}

/// With every connection of the pools stuck, and others waiting for one.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_told_while_all_connections_are_stuck() {
    let troubled = Troubled::start().await;
    troubled.chaos.silence_old();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let request = troubled.gateway.request(Method::GET, "/v1/queues");
        asking.spawn(async move { request.send().await.unwrap().status() });
    }
    // The connection that asks has gone, too: another is made at once.
    troubled.tells(200).await;
    while let Some(status) = asking.join_next().await {
        let status = status.unwrap();
        assert!(
            matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE),
            "{status}"
        );
    }
    troubled.is_back().await;
    troubled.end().await;
}

/// Whoever is refused, since a connection that has not done this before takes three
/// times as long for it, and comes again when told to, is let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_no_trouble() {
    let troubled = Troubled::start().await;
    troubled.gateway.queue("polite", json!({})).await;
    troubled
        .chaos
        .weather(Weather::Slow(Duration::from_millis(200)));
    troubled.publishes_more(20).await;
    let polite = async {
        for body in 0..10 {
            troubled.publishes_politely(body).await;
        }
    };
    tokio::join!(polite, troubled.publishes_more(50));
    troubled.tells(200).await;
    troubled.chaos.weather(Weather::Fair);
    troubled.end().await;
}

/// The statement has run, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_unknown_and_the_rest_goes_on() {
    let troubled = Troubled::start().await;
    troubled.chaos.weather(Weather::NoAnswers);
    eventually("some are unknown", async || {
        troubled.load.statuses.lock().await.contains_key(&503)
    })
    .await;
    troubled.chaos.weather(Weather::Fair);
    troubled.is_back().await;
    troubled.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_or_cut_half_way_through_an_answer_are_replaced() {
    let troubled = Troubled::start().await;
    for _ in 0..5 {
        troubled.chaos.reset();
        troubled.is_back().await;
    }
    for most in [0, 1, 5, 30] {
        troubled.chaos.weather(Weather::Halfway(most));
        let before = troubled.chaos.connections();
        eventually("some were cut", async || {
            troubled.chaos.connections() > before + 2
        })
        .await;
        troubled.chaos.weather(Weather::Fair);
        troubled.is_back().await;
    }
    troubled.end().await;
}

/// Before its database is there a gateway listens, says that it lives, and
/// nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_waits_for_its_database_says_so() {
    let database = Database::migrated().await;
    let chaos = Chaos::over(&database).await;
    chaos.weather(Weather::Refusing);
    let mut config = config(chaos.url());
    // Free a moment ago; the gateway takes it before anything else.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.listen = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{}", config.listen);
    let starting = async { Gateway::start(&config).await };
    let asking = async {
        let client = http_client();
        eventually("it listens", async || {
            client.get(format!("{url}/livez")).send().await.is_ok()
        })
        .await;
        let live = client.get(format!("{url}/livez")).send().await.unwrap();
        assert_eq!(live.status(), StatusCode::OK);
        for (method, path) in [
            (Method::GET, "/readyz"),
            (Method::POST, "/v1/queues/work/messages"),
            (Method::GET, "/nowhere"),
        ] {
            let request = client.request(method, format!("{url}{path}"));
            let answer = crate::support::Answer::of(request.body("{}")).await;
            answer.expect_problem(503, "database-unavailable");
        }
        // One that says nothing is not waited for.
        let mut silent = TcpStream::connect(config.listen).await.unwrap();
        let closed = silent.read_u8();
        let closed = tokio::time::timeout(Duration::from_secs(8), closed).await;
        closed.unwrap().unwrap_err();
        chaos.weather(Weather::Fair);
    };
    let (gateway, ()) = tokio::join!(starting, asking);
    assert_eq!(gateway.get("/readyz").await.status, 200);
    gateway.queue("work", json!({})).await;
}
