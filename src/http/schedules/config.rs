//! A schedule's settings as they are written in JSON; `domain::ScheduleSettings` is
//! what they mean.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{
    self, CatchUp, Cron, HEADER_PREFIX, Headers, Limits, Message, QueueName, RoutingKey,
    ScheduleSettings, Seconds, Target,
};
use crate::http::extract::object;
use crate::http::message_input::{content, unique_headers};
use crate::http::problem::Problem;
use crate::http::shapes;
use crate::http::whole::whole;

/// A schedule's settings.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cron": "30 2 * * *", "timezone": "Europe/Berlin", "queue": "orders",
    "message": {"body": {"report": "nightly"}}}))]
pub(crate) struct ScheduleConfig {
    /// When: minute, hour, day of the month, month, day of the week, as of the wall
    /// clock in `timezone`; with seconds before them if need be; or `@hourly`,
    /// `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[schema(example = "30 2 * * *", max_length = 256)]
    cron: String,
    /// A time zone of the IANA's database.
    #[serde(default = "utc")]
    #[schema(default = "UTC", example = "Europe/Berlin", max_length = 64)]
    timezone: String,
    /// The queue to publish to; this or `topic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$", max_length = 80)]
    queue: Option<String>,
    /// The topic to publish to; this or `queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9_](\\.?[A-Za-z0-9_-])*\\.?$", max_length = 80)]
    topic: Option<String>,
    /// What to publish.
    #[serde(deserialize_with = "object")]
    message: ScheduledMessage,
    /// Whether it rests.
    #[serde(default)]
    #[schema(default = false)]
    paused: bool,
    /// What becomes of ticks that are found more than a minute late, after an
    /// outage: `one` message for all of them, `none`, or `all` of the last 1000.
    #[serde(default = "one")]
    #[schema(value_type = CatchUpWord, default = "one")]
    catch_up: Cow<'static, str>,
}

/// What becomes of ticks that were missed.
#[derive(ToSchema)]
#[schema(as = CatchUp, rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document")]
pub(crate) enum CatchUpWord {
    One,
    None,
    All,
}

/// The message of a schedule. Each tick's has two headers more: `postrider-schedule`,
/// its name, and `postrider-scheduled-at`, the time that it is for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduledMessage {
    /// Any JSON value; kept and given back byte for byte. This or `body_base64`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    #[schema(value_type = Option<serde_json::Value>)]
    body: Option<Box<RawValue>>,
    /// Instead of `body`: bytes of any kind, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
    )]
    body_base64: Option<String>,
    /// What kind of bytes; with `body_base64` only, by default
    /// application/octet-stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[ -~]{1,256}$")]
    content_type: Option<String>,
    /// At most 62, names and values strings; no names that begin with `postrider-`.
    #[serde(
        default,
        skip_serializing_if = "Headers::is_empty",
        deserialize_with = "unique_headers"
    )]
    #[schema(schema_with = scheduled_headers)]
    headers: Headers,
    /// Ordering and partition key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    key: Option<String>,
    /// 0 to 9, 9 is received first.
    #[serde(default, deserialize_with = "whole")]
    #[schema(default = 0, minimum = 0, maximum = 9)]
    priority: i64,
    /// Not before so many seconds after the tick; by default the queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 31_536_000)]
    delay_seconds: Option<Seconds>,
    /// How long it may wait once it is ready; by default the queue's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 31_536_000)]
    ttl_seconds: Option<Seconds>,
    /// For the application; given back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    correlation_id: Option<String>,
    /// For the application; given back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    reply_to: Option<String>,
    /// To a topic only: what its subscriptions choose by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    routing_key: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn one() -> Cow<'static, str> {
    CatchUp::One.as_str().into()
}

/// `null` is a body too.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(d).map(Some)
}

