//! Wires everything together; starts it in order and ends it in the reverse.

mod database;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::batch::Broker;
use crate::config::{Auth, Config};
use crate::domain::{AllowList, ReceiptKey, RequestKey};
use crate::embedded;
use crate::http::{self, Gate, Gateway, Tls};
use crate::secrets;
use crate::store::{self, Store};
use crate::telemetry::RequestLog;
use crate::webhook::{self, Pusher};
use crate::workers;
use database::Opened;
pub use database::{Database, another_admin_key};

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private Postgres.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The key that seals webhooks' secrets.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// The certificate that it serves with.
    #[error(transparent)]
    Tls(#[from] http::TlsError),
    /// The client that webhooks are pushed with.
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
    /// No keys where others could come in.
    #[error(
        "--auth off is for loopback addresses only, and others reach {0}: leave it out (the first \
         start prints an admin key), or listen on 127.0.0.1"
    )]
    Unguarded(SocketAddr),
    /// The address.
    #[error(
        "cannot listen on {address} (is another gateway running? --listen takes another address)"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    store: Store,
    gateway_id: i64,
    broker: Arc<Broker>,
    drain: Duration,
    /// Made by this start, if it was the first one of its database.
    admin_key: Option<String>,
    /// Cancelled first: no new requests, no new work.
    stop: CancellationToken,
    /// Cancelled when the requests in hand are answered.
    stop_writers: CancellationToken,
    server: JoinHandle<()>,
    /// Pushes to webhooks on their way.
    pushes: TaskTracker,
    tracker: TaskTracker,
    database: Database,
}

