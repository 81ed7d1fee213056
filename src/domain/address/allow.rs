//! What the operator allows: `--webhook-allow`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// One `CIDR[:port]`: these addresses, on this port or on any.
///
/// The CIDR may be a single address, an IPv6 one in brackets: `10.0.0.0/8`,
/// `127.0.0.1:9000`, `[fd00::]/8:443`, `[::1]:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowEntry {
    net: IpNet,
    port: Option<u16>,
}

impl AllowEntry {
    /// The entry that allows just this.
    pub(super) fn of(ip: IpAddr, port: u16) -> Self {
        Self {
            net: IpNet::from(ip.to_canonical()),
            port: Some(port),
        }
    }
}

impl FromStr for AllowEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{what}; write CIDR or CIDR:PORT, such as 10.0.0.0/8, 127.0.0.1/32:8080 or [::1]/128:8080"
            )
        };
        // The address ends at a bracket, a slash or, of IPv4, a colon.
        let (address, rest) = if let Some(inner) = text.strip_prefix('[') {
            inner
                .split_once(']')
                .ok_or_else(|| wrong("a bracket is not closed"))?
        } else if let Some(slash) = text.find('/') {
            text.split_at(slash)
        } else if let (Some(colon), 1) = (text.find(':'), text.matches(':').count()) {
            text.split_at(colon)
        } else {
            (text, "")
        };
        let ip: IpAddr = address.parse().map_err(|_| wrong("not an IP address"))?;
        if text.starts_with('[') && ip.is_ipv4() {
            return Err(wrong("only IPv6 addresses stand in brackets"));
        }
        let (prefix, port) = match rest.split_once(':') {
            Some((prefix, port)) => (prefix, Some(number::<u16>(port).filter(|port| *port > 0))),
            None => (rest, None),
        };
        let port = match port {
            Some(None) => return Err(wrong("the port is not a number from 1 to 65535")),
            Some(port) => port,
            None => None,
        };
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let length = match prefix.strip_prefix('/') {
            Some(digits) => number(digits).ok_or_else(|| wrong("the prefix is not a number"))?,
            None if prefix.is_empty() => whole,
            None => return Err(wrong("what follows the address is not /PREFIX or :PORT")),
        };
        let net = IpNet::new(ip, length).map_err(|_| wrong("the prefix is too long"))?;
        if net != net.trunc() {
            // Somebody's typing error must not open a whole block.
            return Err(wrong(&format!(
                "{net} has bits set behind its prefix: {} or {ip}/{whole} is meant",
                net.trunc()
            )));
        }
        if let IpAddr::V6(ip) = ip
            && ip.to_ipv4_mapped().is_some()
        {
            return Err(wrong(
                "an IPv4-mapped address is allowed by its IPv4 address",
            ));
        }
        Ok(Self { net, port })
    }
}

/// Digits only: no sign.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl std::fmt::Display for AllowEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.net {
            IpNet::V4(net) => write!(f, "{net}")?,
            IpNet::V6(net) => write!(f, "[{}]/{}", net.addr(), net.prefix_len())?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl serde::Serialize for AllowEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All that is allowed besides the public net; empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowList(Vec<AllowEntry>);

impl AllowList {
    /// Whether the list names this address and port.
    #[must_use]
    pub fn permits(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.0
            .iter()
            .any(|entry| entry.net.contains(&ip) && entry.port.is_none_or(|only| only == port))
    }

    /// Whether the list allows the port for any address at all.
    pub(super) fn names_port(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|entry| entry.port.is_none_or(|only| only == port))
    }
}

impl FromIterator<AllowEntry> for AllowList {
    fn from_iter<I: IntoIterator<Item = AllowEntry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::super::check_address;
    use super::*;

    fn list(texts: &[&str]) -> AllowList {
        texts
            .iter()
            .map(|text| text.parse::<AllowEntry>().expect(text))
            .collect()
    }

    fn permits(texts: &[&str], ip: &str, port: u16) -> bool {
        let ip = ip.parse().expect("an address");
        let list = list(texts);
        let permits = list.permits(ip, port);
        assert!(!permits || check_address(ip, port, &list).is_ok(), "{ip}");
        permits
    }

