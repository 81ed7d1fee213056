//! Pushes to receivers that behave, and to those that do not.

mod forbidden;
mod hostile;
mod outcomes;
mod reference;
mod support;
mod surroundings;
