//! Names to addresses, each of them checked.
//!
//! The client asks here whenever it connects, and connects to what it gets: so
//! a name that changes between a check and a connection (DNS rebinding) gains
//! nothing. A name is refused whole if any of its addresses is: whoever mixes
//! public addresses with private ones is not to be tried until it works.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::error::Error;
use crate::domain::{AllowList, check_address};

/// Who knows the addresses of names.
#[derive(Clone)]
pub struct Names(Arc<LookUp>);

type LookUp = dyn Fn(&str, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Names {
    /// This machine's resolver.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self::new(|host, port| {
            let host = host.to_owned();
            async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
        })
    }

    /// Whoever answers so.
    #[must_use]
    pub fn new(
        look_up: impl Fn(&str, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(look_up))
    }

    /// All addresses of a name, if each may be connected to.
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
        allow: &AllowList,
    ) -> Result<Vec<SocketAddr>, Error> {
        checked(host, (self.0)(host, port).await, allow)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

/// The client's resolver for one port: the client tells it the name only, and
/// the list names ports, too.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) names: Names,
    pub(super) allow: Arc<AllowList>,
    pub(super) port: u16,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, allow) = (self.names.clone(), Arc::clone(&self.allow));
        let port = self.port;
        Box::pin(async move {
            let found = names.resolve(name.as_str(), port, &allow).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What was found for a name, or why it may not be used.
fn checked(
    host: &str,
    found: io::Result<Vec<SocketAddr>>,
    allow: &AllowList,
) -> Result<Vec<SocketAddr>, Error> {
    let unresolved = |reason: String| Error::Unresolved {
        host: host.to_owned(),
        reason,
    };
    let found = found.map_err(|error| unresolved(error.to_string()))?;
    if found.is_empty() {
        return Err(unresolved("it has no address".to_owned()));
    }
    for address in &found {
        check_address(address.ip(), address.port(), allow).map_err(|forbidden| Error::Name {
            host: host.to_owned(),
            forbidden,
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(found: &[&str], allow: &[&str]) -> Result<Vec<SocketAddr>, Error> {
        let found: Vec<SocketAddr> = found
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        let allow = allow
            .iter()
            .map(|text| text.parse::<crate::domain::AllowEntry>().expect("an entry"))
            .collect();
        checked("hooks.example", Ok(found), &allow)
    }

    #[test]
    fn a_name_is_refused_if_any_of_its_addresses_is() {
        let public = ["1.1.1.1:443", "[2606:4700::1111]:443"];
        assert_eq!(check(&public, &[]).expect("all public").len(), 2);
        for private in [
            "10.0.0.1:443",
            "127.0.0.1:443",
            "[::1]:443",
            "[::ffff:10.0.0.1]:443",
            "169.254.169.254:443",
            "[fd00::1]:443",
        ] {
            for at in 0..=2 {
                let mut mixed = public.to_vec();
                mixed.insert(at, private);
                let error = check(&mixed, &[]).expect_err(private).to_string();
                assert!(error.contains("hooks.example"), "{error}");
                assert!(error.contains("--webhook-allow"), "{error}");
            }
        }
    }

    #[test]
    fn the_list_allows_an_address_on_its_port_only() {
        let found = ["10.0.0.1:9000", "10.0.0.2:9000"];
        assert!(check(&found, &["10.0.0.0/8:9000"]).is_ok());
        assert!(check(&found, &["10.0.0.0/8:9001"]).is_err());
        assert!(check(&found, &["10.0.0.1/32"]).is_err());
        assert!(check(&["1.1.1.1:9000"], &["10.0.0.0/8:9000"]).is_err());
    }

    #[test]
    fn a_name_without_addresses_is_no_success() {
        assert!(matches!(check(&[], &[]), Err(Error::Unresolved { .. })));
        let failed = Err(io::Error::other("no such name"));
        let error = checked("hooks.example", failed, &AllowList::default());
        let error = error.expect_err("unresolved").to_string();
        assert_eq!(error, "hooks.example does not resolve: no such name");
    }
}
