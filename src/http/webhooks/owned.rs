//! The webhook of a subscription, which is that of the queue that it owns.

use std::sync::Arc;

use super::secret::{self, NewSecret};
use super::view::WebhookView;
use crate::domain::{QueueName, WebhookSettings};
use crate::http::Gateway;
use crate::http::problem::Problem;
use crate::store::Queue;

impl Gateway {
    /// Whether a subscription may have this webhook: its URL may be pushed to,
    /// and there is a key for its secret.
    pub(in crate::http) async fn check_owned_webhook(
        &self,
        settings: &WebhookSettings,
    ) -> Result<(), Problem> {
        secret::key(self)?;
        self.webhook_url(settings).await.map(|_| ())
    }

    /// Makes or replaces the webhook of a subscription's queue, and shows it;
    /// with its secret if it was made.
    pub(in crate::http) async fn put_owned_webhook(
        &self,
        name: &QueueName,
        settings: &WebhookSettings,
    ) -> Result<WebhookView, Problem> {
        let queue = self.owned_queue(name).await?;
        let secret = NewSecret::make(self, queue.id)?;
        let put = self
            .broker
            .store()
            .put_webhook(queue.id, settings, secret.sealed())
            .await?
            .ok_or_else(|| Problem::queue_not_found(name))?;
        self.broker.webhooks_changed().notify_one();
        let shown = put.created.then(|| secret.reveal());
        Ok(WebhookView::new(name, &put.webhook, shown))
    }

    /// The webhook of a subscription's queue, if it has one.
    pub(in crate::http) async fn owned_webhook(
        &self,
        name: &QueueName,
    ) -> Result<Option<WebhookView>, Problem> {
        let queue = self.owned_queue(name).await?;
        let webhook = self.broker.store().webhook(queue.id).await?;
        Ok(webhook.map(|webhook| WebhookView::new(name, &webhook, None)))
    }

    async fn owned_queue(&self, name: &QueueName) -> Result<Arc<Queue>, Problem> {
        // Not from the cache: it may have been made this instant.
        let queue = self.broker.store().queue_now(name).await?;
        queue.ok_or_else(|| Problem::queue_not_found(name))
    }
}
