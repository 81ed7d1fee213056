//! The rules, without the world: no I/O, no clock, no async. What comes from
//! outside is parsed here into types that can only be valid; what happens to a
//! message is decided here by pure functions whose time and chance are
//! arguments. Nothing here imports from the rest of the crate.

mod backoff;
mod breaker;
mod disposition;
mod error;
mod id;
mod message;
mod name;
mod queue;
mod receipt;
mod seconds;
mod webhook;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerSettings, BreakerState, Call, Transition};
pub use disposition::{DeadReason, Disposition, Failure, decide};
pub use error::{Error, Invalid, quoted};
pub use id::MessageId;
pub use message::{Content, Headers, Limits, Message};
pub use name::QueueName;
pub use queue::{DeadLetterSettings, Overflow, QueueSettings, RetrySettings};
pub use receipt::{Lease, ReceiptKey};
pub use seconds::Seconds;
pub use webhook::{DisableReason, WebhookSettings, WebhookStatus, secret_text};
