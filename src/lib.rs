//! Postrider.
pub mod app;
pub mod batch;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod http;
pub mod store;
pub mod telemetry;
pub mod workers;
