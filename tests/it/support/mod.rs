//! What the tests stand on.

mod app;
mod postgres;

pub(crate) use app::{Answer, App, Gateway, eventually};
pub(crate) use postgres::Database;
