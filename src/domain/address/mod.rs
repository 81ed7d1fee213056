//! Where a webhook may point to: the guard against requests that a stranger
//! makes this gateway send into its own network.
//!
//! Whole blocks are refused, never spellings. The `url` crate turns every
//! spelling of an address (decimal, hex, octal, short) into the address, as
//! browsers do; what is left is one question about one address. Names are
//! resolved elsewhere, and each address that is found comes here before it is
//! connected to.
//!
//! Ports have a rule too: 80, 443, 8080 and 8443 are what web servers listen on.
//! Any other may be a database or a mail server that takes the first lines of
//! an HTTP request for commands, so it has to be named.
//!
//! The operator names what else may be reached with `--webhook-allow`; nothing
//! private is allowed that is not named there, loopback included.

mod allow;
mod blocks;
mod url;

use std::net::IpAddr;

pub use self::allow::{AllowEntry, AllowList};
pub use self::url::{ForbiddenUrl, WebhookUrl};

/// Ports that need not be named.
const PORTS: [u16; 4] = [80, 443, 8080, 8443];

/// Why an address may not be connected to. Shown, it names the option that
/// would allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It lies in a block that webhooks must not reach.
    #[error("{ip} is {block}; the gateway's option --webhook-allow {} would allow it", AllowEntry::of(*.ip, *.port))]
    Address {
        /// As it was asked for.
        ip: IpAddr,
        /// The port.
        port: u16,
        /// What the block is, such as `a loopback address`.
        block: &'static str,
    },
    /// The address would do, its port does not.
    #[error("port {port} is none of 80, 443, 8080 and 8443; the gateway's option --webhook-allow {} would allow it", AllowEntry::of(*.ip, *.port))]
    Port {
        /// As it was asked for.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
}

/// Whether an address may be connected to: global unicast on one of [`PORTS`],
/// or named in the list.
///
/// An IPv4-mapped IPv6 address is what it maps to for the list, since that is
/// where a connection to it goes; not named, it is refused like all of its
/// block.
///
/// # Errors
/// [`Forbidden`].
pub fn check_address(ip: IpAddr, port: u16, allow: &AllowList) -> Result<(), Forbidden> {
    if allow.permits(ip, port) {
        Ok(())
    } else if let Some(block) = blocks::forbidden(ip) {
        Err(Forbidden::Address { ip, port, block })
    } else if PORTS.contains(&port) {
        Ok(())
    } else {
        Err(Forbidden::Port { ip, port })
    }
}
