//! All integration tests, in one binary: against a real Postgres that this
//! process starts for itself, over real sockets. The folders mirror `src/`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

mod architecture;
mod batch;
mod cli;
mod dependencies;
mod door;
mod embedded;
mod faults;
mod http;
mod metrics;
mod model;
mod order;
mod store;
mod telemetry;
mod webhook;
mod workers;
