//! The rate limits of queues: `rate_limit` of their settings.
//!
//! A publish costs as many as it has messages, when they are known to be valid. A
//! receive costs one when it comes, whatever it brings and however long it then
//! waits: it is calls that are bounded, and one that finds nothing is not cheaper.

use axum::response::Response;

use super::limits::{Limiters, Quota, Standing};
use super::problem::Problem;
use crate::domain::RateLimit;
use crate::store::Queue;

/// The buckets of all queues that have a limit.
#[derive(Debug, Default)]
pub(crate) struct QueueLimits {
    publishes: Limiters<i64>,
    receives: Limiters<i64>,
}

impl QueueLimits {
    /// Lets so many messages in; `None` where there is no limit.
    ///
    /// # Errors
    /// As [`Limiters::check`].
    pub(crate) fn publish(&self, queue: &Queue, n: usize) -> Result<Option<Standing>, Problem> {
        publish_quota(&queue.settings.rate_limit)
            .map(|quota| self.publishes.check(queue.id, quota, n))
            .transpose()
    }

    /// Lets a receiver in.
    ///
    /// # Errors
    /// As [`Limiters::check`].
    pub(crate) fn receive(&self, queue: &Queue) -> Result<Option<Standing>, Problem> {
        receive_quota(&queue.settings.rate_limit)
            .map(|quota| self.receives.check(queue.id, quota, 1))
            .transpose()
    }
}

/// How a queue limits publishes.
pub(crate) fn publish_quota(limit: &RateLimit) -> Option<Quota> {
    let rate = limit.publish_per_second?;
    Some(Quota::new("publish", rate, limit.burst))
}

/// How a queue limits receives.
pub(crate) fn receive_quota(limit: &RateLimit) -> Option<Quota> {
    let rate = limit.receive_per_second?;
    Some(Quota::new("receive", rate, limit.burst))
}

/// An answer with the fields of a limit, where there is one.
pub(crate) fn described(
    mut response: Response,
    quota: Option<Quota>,
    standing: Option<Standing>,
) -> Response {
    if let (Some(quota), Some(standing)) = (quota, standing) {
        quota.describe(standing, response.headers_mut());
    }
    response
}
