//! Which messages line up, and which queues ever had fair ones.

use super::{Error, Publish, Published, Store, Turn};

impl Publish {
    /// The keys whose turn may have come, when what was stored has been committed:
    /// whoever publishes calls [`Store::next_turns`] with them then.
    #[must_use]
    pub fn turns(&self, published: &[Published]) -> Vec<Turn> {
        let mut turns: Vec<Turn> = published
            .iter()
            .zip(self.messages.iter())
            .filter(|(published, _)| published.lined_up)
            .filter_map(|(_, message)| Some(Turn::key(self.queue.id, message.key.as_deref()?)))
            .collect();
        turns.dedup();
        turns
    }

    /// Whether a message may have to wait for its key's turn.
    #[must_use]
    pub fn lines_up(&self) -> bool {
        self.queue.settings.ordered || self.is_fair(self.queue.settings.fair)
    }

    /// Whether a message is fair, if those that do not say are or are not.
    fn is_fair(&self, by_default: bool) -> bool {
        self.messages
            .iter()
            .any(|message| message.key.is_some() && message.fair.unwrap_or(by_default))
    }
}

impl Store {
    /// Before the first fair message of a queue whose setting does not say so: from
    /// then on claims of it pass turns on.
    pub(super) async fn note_fair(&self, request: &Publish) -> Result<(), Error> {
        let queue = &request.queue;
        if queue.settings.ordered || queue.fair_seen || !request.is_fair(false) {
            return Ok(());
        }
        self.note_fair_queues(&[queue.id]).await
    }

    pub(super) async fn note_fair_queues(&self, queue_ids: &[i64]) -> Result<(), Error> {
        let changed = sqlx::query(
            "UPDATE postrider.queues SET fair_seen = true
             WHERE id = ANY($1) AND NOT fair_seen AND NOT ordered RETURNING id",
        )
        .bind(queue_ids)
        .fetch_all(&self.hot)
        .await?;
        if !changed.is_empty() {
            self.queues.remove_ids(queue_ids);
            self.topologies.forget();
        }
        Ok(())
    }
}
