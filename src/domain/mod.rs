//! The rules, without the world: no I/O, no clock, no async. What comes from
//! outside is parsed here into types that can only be valid; what happens to a
//! message is decided here by pure functions whose time and chance are
//! arguments. Nothing here imports from the rest of the crate.

mod address;
mod api_key;
mod backoff;
mod breaker;
mod claim;
mod disposition;
mod error;
mod event;
mod filter;
mod id;
mod idempotency;
mod json;
mod message;
mod name;
mod queue;
mod receipt;
mod request;
mod retry_after;
mod schedule;
mod schema;
mod scope;
mod sealing;
mod seconds;
mod signature;
mod topic;
mod trace_parent;
mod webhook;

pub use address::{AllowEntry, AllowList, Forbidden, ForbiddenUrl, WebhookUrl, check_address};
pub use api_key::{KeyHasher, NewKey, ShownKey};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerSettings, BreakerState, Call, Transition};
pub use claim::{ClaimKey, ClaimToken};
pub use disposition::{DeadReason, Disposition, Failure, decide};
pub use error::{Error, Invalid, quoted};
pub use event::{EVENTS_TOPIC, Event};
pub use filter::{Candidate, Filter, Mismatch, RoutingKey};
pub use id::MessageId;
pub use idempotency::{IdempotencyKey, NoKey, fingerprint};
pub use json::UniqueNames;
pub use message::{Content, Headers, Limits, Message};
pub use name::QueueName;
pub use queue::{DeadLetterSettings, OnBlocked, Overflow, QueueSettings, RateLimit, RetrySettings};
pub use receipt::{Lease, ReceiptKey};
pub use request::{Asked, RequestKey};
pub use retry_after::retry_after;
pub use schedule::{CatchUp, Cron, HEADER_PREFIX, MAX_CRON, ScheduleSettings, Target};
pub use schema::{Compatibility, Schema};
pub use scope::{NamePattern, Need, Scope, Scopes, Verb, Verdict};
pub use sealing::{SealingKey, Unsealable};
pub use seconds::Seconds;
pub use signature::{WebhookSecret, sign};
pub use topic::TopicSettings;
pub use trace_parent::TraceParent;
pub use webhook::{DisableReason, WebhookSettings, WebhookStatus, secret_context};
