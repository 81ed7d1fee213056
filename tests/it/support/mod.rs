//! What the tests stand on.

mod app;
mod calls;
mod chaos;
mod collector;
mod link;
mod locks;
mod postgres;
mod process;
mod reads;
mod receiver;
mod tls;
mod wire;

pub(crate) use app::{Answer, App, Deadline, Gateway, config, eventually, http_client};
pub(crate) use calls::{Begun, begin, begun, message};
pub(crate) use chaos::{Chaos, Weather};
pub(crate) use collector::{Collector, Span};
pub(crate) use link::Link;
pub(crate) use locks::Held;
pub(crate) use postgres::{Database, Postgres};
pub(crate) use process::{Folder, Process, SERVE, kill_postgres, program};
pub(crate) use receiver::{Received, Receiver, Reply};
pub(crate) use tls::{certificate, https_client};
pub(crate) use wire::Wire;
