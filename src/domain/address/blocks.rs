//! The blocks, after IANA's registries of special-purpose addresses
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>).
//!
//! For IPv4 they are listed: everything else is global unicast. For IPv6 it is
//! the other way round, since most of that space is not given out: only
//! `2000::/3` may be reached, without the blocks in it that are special or that
//! carry an IPv4 address inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4: first address, length of the prefix, what it is.
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::UNSPECIFIED, 8, "an address of \"this network\""),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (
        Ipv4Addr::new(100, 64, 0, 0),
        10,
        "a shared address (RFC 6598)",
    ),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    // Azure answers its machines' questions for metadata here, too.
    (
        Ipv4Addr::new(168, 63, 129, 16),
        32,
        "a cloud's metadata address",
    ),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (
        Ipv4Addr::new(192, 0, 0, 0),
        24,
        "an address for protocols (RFC 6890)",
    ),
    (
        Ipv4Addr::new(192, 0, 2, 0),
        24,
        "an address for documentation",
    ),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay's address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (
        Ipv4Addr::new(198, 18, 0, 0),
        15,
        "an address for benchmarks",
    ),
    (
        Ipv4Addr::new(198, 51, 100, 0),
        24,
        "an address for documentation",
    ),
    (
        Ipv4Addr::new(203, 0, 113, 0),
        24,
        "an address for documentation",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
];

/// IPv6 inside of `2000::/3`.
const V6: &[(Ipv6Addr, u32, &str)] = &[
    // Teredo, ORCHID, benchmarks and others.
    (
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),
        23,
        "an address for protocols (RFC 2928; Teredo is one)",
    ),
    (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
        32,
        "an address for documentation",
    ),
    (
        Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0),
        16,
        "a 6to4 address",
    ),
    (
        Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0),
        20,
        "an address for documentation",
    ),
];

/// IPv6 outside of it, only to call them by their names; the rest of the
/// outside is refused as well.
const V6_NAMES: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "the unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
        96,
        "an IPv4-mapped address",
    ),
    (Ipv6Addr::UNSPECIFIED, 96, "an IPv4-compatible address"),
    (
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        96,
        "a NAT64 address",
    ),
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "a NAT64 address",
    ),
    (
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
        "a unique local address",
    ),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a link-local address",
    ),
    (
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a site-local address",
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        "a multicast address",
    ),
];

/// What the block is that the address lies in, if webhooks must not reach it.
pub(super) fn forbidden(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => V4
            .iter()
            .find(|(first, length, _)| (ip.to_bits() ^ first.to_bits()) >> (32 - length) == 0)
            .map(|(_, _, name)| *name),
        IpAddr::V6(ip) => forbidden_v6(ip),
    }
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let find = |blocks: &[(Ipv6Addr, u32, &'static str)]| {
        blocks
            .iter()
            .find(|(first, length, _)| (ip.to_bits() ^ first.to_bits()) >> (128 - length) == 0)
            .map(|(_, _, name)| *name)
    };
    let segments = ip.segments();
    if segments[0] >> 13 != 1 {
        Some(find(V6_NAMES).unwrap_or("not a global unicast address"))
    } else if segments[4] & !0x0300 == 0 && segments[5] == 0x5efe {
        // RFC 5214, 6.1: the interface id 0:5efe or 200:5efe, then an IPv4
        // address. All of them, whatever that address is: nobody serves there.
        Some("an ISATAP address")
    } else {
        find(V6)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written down a second time, as the registries spell them.
    const SPECIAL_V4: &[&str] = &[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ];
    const SPECIAL_V6: &[&str] = &[
        "::/128",
        "::1/128",
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",
        "2001::/32",
        "2001:2::/48",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];

    fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a net"))
            .collect()
    }

    /// Any address of one of the blocks, its ends more often than by chance.
    fn inside(texts: &'static [&'static str]) -> impl Strategy<Value = IpAddr> {
        (prop::sample::select(nets(texts)), any::<u128>(), 0..4u8).prop_map(|(net, host, which)| {
            match which {
                0 => net.network(),
                1 => net.broadcast(),
                _ => match net {
                    ipnet::IpNet::V4(net) => {
                        #[expect(clippy::cast_possible_truncation, reason = "random bits")]
                        let host = host as u32 & net.hostmask().to_bits();
                        Ipv4Addr::from_bits(net.network().to_bits() | host).into()
                    }
                    ipnet::IpNet::V6(net) => {
                        let host = host & net.hostmask().to_bits();
                        Ipv6Addr::from_bits(net.network().to_bits() | host).into()
                    }
                },
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_address_of_a_special_block_is_refused(
            ip in prop_oneof![inside(SPECIAL_V4), inside(SPECIAL_V6)],
        ) {
            prop_assert!(forbidden(ip).is_some(), "{ip}");
        }

        #[test]
        fn of_ipv4_exactly_the_special_blocks_are_refused(bits in any::<u32>()) {
            let ip = IpAddr::from(Ipv4Addr::from_bits(bits));
            let special = nets(SPECIAL_V4).iter().any(|net| net.contains(&ip));
            prop_assert_eq!(forbidden(ip).is_some(), special, "{}", ip);
        }

        #[test]
        fn of_ipv6_only_global_unicast_passes(bits in any::<u128>(), global in any::<bool>()) {
            let bits = if global { bits >> 3 | 1 << 125 } else { bits };
            let ip = Ipv6Addr::from_bits(bits);
            let unicast: ipnet::Ipv6Net = "2000::/3".parse().expect("a net");
            let special = nets(SPECIAL_V6).iter().any(|net| net.contains(&IpAddr::from(ip)));
            let isatap = bits >> 32 & 0xfcff_ffff == 0x5efe;
            let passes = unicast.contains(&ip) && !special && !isatap;
            prop_assert_eq!(forbidden(ip.into()).is_none(), passes, "{}", ip);
        }

        #[test]
        fn isatap_is_refused_in_every_network(net in any::<u64>(), v4 in any::<u32>(), bit in any::<bool>()) {
            let interface = if bit { 0x0200_5efe_u128 } else { 0x5efe };
            let ip = Ipv6Addr::from_bits(u128::from(net) << 64 | interface << 32 | u128::from(v4));
            prop_assert!(forbidden(ip.into()).is_some(), "{ip}");
        }
    }

    #[test]
    fn well_known_servers_pass() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "2001:200::1",
            "2001:4860:4860::8888",
        ] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(forbidden(ip), None, "{ip}");
        }
    }

    #[test]
    fn a_block_is_called_by_its_name() {
        for (text, name) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("::", "unspecified"),
            ("::ffff:8.8.8.8", "mapped"),
            ("::127.0.0.1", "compatible"),
            ("fe80::1", "link-local"),
            ("169.254.169.254", "link-local"),
            ("fd00:ec2::254", "unique local"),
            ("64:ff9b::7f00:1", "NAT64"),
            ("2002:7f00:1::", "6to4"),
            ("4000::1", "not a global"),
            ("2a00::5efe:127.0.0.1", "ISATAP"),
        ] {
            let ip: IpAddr = text.parse().expect("an address");
            let block = forbidden(ip).expect("forbidden");
            assert!(block.contains(name), "{ip}: {block}");
        }
    }
}