impl App {
    /// Starts the gateway. When it returns, requests are answered.
    ///
    /// # Errors
    /// [`Error`]; what was started is stopped again.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        if config.auth == Auth::Off && !config.listen.ip().is_loopback() {
            return Err(Error::Unguarded(config.listen));
        }
        // Before the database, which takes longer: a second gateway on the
        // address is told at once, and so is who gave a wrong certificate.
        let server = &config.server;
        let tls = Tls::load(&server.tls_cert, &server.tls_key, server.http2)?;
        let listener = http::bind(config.listen).map_err(|source| Error::Listen {
            address: config.listen,
            source,
        })?;
        let opening = http::meanwhile(&listener, tls.is_some(), Database::open(config));
        let database = Box::pin(opening).await?;
        match Box::pin(Self::start_on(config, listener, tls, &database)).await {
            Ok(start) => Ok(start(database)),
            Err(error) => {
                if let Err(error) = database.close().await {
                    tracing::error!(%error, "stopping the private Postgres");
                }
                Err(error)
            }
        }
    }

    async fn start_on(
        config: &Config,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        database: &Database,
    ) -> Result<impl FnOnce(Database) -> Self + use<>, Error> {
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: config.listen,
            source,
        })?;
        let opening = database.opened(config, Some(address));
        let Opened {
            store,
            secret,
            gaps,
            admin_key,
        } = Box::pin(http::meanwhile(&listener, tls.is_some(), opening)).await?;
        store
            .metrics()
            .set_named_queues(config.metrics_queues as usize);
        let sealing = database.sealing_key(config)?;
        let webhook_allow: AllowList = config.webhook_allow.iter().copied().collect();
        let pusher = Arc::new(Pusher::new(webhook_allow.clone())?);

        let tracker = TaskTracker::new();
        let stop = CancellationToken::new();
        let stop_writers = CancellationToken::new();
        let gateway_id = rand::random::<i64>();
        let broker = Arc::new(Broker::start(&store, &tracker, &stop_writers));
        let in_flight = TaskTracker::new();
        let options = workers::Options {
            gateway_id,
            backlog_high: config.backlog_high,
            snapshot_age_warning: config.snapshot_age_warning_seconds,
            push_attempt_days: config.push_attempt_days,
            outbound: sealing.clone().map(|key| workers::Outbound {
                pusher: Arc::clone(&pusher),
                key,
            }),
            pushes: in_flight.clone(),
        };
        workers::start(&broker, options, &tracker, &stop);
        let gateway = Arc::new(Gateway {
            broker: Arc::clone(&broker),
            gate: Gate::new(
                config.auth == Auth::Required,
                store.clone(),
                &secret,
                config.failed_logins_per_minute,
            ),
            receipts: ReceiptKey::new(&secret),
            requests: Arc::new(RequestKey::new(&secret)),
            sealing,
            pusher,
            webhook_allow,
            capacity: Arc::new(http::Capacity::new(
                config.max_requests as usize,
                // Over HTTP/1.1 no more could wait anyway.
                config.server.max_connections as usize,
                config.body_memory_mib as usize * 1024 * 1024,
            )),
            limits: http::Limits::default(),
            id: gateway_id,
            clock: now,
            snapshot_age_warning: config.snapshot_age_warning_seconds,
            gaps: gaps.clone(),
            log: Arc::new(RequestLog::new(config.log_requests)),
            metrics_asked: http::MetricsAsked::default(),
            tracker: tracker.clone(),
            stop: stop.clone(),
        });
        let (keeping, ended) = (Arc::clone(&gateway), stop.clone());
        tracker.spawn(async move { keeping.gate.keep(ended).await });
        let options = http_options(config, tls.clone());
        let server = tracker.spawn(http::listen(listener, gateway, options));
        greet(address, tls.is_some(), config.auth, database, &gaps);

        let drain = Duration::from_secs(config.drain_seconds);
        Ok(move |database| Self {
            address,
            tls,
            store,
            gateway_id,
            broker,
            drain,
            admin_key,
            stop,
            stop_writers,
            server,
            pushes: in_flight,
            tracker,
            database,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin key that this start made, if it was the first one of its
    /// database: to be shown, this once.
    #[must_use]
    pub fn admin_key(&self) -> Option<&str> {
        self.admin_key.as_deref()
    }

    /// The store, for tests that look behind the interface.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The hot paths, for tests that look behind the interface.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Reads anew what files may have changed: the certificate and its key.
    pub fn reload(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            None => tracing::info!("there is nothing to read anew: no --tls-cert"),
            Some(Ok(())) => tracing::info!("the certificate was read anew"),
            Some(Err(error)) => tracing::error!(%error, "the certificate in use is kept"),
        }
    }

    /// Ends it in order: no new requests; waiting receivers go home; requests in
    /// hand are answered, for as long as the configuration allows; workers end
    /// their iterations; the database is closed.
    ///
    /// # Errors
    /// [`embedded::Error`] if the private Postgres did not stop.
    pub async fn shut_down(self) -> Result<(), embedded::Error> {
        self.stop.cancel();
        self.broker.close();
        self.pushes.close();
        let in_hand = async { tokio::join!(self.server, self.pushes.wait()) };
        if tokio::time::timeout(self.drain, in_hand).await.is_err() {
            tracing::warn!("some requests or pushes took too long to end and were cut off");
        }
        self.stop_writers.cancel();
        self.tracker.close();
        if tokio::time::timeout(Duration::from_secs(1), self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some work took too long to end and was cut off");
        }
        let goodbye = async {
            if let Err(error) = self.store.farewell(self.gateway_id).await {
                tracing::debug!(%error, "the others were not told");
            }
            self.store.close().await;
        };
        if tokio::time::timeout(Duration::from_secs(1), goodbye)
            .await
            .is_err()
        {
            tracing::debug!("the database did not say goodbye");
        }
        self.database.close().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// How to serve.
fn http_options(config: &Config, tls: Option<Arc<Tls>>) -> http::Options {
    let server = &config.server;
    http::Options {
        // Besides connections: those to the database and to webhooks, and the rest.
        max_connections: server.connections(config.database_connections + 100),
        http2: server.http2,
        tls,
        cors_origins: server.origins(),
        head_time: server.head_time,
        idle_time: server.idle_time,
    }
}

/// Says what a person at a terminal wants to know.
fn greet(address: SocketAddr, is_tls: bool, auth: Auth, database: &Database, gaps: &[String]) {
    let scheme = if is_tls { "https" } else { "http" };
    tracing::info!(
        "postrider {} listening on {scheme}://{address}",
        env!("CARGO_PKG_VERSION")
    );
    tracing::info!("docs: {scheme}://{address}/docs");
    tracing::info!("{}", database.description);
    match auth {
        Auth::Required => tracing::info!("auth: required; requests need an API key"),
        Auth::Off => tracing::info!("auth: off; programs on this machine may do everything"),
    }
    for gap in gaps {
        tracing::warn!("off: {gap}");
    }
}

/// The time of this machine.
#[expect(clippy::disallowed_methods, reason = "the one place that hands it out")]
fn now() -> DateTime<Utc> {
    Utc::now()
}
