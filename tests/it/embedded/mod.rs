//! The embedded Postgres: every way in which a start, a stop, a crash or a
//! machine can differ from the usual.
//!
//! Run by root, the server runs as an unprivileged account, and one test runs
//! all the others again as an ordinary user.

mod lives;
mod machines;
mod support;
