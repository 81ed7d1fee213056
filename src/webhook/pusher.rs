//! The client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::error::{Error, explain};
use super::resolve::{Names, Resolver};
use super::{KEPT, Push, PushOutcome, Pushed, READ};
use crate::domain::{AllowList, Seconds, WebhookUrl, retry_after};

/// How long connecting may take, TLS included, where a webhook's own deadline
/// is longer.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next push. Servers close idle ones
/// too, some (Node, uvicorn) after 5 s, and a push that crosses with that fails
/// for nothing: so we close first.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections to one host, at most.
const IDLE_PER_HOST: usize = 64;

/// An HTTP/2 connection that says nothing for this long is asked, and given up
/// when it does not answer in time: all pushes to a host may share one.
const PING: Duration = Duration::from_secs(10);

/// Bytes that a receiver may send before they are read: per push and per
/// connection of HTTP/2.
const WINDOW: u32 = 64 * 1024;

/// Sends pushes; one per gateway.
#[derive(Debug)]
pub struct Pusher {
    allow: Arc<AllowList>,
    names: Names,
    tls: ClientConfig,
    /// Whether there is anything to check certificates with.
    has_roots: bool,
    /// A client for each port: its resolver has to know the port. In practice
    /// these are two.
    clients: Mutex<HashMap<u16, Client>>,
}

/// How far a push has come, for when time is up.
#[derive(Debug, Default)]
struct Progress {
    status: Option<StatusCode>,
    wait: Option<Seconds>,
    answer: Vec<u8>,
}

impl Pusher {
    /// With the CA certificates of this machine. If there are none it says so in
    /// the log, and again for each https URL.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub fn new(allow: AllowList) -> Result<Self, Error> {
        Self::with_names(allow, Names::of_the_system())
    }

    /// The same, with addresses of names from there.
    ///
    /// # Errors
    /// [`Error::Client`].
    pub fn with_names(allow: AllowList, names: Names) -> Result<Self, Error> {
        let failed = |error: rustls::Error| Error::Client(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(failed)
        };
        let (mut tls, has_roots) = match builder()?.with_platform_verifier() {
            Ok(builder) => (builder.with_no_client_auth(), true),
            Err(error) => {
                tracing::warn!(%error, "{}", Error::NoRoots);
                let nothing = rustls::RootCertStore::empty();
                let builder = builder()?.with_root_certificates(nothing);
                (builder.with_no_client_auth(), false)
            }
        };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let pusher = Self {
            allow: Arc::new(allow),
            names,
            tls,
            has_roots,
            clients: Mutex::default(),
        };
        // What cannot be built shows now.
        pusher.client(443)?;
        Ok(pusher)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that makes a client, and guards it"
    )]
    fn client(&self, port: u16) -> Result<Client, Error> {
        // A panic in here leaves the map as it was.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&port) {
            return Ok(client.clone());
        }
        let client = Client::builder()
            .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Resolver {
                names: self.names.clone(),
                allow: Arc::clone(&self.allow),
                port,
            })
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(4 * WINDOW)
            .http2_max_header_list_size(WINDOW)
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PING)
            .build()
            .map_err(|error| Error::Client(explain(&error)))?;
        clients.insert(port, client.clone());
        Ok(client)
    }

    /// Whether pushes may go to the URL, by what its name resolves to now.
    /// Never connects.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check(&self, url: &WebhookUrl) -> Result<(), Error> {
        self.check_url(url)?;
        if url.literal().is_some() {
            return Ok(());
        }
        let resolving = self.names.resolve(url.host(), url.port(), &self.allow);
        match tokio::time::timeout(CONNECT, resolving).await {
            Ok(found) => found.map(|_| ()),
            Err(_) => Err(Error::Unresolved {
                host: url.host().to_owned(),
                reason: format!("no answer within {} s", CONNECT.as_secs()),
            }),
        }
    }

    /// What holds without resolving.
    fn check_url(&self, url: &WebhookUrl) -> Result<(), Error> {
        url.check(&self.allow)?;
        if url.is_https() && !self.has_roots {
            return Err(Error::NoRoots);
        }
        Ok(())
    }

    /// Sends it, and returns within its timeout.
    pub async fn push(&self, push: Push<'_>) -> Pushed {
        let began = Instant::now();
        let mut progress = Progress::default();
        let exchange = self.exchange(&push, began, &mut progress);
        let error = match tokio::time::timeout(push.timeout, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => {
                let doing = match progress.status {
                    None => "waiting for the answer's head",
                    Some(_) => "reading the answer's body",
                };
                let timeout = push.timeout.as_secs_f64();
                Some(format!("timed out after {timeout} s while {doing}"))
            }
        };
        Pushed {
            status: progress.status.map(|status| status.as_u16()),
            outcome: match progress.status {
                Some(status) if error.is_none() => outcome(status, progress.wait),
                _ => PushOutcome::Failed,
            },
            duration: began.elapsed(),
            answer: progress.answer,
            error,
        }
    }

    async fn exchange(
        &self,
        push: &Push<'_>,
        began: Instant,
        progress: &mut Progress,
    ) -> Result<(), String> {
        let say = |error: Error| error.to_string();
        // The list may have changed since the webhook was made.
        self.check_url(push.url).map_err(say)?;
        let client = self.client(push.url.port()).map_err(say)?;
        let response = client
            .post(push.url.as_url().clone())
            .headers(headers(push).map_err(say)?)
            .body(push.body.clone())
            .send()
            .await
            .map_err(|error| explain(&error))?;
        progress.status = Some(response.status());
        progress.wait = wait(&response, push.timestamp, began.elapsed());
        read(response, &mut progress.answer).await
    }
}

/// Reads to the end or to [`READ`] bytes, whichever comes first. What comes
/// later is never looked at: to drop the response drops the connection.
async fn read(mut response: Response, answer: &mut Vec<u8>) -> Result<(), String> {
    let mut read = 0;
    while read <= READ {
        let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? else {
            break;
        };
        read += chunk.len();
        let room = KEPT - answer.len();
        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    Ok(())
}

fn headers(push: &Push<'_>) -> Result<HeaderMap, Error> {
    let timestamp = push.timestamp.to_string();
    let ours = [
        ("webhook-id", push.id),
        ("webhook-timestamp", &timestamp),
        ("webhook-signature", &push.signature),
    ];
    let theirs = push.headers.iter();
    let all = theirs.map(|(name, value)| (name.as_str(), value.as_str()));
    let mut headers = HeaderMap::with_capacity(push.headers.len() + ours.len());
    for (name, value) in all.chain(ours) {
        let refused = || Error::Header(name.to_owned());
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        // Bytes beyond ASCII are opaque to HTTP, and UTF-8 here.
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused())?;
        headers.insert(parsed, value);
    }
    if push.body.is_empty() {
        // Left out by the client, and asked for by receivers that read so much.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    Ok(headers)
}

/// The `Retry-After`, at least a second.
fn wait(response: &Response, timestamp: i64, elapsed: Duration) -> Option<Seconds> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let elapsed = TimeDelta::from_std(elapsed).unwrap_or_default();
    let now = DateTime::from_timestamp(timestamp, 0)? + elapsed;
    retry_after(value, now).map(|wait| wait.max(Seconds::new(1)))
}

fn outcome(status: StatusCode, wait: Option<Seconds>) -> PushOutcome {
    match (status, wait) {
        (StatusCode::GONE, _) => PushOutcome::Gone,
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => {
            PushOutcome::Wait(wait)
        }
        (status, _) if status.is_success() => PushOutcome::Delivered,
        _ => PushOutcome::Failed,
    }
}
