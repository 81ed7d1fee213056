//! Pushes to receivers that behave, and to those that do not.

#![expect(clippy::similar_names, reason = "a pusher is not what was pushed")]

mod forbidden;
mod hostile;
mod outcomes;
mod reference;
mod support;
mod surroundings;
