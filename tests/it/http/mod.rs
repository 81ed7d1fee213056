//! The interface, endpoint by endpoint.

mod ack;
mod bad_fields;
mod bad_http;
mod bad_input;
mod bad_state;
mod counts;
mod dead_letters;
mod extend;
mod health;
mod messages;
mod metrics;
mod nack;
mod openapi;
mod publish;
mod publish_bytes;
mod publish_rules;
mod queues;
mod receive;
mod redrive;
mod refusal;
mod schema;
mod webhooks;
