//! What happens by itself: waking receivers, ending leases, expiry, the
//! scheduled retry.

mod ends;
mod retry;
mod ttl;
mod waking;
