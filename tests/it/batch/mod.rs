//! Group commit and the receivers that wait.

mod batcher;
mod handover;
mod idle;
mod publishes;
mod receivers;
mod shedding;