    #[test]
    fn an_entry_is_written_and_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("127.0.0.1:80", "127.0.0.1/32:80"),
            ("127.0.0.0/8:8080", "127.0.0.0/8:8080"),
            ("::1", "[::1]/128"),
            ("::1/128", "[::1]/128"),
            ("fd00::/8:443", "[fd00::]/8:443"),
            ("[::1]", "[::1]/128"),
            ("[::1]:1", "[::1]/128:1"),
            ("[::1]/128:8080", "[::1]/128:8080"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            let entry: AllowEntry = text.parse().expect(text);
            assert_eq!(entry.to_string(), shown);
            assert_eq!(shown.parse(), Ok(entry));
        }
    }

    #[test]
    fn what_is_not_an_entry_is_refused_and_says_how_to_write_one() {
        for text in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "fd00::1/8",
            "10.0.0.0/8:",
            "10.0.0.0/8:0",
            "10.0.0.0/8:65536",
            "10.0.0.0/8:http",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8:+80",
            "[::1",
            "[127.0.0.1]:80",
            "[::1]x",
            "[::1]/129",
            "::ffff:127.0.0.1",
            "::ffff:0:0/96",
            "010.0.0.0/8",
            "10/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8:80:80",
        ] {
            let error = text.parse::<AllowEntry>().expect_err(text);
            assert!(error.contains("CIDR:PORT"), "{error}");
        }
    }

    #[test]
    fn loopback_is_allowed_only_where_it_is_named() {
        assert!(!permits(&[], "127.0.0.1", 80));
        assert!(!permits(&["10.0.0.0/8"], "127.0.0.1", 80));
        assert!(!permits(&["127.0.0.0/8"], "::1", 80));
        assert!(!permits(&["[::1]/128"], "127.0.0.1", 80));
        assert!(permits(&["127.0.0.0/8"], "127.3.2.1", 9));
        assert!(permits(&["127.0.0.0/8"], "::ffff:127.3.2.1", 9));
        assert!(!permits(&["127.0.0.0/8:8080"], "127.3.2.1", 9));
        assert!(!permits(&["127.0.0.0/8"], "::127.0.0.1", 9));
        assert!(permits(&["[::1]/128:8080"], "::1", 8080));
        assert!(!permits(&["[::]/0"], "127.0.0.1", 8080));
        assert!(!permits(&["[::]/0"], "::ffff:127.0.0.1", 8080));
    }

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
        ]
    }

    proptest! {
        #[test]
        fn a_list_permits_exactly_what_it_names(
            named in any_ip(), length in 0u8..=128, port in prop::option::of(1u16..),
            asked in any_ip(), near in any::<bool>(), flip in 0u8..128, asked_port in 1u16..,
        ) {
            let named = named.to_canonical();
            let length = if named.is_ipv4() { length.min(32) } else { length };
            let net = IpNet::new(named, length).expect("a net").trunc();
            let list = AllowList::from_iter([AllowEntry { net, port }]);
            // Its own address with one bit flipped, or any other.
            let asked = match (near, named) {
                (true, IpAddr::V4(ip)) => Ipv4Addr::from_bits(ip.to_bits() ^ 1 << (flip % 32)).into(),
                (true, IpAddr::V6(ip)) => Ipv6Addr::from_bits(ip.to_bits() ^ 1 << flip).into(),
                (false, _) => asked,
            };
            let named = net.contains(&asked.to_canonical())
                && (port.is_none() || port == Some(asked_port));
            prop_assert_eq!(list.permits(asked, asked_port), named);
            let without = check_address(asked, asked_port, &AllowList::default());
            let with = check_address(asked, asked_port, &list);
            prop_assert_eq!(with.is_ok(), named || without.is_ok());
        }

        #[test]
        fn the_entry_that_a_refusal_names_allows_just_that(ip in any_ip(), port in 1u16..) {
            let text = AllowEntry::of(ip, port).to_string();
            let entry: AllowEntry = text.parse().expect("what is shown can be typed");
            let list = AllowList::from_iter([entry]);
            prop_assert!(check_address(ip, port, &list).is_ok());
            if let Err(forbidden) = check_address(ip, port, &AllowList::default()) {
                let said = forbidden.to_string();
                prop_assert!(said.contains(&format!("--webhook-allow {text}")), "{}", said);
            }
        }
    }
}
