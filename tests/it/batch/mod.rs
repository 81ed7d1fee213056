//! Group commit and the receivers that wait.

mod batcher;
mod publishes;
mod receivers;
