//! What goes wrong on the way to a receiver, in words for whoever runs it.

use std::error::Error as StdError;
use std::io;

use crate::domain::{Forbidden, ForbiddenUrl};

/// Why nothing can be sent to a URL.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The URL itself.
    #[error("address forbidden: {0}")]
    Url(#[from] ForbiddenUrl),
    /// An address that the name has, be it one of many.
    #[error("address forbidden: {host} resolves to {forbidden}")]
    Name {
        /// The name.
        host: String,
        /// One of its addresses.
        forbidden: Forbidden,
    },
    /// The name has no address, or nobody can say.
    #[error("{host} does not resolve: {reason}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the system says.
        reason: String,
    },
    /// Nothing to check certificates with.
    #[error(
        "this machine has no CA certificates to check an https receiver with: install its \
         ca-certificates package, or name a file in SSL_CERT_FILE, and start the gateway again"
    )]
    NoRoots,
    /// The HTTP client could not be made.
    #[error("the HTTP client for webhooks could not be made: {0}")]
    Client(String),
    /// A header that HTTP does not allow.
    #[error("the header {0:?} cannot be sent: its name or value is not allowed in HTTP")]
    Header(String),
}

/// The cause at the bottom of the client's error, in a few words. Never the
/// error's own text, which holds the URL.
pub(super) fn explain(error: &reqwest::Error) -> String {
    let mut next = error.source();
    let mut last = None;
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            // A wrapping, whose source() would skip what is in it.
            if matches!(io.kind(), io::ErrorKind::Other | io::ErrorKind::InvalidData)
                && let Some(inner) = io.get_ref()
            {
                next = Some(inner);
                continue;
            }
            return explain_io(io);
        }
        if let Some(refused) = cause.downcast_ref::<Error>() {
            return refused.to_string();
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(why) => format!("certificate not trusted: {why}"),
                other => format!("TLS failed: {other}"),
            };
        }
        if let Some(http) = cause.downcast_ref::<hyper::Error>() {
            if http.is_incomplete_message() {
                return "the connection was closed before the answer's end".to_owned();
            }
            if http.is_parse() {
                return format!("the answer is not HTTP: {http}");
            }
        }
        last = Some(cause);
        next = cause.source();
    }
    // Timeouts besides the push's own are for connecting.
    if error.is_timeout() {
        return "timed out while connecting".to_owned();
    }
    last.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

fn explain_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the connection was reset".to_owned()
        }
        io::ErrorKind::UnexpectedEof => {
            "the connection was closed before the answer's end".to_owned()
        }
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::TimedOut => "timed out while connecting".to_owned(),
        _ => error.to_string(),
    }
}
