//! `/v1/queues/{queue}/webhook`: the queue's push consumer as a resource. The
//! pushing itself is a worker's.
//!
//! A secret is shown by the answer that made it and by none after that: these
//! endpoints have it as [`secret::NewSecret`] or sealed, and never log it.

mod actions;
mod answer;
mod attempts;
mod config;
mod owned;
mod push;
mod resend;
mod resource;
mod secret;
mod test;
mod view;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

pub(super) use actions::*;
pub(super) use attempts::*;
pub(super) use config::WebhookConfig;
pub(super) use push::describe as describe_push;
pub(super) use resend::*;
pub(super) use resource::*;
pub(super) use test::*;
pub(super) use view::WebhookView;

use super::problem::Problem;
use super::{Gateway, SharedGateway};
use crate::domain::{QueueName, WebhookSettings, WebhookUrl};
use crate::store::{Queue, Webhook};
use crate::webhook;

/// 404: the queue is there, but has no webhook.
fn webhook_not_found(name: &QueueName) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "webhook-not-found",
        format!("The queue \"{name}\" has no webhook. PUT /v1/queues/{name}/webhook creates it."),
    )
}

/// 422: the URL is not one to push to.
fn url_problem(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::with_part(StatusCode::UNPROCESSABLE_ENTITY, code, "/url", detail)
}

/// Tells the push worker of what may have changed.
pub(super) async fn tell_lanes(
    State(gateway): State<SharedGateway>,
    request: Request,
    next: Next,
) -> Response {
    let reads = request.method() == Method::GET;
    let response = next.run(request).await;
    if !reads && response.status().is_success() {
        gateway.broker.webhooks_changed().notify_one();
    }
    response
}

impl Gateway {
    /// The webhook of this queue, from the database.
    async fn webhook(&self, name: &QueueName) -> Result<(Arc<Queue>, Webhook), Problem> {
        let queue = self.queue(name).await?;
        let webhook = self
            .broker
            .store()
            .webhook(queue.id)
            .await?
            .ok_or_else(|| webhook_not_found(name))?;
        Ok((queue, webhook))
    }

    /// The URL of these settings, if it is one that may be pushed to, as far as
    /// can be said before the push: every push checks the address that it
    /// connects to.
    async fn webhook_url(&self, settings: &WebhookSettings) -> Result<WebhookUrl, Problem> {
        let url = WebhookUrl::parse(&settings.url, &self.webhook_allow)
            .map_err(|forbidden| url_problem("url-forbidden", forbidden.to_string()))?;
        match self.pusher.check(&url).await {
            Ok(()) => Ok(url),
            Err(error) => Err(url_problem(url_code(&error), error.to_string())),
        }
    }
}

/// What is wrong with a URL, for programs.
fn url_code(error: &webhook::Error) -> &'static str {
    match error {
        webhook::Error::Url(_) | webhook::Error::Name { .. } => "url-forbidden",
        webhook::Error::Unresolved { .. } => "url-unresolvable",
        // What this machine lacks, not the URL; it could change the scheme.
        webhook::Error::NoRoots | webhook::Error::Client(_) | webhook::Error::Header(_) => {
            "url-unusable"
        }
    }
}
