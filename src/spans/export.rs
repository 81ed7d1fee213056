//! OTLP over HTTP, as the standard `OTEL_*` variables say.
//!
//! The SDK's own thread collects spans in a queue of fixed size and sends them in
//! batches; when the queue is full, spans are dropped. So nobody waits for a
//! collector, and one that is away is told of once in the log, and again when it
//! is back.

use std::env;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Config, SdkTracerProvider};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::runtime::Handle;

use super::TRACER;
use super::sampler::AsLinked;

/// How long a collector may take for a batch, unless a variable says otherwise:
/// the standard's default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a collector's answer that are read, at most.
const ANSWER: usize = 64 * 1024;

/// Sends spans until it is shut down.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

/// What the environment says, empty variables being none, as the standard wants.
fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The variable about traces, or else the general one.
fn of_traces(what: &str) -> Option<String> {
    variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
        .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
}

/// Starts tracing, if the environment says where to export to. What it says wrong
/// is said in the log, and leaves tracing off: no reason not to serve.
#[must_use]
pub fn start() -> Option<Exporter> {
    of_traces("ENDPOINT")?;
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let is_wanted = variable("OTEL_TRACES_EXPORTER").is_none_or(|exporter| exporter == "otlp");
    if is_disabled || !is_wanted {
        return None;
    }
    match build() {
        Ok(provider) => {
            let tracer = provider.tracer("postrider");
            TRACER.set(tracer).ok()?;
            tracing::info!("traces: exported over OTLP");
            Some(Exporter(provider))
        }
        Err(reason) => {
            tracing::error!("traces are not exported: {reason}");
            None
        }
    }
}

fn build() -> Result<SdkTracerProvider, String> {
    let endpoint = endpoint()?;
    if let Some(protocol) = of_traces("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
        return Err(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL is {protocol:.20}, and this program speaks http/protobuf \
             (collectors take it on port 4318)"
        ));
    }
    let timeout = match of_traces("TIMEOUT") {
        None => TIMEOUT,
        Some(text) => text
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| "OTEL_EXPORTER_OTLP_TIMEOUT is not a number of milliseconds")?,
    };
    let client = Client {
        http: client(timeout)?,
        runtime: Handle::current(),
        is_failing: Arc::default(),
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(endpoint.to_string())
        .with_timeout(timeout)
        .build()
        // It may repeat what a variable holds.
        .map_err(|_| "an OTEL_EXPORTER_OTLP_* variable is not one that this program knows")?;
    Ok(SdkTracerProvider::builder()
        .with_sampler(AsLinked(Config::default().sampler))
        .with_resource(resource())
        .with_batch_exporter(exporter)
        .build())
}

/// Where to. What it may hold of a password is not repeated.
fn endpoint() -> Result<url::Url, String> {
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let (name, text) = match (variable(TRACES), variable(GENERAL)) {
        (Some(url), _) => (TRACES, url),
        (None, Some(base)) => (GENERAL, format!("{}/v1/traces", base.trim_end_matches('/'))),
        (None, None) => return Err(format!("{GENERAL} is not set")),
    };
    let url = url::Url::parse(&text).map_err(|error| format!("{name} is not a URL: {error}"))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(format!("{name} must begin with http:// or https://"))
    }
}

/// The client for the collector: an address that the operator chose, so none of
/// what guards pushes is needed; but it does not go where it is sent on to.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator chose the address: no guard is needed, and no proxy refused"
)]
fn client(timeout: Duration) -> Result<reqwest::Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match builder.clone().with_platform_verifier() {
        Ok(builder) => builder.with_no_client_auth(),
        // A collector near by is mostly reached without TLS.
        Err(_) => builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    };
    reqwest::Client::builder()
        .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(timeout)
        .build()
        .map_err(|_| "the HTTP client could not be made".to_owned())
}

/// Who says so: `postrider`, unless `OTEL_SERVICE_NAME` or
/// `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
fn resource() -> Resource {
    let instance = format!("{:016x}", rand::random::<u64>());
    let mut builder = Resource::builder_empty()
        .with_service_name("postrider")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        builder = builder.with_service_name(name);
    }
    builder.build()
}

impl Exporter {
    /// Sends what is left, for at most so long.
    pub async fn shut_down(self, limit: Duration) {
        // It waits for the SDK's thread.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(limit)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans were not exported");
        }
    }
}

/// Sends from the SDK's thread, which has no runtime, on ours.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    is_failing: Arc<AtomicBool>,
}

impl HttpClient for Client {
    fn send_bytes<'client, 'sending>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sending>>
    where
        'client: 'sending,
        Self: 'sending,
    {
        let (http, is_failing) = (self.http.clone(), Arc::clone(&self.is_failing));
        let sending = self.runtime.spawn(async move {
            let sent = send(&http, request).await;
            let failure = match &sent {
                Ok(response) if response.status().is_success() => None,
                Ok(response) => Some(format!("it answered {}", response.status().as_u16())),
                Err(reason) => Some(reason.clone()),
            };
            match (failure, is_failing.load(Ordering::Relaxed)) {
                (Some(reason), false) => {
                    is_failing.store(true, Ordering::Relaxed);
                    tracing::warn!("the collector of traces takes none: {reason}");
                }
                (None, true) => {
                    is_failing.store(false, Ordering::Relaxed);
                    tracing::info!("the collector of traces takes them again");
                }
                _ => {}
            }
            sent
        });
        Box::pin(async move { Ok(sending.await??) })
    }
}

async fn send(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let request = reqwest::Request::try_from(request).map_err(|_| "not a request".to_owned())?;
    let mut response = http.execute(request).await.map_err(explain)?;
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(explain)? {
        if answer.len() + chunk.len() > ANSWER {
            return Err("its answer does not end".to_owned());
        }
        answer.extend_from_slice(&chunk);
    }
    let mut whole = Response::new(answer.into());
    *whole.status_mut() = response.status();
    *whole.headers_mut() = std::mem::take(response.headers_mut());
    Ok(whole)
}

/// In a few words, without the URL, which may hold a password.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn explain(error: reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the request failed"
    };
    what.to_owned()
}
