//! What the tests stand on.

mod app;
mod calls;
mod postgres;
mod wire;

pub(crate) use app::{Answer, App, Gateway, client, config, eventually};
pub(crate) use calls::{Begun, begin, message};
pub(crate) use postgres::Database;
pub(crate) use wire::Wire;
