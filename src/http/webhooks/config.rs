//! A webhook's settings as they are written in JSON; `domain::WebhookSettings`
//! is what they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{self, BreakerSettings, Seconds, WebhookSettings};
use crate::http::extract::object;
use crate::http::shapes;
use crate::http::whole::whole;

/// A webhook's settings; every one but the URL has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "http://127.0.0.1:9000/hooks/orders", "max_in_flight": 10}))]
pub(crate) struct WebhookConfig {
    /// Where to push to: http or https, at a public address or one that the
    /// gateway's `--webhook-allow` names.
    #[schema(
        example = "http://127.0.0.1:9000/hooks/orders",
        pattern = "^https?://",
        max_length = 2048
    )]
    pub(super) url: String,
    /// Headers to send along, at most 32. Not those that describe the push or the
    /// connection: `Host`, `Content-*`, `Webhook-*`, `Postrider-*` and the like.
    #[serde(default)]
    #[schema(schema_with = webhook_headers)]
    headers: BTreeMap<String, String>,
    /// How long a push may take in all, answer included; 0.1 to 300.
    #[serde(default = "timeout")]
    #[schema(value_type = f64, default = 15, minimum = 0.1, maximum = 300)]
    timeout_seconds: Seconds,
    /// Pushes on their way at a time, over all gateways; 1 to 1000.
    #[serde(default = "max_in_flight", deserialize_with = "whole")]
    #[schema(default = 10, minimum = 1, maximum = 1000)]
    max_in_flight: u32,
    /// Pushes a second, over all gateways, 0.01 to 100000; null for no bound.
    #[serde(default)]
    #[schema(minimum = 0.01, maximum = 100_000)]
    rate_limit_per_second: Option<f64>,
    /// When to stop pushing for a while.
    #[serde(default, deserialize_with = "object")]
    circuit_breaker: BreakerConfig,
    /// After so long of nothing but failures it is disabled; 60 s to 365 days.
    #[serde(default = "disable_after")]
    #[schema(value_type = f64, default = 432_000, minimum = 60, maximum = 31_536_000)]
    disable_after_seconds: Seconds,
}

/// When to stop pushing for a while. While the breaker is open, messages wait in
/// their queue and no attempt is used up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BreakerConfig {
    /// The share of failures at which it opens; 0.01 to 1.
    #[schema(default = 0.5, minimum = 0.01, maximum = 1)]
    failure_rate: f64,
    /// How many of the last calls are looked at; 1 to 1000.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 20, minimum = 1, maximum = 1000)]
    window: u32,
    /// With fewer calls in the window it stays closed; 1 to `window`.
    #[serde(deserialize_with = "whole")]
    #[schema(default = 10, minimum = 1, maximum = 1000)]
    min_calls: u32,
    /// How long it stays open, before one probe; 0.1 to 86400.
    #[schema(value_type = f64, default = 30, minimum = 0.1, maximum = 86_400)]
    open_seconds: Seconds,
}

fn timeout() -> Seconds {
    WebhookSettings::default().timeout
}

fn max_in_flight() -> u32 {
    WebhookSettings::default().max_in_flight
}

fn disable_after() -> Seconds {
    WebhookSettings::default().disable_after
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerSettings::default().into()
    }
}

impl From<BreakerSettings> for BreakerConfig {
    fn from(s: BreakerSettings) -> Self {
        Self {
            failure_rate: s.failure_rate,
            window: s.window,
            min_calls: s.min_calls,
            open_seconds: s.open,
        }
    }
}

impl From<&WebhookSettings> for WebhookConfig {
    fn from(s: &WebhookSettings) -> Self {
        Self {
            url: s.url.clone(),
            headers: s.headers.clone(),
            timeout_seconds: s.timeout,
            max_in_flight: s.max_in_flight,
            rate_limit_per_second: s.rate_limit_per_second,
            circuit_breaker: s.circuit_breaker.into(),
            disable_after_seconds: s.disable_after,
        }
    }
}

impl WebhookConfig {
    /// The settings, checked; but for the URL, which
    /// [`Gateway::webhook_url`](crate::http::Gateway) checks.
    pub(crate) fn settings(self) -> Result<WebhookSettings, domain::Error> {
        let settings = WebhookSettings {
            url: self.url,
            headers: self.headers,
            timeout: self.timeout_seconds,
            max_in_flight: self.max_in_flight,
            rate_limit_per_second: self.rate_limit_per_second,
            circuit_breaker: BreakerSettings {
                failure_rate: self.circuit_breaker.failure_rate,
                window: self.circuit_breaker.window,
                min_calls: self.circuit_breaker.min_calls,
                open: self.circuit_breaker.open_seconds,
            },
            disable_after: self.disable_after_seconds,
        };
        settings.check()?;
        Ok(settings)
    }
}

/// Headers that a webhook sends along.
fn webhook_headers() -> utoipa::openapi::Object {
    shapes::object(serde_json::json!({
        "type": "object",
        "description": "Headers to send along, at most 32. Not those that describe the push or \
            the connection: `Host`, `Content-*`, `Webhook-*`, `Postrider-*` and the like.",
        "maxProperties": 32,
        "propertyNames": {"type": "string", "pattern": shapes::TOKEN},
        "additionalProperties": {
            "type": "string", "maxLength": 4096, "pattern": r"^([!-~]([\t -~]*[!-~])?)?$",
        },
    }))
}
