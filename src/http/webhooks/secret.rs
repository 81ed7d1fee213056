//! The signing secrets of webhooks: made here, sealed before they leave.

use axum::http::StatusCode;

use crate::domain::{SealingKey, Unsealable, WebhookSecret, secret_context};
use crate::http::Gateway;
use crate::http::problem::Problem;
use crate::store::Webhook;

/// A secret that was made just now: the one time that it is shown.
pub(super) struct NewSecret {
    plain: WebhookSecret,
    sealed: Vec<u8>,
}

impl NewSecret {
    /// A new secret for the webhook of a queue.
    pub(super) fn make(gateway: &Gateway, queue_id: i64) -> Result<Self, Problem> {
        let key = key(gateway)?;
        let plain = WebhookSecret::new(rand::random());
        let context = secret_context(queue_id);
        let sealed = key.seal(rand::random(), plain.as_bytes(), &context);
        Ok(Self { plain, sealed })
    }

    /// As the answer shows it.
    pub(super) fn reveal(&self) -> String {
        self.plain.reveal()
    }

    /// As the database keeps it.
    pub(super) fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

/// The secrets that sign for a webhook now, opened, the newest first.
pub(super) fn opened(gateway: &Gateway, webhook: &Webhook) -> Result<Vec<Vec<u8>>, Problem> {
    let key = key(gateway)?;
    let context = secret_context(webhook.queue_id);
    webhook
        .secrets
        .iter()
        .map(|sealed| key.open(sealed, &context).map_err(unsealable))
        .collect()
}

fn unsealable(error: Unsealable) -> Problem {
    let code = match error {
        Unsealable::WrongKey => "secret-key-wrong",
        Unsealable::Damaged | Unsealable::UnknownVersion(_) => "secret-damaged",
    };
    Problem::new(StatusCode::CONFLICT, code, error.to_string())
}

pub(super) fn key(gateway: &Gateway) -> Result<&SealingKey, Problem> {
    gateway.sealing.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "secret-key-missing",
            "This gateway has no key to keep webhooks' secrets with. Start it with \
             --secret-key-file, the same on every gateway.",
        )
    })
}
