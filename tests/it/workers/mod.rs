//! What happens by itself: waking receivers, ending leases, expiry, the
//! scheduled retry, pushes to webhooks.

mod ends;
mod odd_schedules;
pub(crate) mod push;
mod retry;
mod schedules;
mod ttl;
mod waking;