impl From<&ScheduleSettings> for ScheduleConfig {
    fn from(settings: &ScheduleSettings) -> Self {
        let ScheduleSettings {
            cron,
            target,
            message,
            paused,
            catch_up,
        } = settings;
        let (queue, topic, routing_key) = match target {
            Target::Queue(queue) => (Some(queue.to_string()), None, None),
            Target::Topic(topic, key) => {
                (None, Some(topic.to_string()), Some(key.as_str().to_owned()))
            }
        };
        let bytes = &message.content.body;
        let body = match message.content.content_type {
            None => std::str::from_utf8(bytes)
                .ok()
                .and_then(|text| RawValue::from_string(text.to_owned()).ok()),
            Some(_) => None,
        };
        Self {
            cron: cron.as_str().to_owned(),
            timezone: cron.zone().to_owned(),
            queue,
            topic,
            message: ScheduledMessage {
                body_base64: body.is_none().then(|| STANDARD.encode(bytes)),
                body,
                content_type: message.content.content_type.clone(),
                headers: message.headers.clone(),
                key: message.key.clone(),
                priority: message.priority.into(),
                delay_seconds: message.delay,
                ttl_seconds: message.ttl,
                correlation_id: message.correlation_id.clone(),
                reply_to: message.reply_to.clone(),
                routing_key,
            },
            paused: *paused,
            catch_up: catch_up.as_str().into(),
        }
    }
}

impl ScheduleConfig {
    /// The settings, checked but for what the queue or topic has to say.
    pub(super) fn settings(self) -> Result<ScheduleSettings, Problem> {
        let invalid = domain::Error::invalid;
        let cron = Cron::parse(&self.cron, &self.timezone)?;
        let routing_key = self.message.routing_key.as_deref();
        let target = match (self.queue, self.topic) {
            (Some(queue), None) => {
                if routing_key.is_some() {
                    return Err(invalid("/message/routing_key", "only with a topic").into());
                }
                Target::Queue(QueueName::parse(&queue, "/queue")?)
            }
            (None, Some(topic)) => {
                let topic = QueueName::parse(&topic, "/topic")?;
                super::configuration::not_system(&topic, "/topic")?;
                let key = routing_key.unwrap_or_default();
                Target::Topic(topic, RoutingKey::parse(key, "/message/routing_key")?)
            }
            (Some(_), Some(_)) => {
                return Err(invalid("/topic", "not together with queue").into());
            }
            (None, None) => {
                return Err(invalid("/queue", "is missing: name a queue or a topic").into());
            }
        };
        let catch_up = CatchUp::parse(&self.catch_up)
            .ok_or_else(|| invalid("/catch_up", "must be one, none or all"))?;
        Ok(ScheduleSettings {
            cron,
            target,
            message: self.message.message()?,
            paused: self.paused,
            catch_up,
        })
    }
}

impl ScheduledMessage {
    fn message(self) -> Result<Message, domain::Error> {
        let invalid = |field: &str, detail: &str| {
            Err(domain::Error::invalid(format!("/message/{field}"), detail))
        };
        // The gateway adds two.
        if self.headers.len() > Limits::HEADERS - 2 {
            return invalid("headers", "must be at most 62");
        }
        let is_ours = |name: &&String| {
            name.get(..HEADER_PREFIX.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(HEADER_PREFIX))
        };
        if let Some(name) = self.headers.keys().find(is_ours) {
            return invalid(
                &format!("headers/{name}"),
                "names that begin with postrider- are the gateway's",
            );
        }
        let body = self
            .body
            .map(|body| String::from(Box::<str>::from(body)).into());
        let base64 = self.body_base64.as_deref();
        let content = content("/message", body, base64, self.content_type)?;
        Ok(Message {
            key: self.key,
            // Out of range either way, and checked with the rest.
            priority: i16::try_from(self.priority).unwrap_or(-1),
            delay: self.delay_seconds,
            ttl: self.ttl_seconds,
            correlation_id: self.correlation_id,
            reply_to: self.reply_to,
            ..Message::new(content, self.headers)
        })
    }
}

/// Headers of the message of a schedule.
fn scheduled_headers() -> utoipa::openapi::Object {
    shapes::object(serde_json::json!({
        "type": ["object", "null"],
        "description": "At most 62, as those of any message; no names that begin with `postrider-`.",
        "maxProperties": 62,
        "propertyNames": {"type": "string", "pattern": shapes::TOKEN},
        "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": shapes::PLAIN},
    }))
}
