//! Bad input and its answer, line by line: every line is sent twice, once with
//! Postgres up and once with it down ([`check`]). Up, the answer is the refusal
//! that stands beside it; down, it is the same where nobody has to be asked, else
//! 503 with `Retry-After`. It is never 500, nothing hangs, nothing is stored.

mod accepted;
mod access;
mod check;
mod claims;
mod controls;
mod fields;
mod got;
pub(super) mod http;
mod json;
mod names;
mod numbers;
mod receipts;
mod requests;
mod schedules;
mod schemas;
mod sizes;
mod slow;
mod state;
mod table;
mod topics;
mod transactions;
mod walk;
mod webhook_urls;

const MESSAGES: &str = "/v1/queues/orders/messages";
