//! Group commit and the receivers that wait.

mod batcher;
mod idle;
mod publishes;
mod receivers;
mod shedding;
