//! What the tests stand on.

mod app;
mod postgres;

pub(crate) use app::{Answer, App, Gateway, config, eventually};
pub(crate) use postgres::Database;
