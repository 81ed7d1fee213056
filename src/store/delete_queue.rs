//! Deleting a queue, which subscriptions may feed.

use sqlx::Row as _;

use super::topics::TRIES;
use super::{Error, Store, statements};
use crate::domain::QueueName;

statements! {
    DELETE_QUEUE = "delete_queue";
}

/// What a deletion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeletedQueue {
    /// The queue is gone.
    Gone,
    /// There was none, or not at that version.
    Missing,
    /// It is there, since these subscriptions feed it: `topic/subscription`.
    Fed(Vec<String>),
}

impl Store {
    /// Deletes a queue. With `version`, only if it is at that; where
    /// subscriptions feed it only with `force`, and they go too.
    ///
    /// # Errors
    /// [`Error::Conflict`] if its subscriptions kept changing meanwhile.
    pub async fn delete_queue(
        &self,
        name: &QueueName,
        version: Option<i64>,
        force: bool,
    ) -> Result<DeletedQueue, Error> {
        for _ in 0..TRIES {
            let row = sqlx::query(DELETE_QUEUE)
                .bind(name.as_str())
                .bind(version)
                .bind(force)
                .fetch_one(&self.pool)
                .await
                .map_err(Error::from);
            let row = match row {
                Err(error) if error.is_broken_reference() || error.is_retryable() => continue,
                other => other?,
            };
            self.queues.remove(name);
            self.topologies.forget();
            let feeding: Vec<String> = row.try_get("feeding")?;
            return Ok(match row.try_get::<i64, _>("gone")? {
                1 => DeletedQueue::Gone,
                _ if feeding.is_empty() => DeletedQueue::Missing,
                _ => DeletedQueue::Fed(feeding),
            });
        }
        Err(Error::Conflict)
    }
}
