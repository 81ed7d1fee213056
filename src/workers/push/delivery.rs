//! One push, and what follows from its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lane::{Config, Lane};
use crate::domain::{Call, DisableReason, Failure, Lease, MessageId, Seconds, sign};
use crate::spans::{Carried, Outgoing, Span};
use crate::store::{Delivery, Envelope, Error, PushOutcomeKind, PushRecord};
use crate::webhook::{Push, PushOutcome, Pushed};

/// Between two tries to ack what was delivered, while its lease runs.
const RETRY: Duration = Duration::from_millis(250);

impl Lane {
    /// Pushes a message and settles it.
    pub(super) async fn deliver(self: &Arc<Self>, config: &Config, delivery: Delivery, call: Call) {
        let Delivery {
            lease,
            mut envelope,
            ..
        } = delivery;
        let queue = self.context.broker.store().queue_by_id(self.queue_id).await;
        let (Some(target), Ok(Some(queue))) = (&config.target, queue) else {
            // Deleted; or the database is away, and the lease may have to run out.
            self.give_back(call);
            return self.settle(lease, Failure::Undelivered, None).await;
        };
        let id = MessageId(lease.message_id).to_string();
        let timestamp = self.now_ms() / 1000;
        let outgoing = Outgoing {
            queue: queue.name.as_str(),
            message: &id,
            attempt: lease.attempt,
            host: target.url.host(),
            port: target.url.port(),
            is_https: target.url.is_https(),
        };
        let span = begin_span(outgoing, &mut envelope);
        let mut headers = describe(&envelope, queue.name.as_str(), lease.attempt);
        headers.extend(config.settings.headers.clone());
        let body = Bytes::from(envelope.body);
        let secrets: Vec<&[u8]> = target.secrets.iter().map(Vec::as_slice).collect();
        let started = Instant::now();
        let mut pushed = self
            .context
            .outbound
            .pusher
            .push(Push {
                url: &target.url,
                signature: sign(&secrets, &id, timestamp, &body),
                id: &id,
                timestamp,
                headers,
                body,
                timeout: config.settings.timeout.to_duration(),
            })
            .await;
        if let Some(span) = span {
            span.pushed(pushed.status, pushed.outcome == PushOutcome::Delivered);
        }
        pushed.error = pushed.error.take().or_else(|| explain(&pushed));
        let longest = queue.settings.backoff.max;
        let record = record(lease, started, &pushed);
        let webhooks = &self.context.broker.store().metrics().webhooks;
        self.metrics
            .get_or_init(|| webhooks.of(queue.name.as_str()))
            .record(record.outcome.as_str(), record.duration);
        tokio::join!(
            async {
                self.conclude(config, lease, call, &pushed, longest).await;
                self.context.broker.freed(&queue);
                let turns = queue.turns_of([lease.message_id].into_iter());
                self.context.broker.pass(turns, &queue).await;
            },
            async {
                if let Err(error) = self.context.broker.record_push(record).await {
                    tracing::debug!(%error, "an attempt is not in the list");
                }
            }
        );
    }

    async fn conclude(
        &self,
        config: &Config,
        lease: Lease,
        call: Call,
        pushed: &Pushed,
        longest: Seconds,
    ) {
        match pushed.outcome {
            PushOutcome::Delivered => {
                tokio::join!(
                    self.note(config, call, None),
                    self.ack(lease, config.settings.timeout.to_duration())
                );
            }
            PushOutcome::Failed => {
                let error = pushed.error.clone().unwrap_or_default();
                self.note(config, call, Some(&error)).await;
                let failure = Failure::Nacked { delay: None };
                self.settle(lease, failure, Some(error)).await;
            }
            PushOutcome::Wait(wait) => {
                let delay = wait.clamp(Seconds::ZERO, longest);
                self.give_back(call);
                self.hold(delay.to_duration());
                self.settle(lease, Failure::Deferred { delay }, None).await;
            }
            PushOutcome::Gone => {
                self.give_back(call);
                self.disable(DisableReason::Gone).await;
                self.settle(lease, Failure::Undelivered, None).await;
            }
        }
    }

    /// Acks what was delivered; while the database is away, again and again:
    /// each message that is not acked is delivered twice.
    async fn ack(&self, lease: Lease, patience: Duration) {
        let begun = Instant::now();
        while let Err(error) = self.context.broker.ack(vec![lease]).await {
            if begun.elapsed() > patience || matches!(error, Error::Inconsistent(_)) {
                tracing::warn!(queue_id = self.queue_id, %error, "delivered, but not acked");
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// What is wrong with an answer that came whole.
fn explain(pushed: &Pushed) -> Option<String> {
    let status = pushed.status?;
    match pushed.outcome {
        PushOutcome::Failed if (300..400).contains(&status) => Some(format!(
            "the endpoint answered {status}, and redirects are not followed"
        )),
        PushOutcome::Failed | PushOutcome::Gone | PushOutcome::Wait(_) => {
            Some(format!("the endpoint answered {status}"))
        }
        PushOutcome::Delivered => None,
    }
}

/// Begins the attempt's span. If it is recorded it takes the place of what the
/// message was published with: the receiver goes on from there.
fn begin_span(outgoing: Outgoing<'_>, envelope: &mut Envelope) -> Option<Span> {
    let parent = envelope.traceparent.as_deref();
    let published = Carried::kept(parent, envelope.tracestate.as_deref());
    let span = Span::of_push(outgoing, published)?;
    if let Some((parent, state)) = span.carried() {
        envelope.traceparent = Some(parent);
        envelope.tracestate = state;
    }
    Some(span)
}

/// The headers that describe a message. All are such that HTTP can carry them.
fn describe(envelope: &Envelope, queue: &str, attempt: u32) -> Vec<(String, String)> {
    let mut headers = vec![
        (
            "content-type".to_owned(),
            envelope
                .content_type
                .clone()
                .unwrap_or_else(|| "application/json".to_owned()),
        ),
        ("postrider-queue".to_owned(), queue.to_owned()),
        ("postrider-attempt".to_owned(), attempt.to_string()),
    ];
    for (name, value) in [
        ("postrider-topic", &envelope.topic),
        ("postrider-routing-key", &envelope.routing_key),
        ("postrider-key", &envelope.key),
        ("postrider-correlation-id", &envelope.correlation_id),
        ("postrider-reply-to", &envelope.reply_to),
        ("traceparent", &envelope.traceparent),
        ("tracestate", &envelope.tracestate),
    ] {
        if let Some(value) = value {
            headers.push((name.to_owned(), value.clone()));
        }
    }
    if let Some(version) = envelope.schema_version {
        let name = "postrider-schema-version".to_owned();
        headers.push((name, version.to_string()));
    }
    for (name, value) in &envelope.headers {
        headers.push((format!("postrider-header-{name}"), value.clone()));
    }
    headers
}

fn record(lease: Lease, started: Instant, pushed: &Pushed) -> PushRecord {
    PushRecord {
        queue_id: lease.queue_id,
        message_id: lease.message_id,
        token: lease.token,
        attempt: lease.attempt,
        started,
        duration: pushed.duration,
        outcome: match pushed.outcome {
            PushOutcome::Delivered => PushOutcomeKind::Delivered,
            PushOutcome::Failed => PushOutcomeKind::Failed,
            PushOutcome::Gone => PushOutcomeKind::Gone,
            PushOutcome::Wait(_) => PushOutcomeKind::Waiting,
        },
        status: pushed.status,
        error: pushed.error.clone(),
        answer: pushed.answer.clone(),
    }
}
