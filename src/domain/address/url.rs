//! The URL of a webhook.

use std::net::IpAddr;

use url::{Host, Url};

use super::{AllowList, Forbidden, PORTS, check_address};

/// A URL that a webhook may have, as far as that can be told without resolving
/// its name. Parsed as browsers do (WHATWG), so that one parser decides what is
/// checked and what is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// Why a URL is not one for a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForbiddenUrl {
    /// Over [`WebhookUrl::LENGTH`].
    #[error("a webhook's URL is at most 2048 bytes, this is {0}")]
    TooLong(usize),
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    Malformed(&'static str),
    /// Neither HTTP nor HTTPS.
    #[error("a webhook's URL begins with http:// or https://")]
    Scheme,
    /// A user's name or password.
    #[error(
        "a webhook's URL has no user name and password: send them in one of the webhook's headers"
    )]
    Credentials,
    /// `#` and what follows.
    #[error("a webhook's URL has no fragment: leave out '#' and what follows it")]
    Fragment,
    /// A port that no entry of the list could allow.
    #[error(
        "port {0} is none of 80, 443, 8080 and 8443; the gateway's option --webhook-allow CIDR:{0} would allow it for the addresses named"
    )]
    Port(u16),
    /// A literal address.
    #[error(transparent)]
    Address(#[from] Forbidden),
}

impl WebhookUrl {
    /// Bytes, at most.
    pub const LENGTH: usize = 2048;

    /// Parses and checks a URL: scheme, credentials, fragment, port, and the
    /// address if it is a literal one.
    ///
    /// # Errors
    /// [`ForbiddenUrl`], which says what to do.
    pub fn parse(text: &str, allow: &AllowList) -> Result<Self, ForbiddenUrl> {
        let url = Self::stored(text)?;
        url.check(allow)?;
        Ok(url)
    }

    /// One that was [parsed](Self::parse) before, perhaps under another list: it
    /// has to be [checked](Self::check) before each push.
    ///
    /// # Errors
    /// [`ForbiddenUrl`], but for ports and addresses.
    pub fn stored(text: &str) -> Result<Self, ForbiddenUrl> {
        if text.len() > Self::LENGTH {
            return Err(ForbiddenUrl::TooLong(text.len()));
        }
        // The standard drops some of them silently, so that what one reads is
        // not what one gets.
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(ForbiddenUrl::Malformed(
                "it contains white space or control characters; write them as %20 and so on",
            ));
        }
        if text.contains('\\') {
            return Err(ForbiddenUrl::Malformed(
                "it contains a backslash; write '/' or %5C",
            ));
        }
        let url = Url::parse(text).map_err(|error| ForbiddenUrl::Malformed(explain(error)))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ForbiddenUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ForbiddenUrl::Credentials);
        }
        if url.fragment().is_some() {
            return Err(ForbiddenUrl::Fragment);
        }
        // Escapes may have made it longer.
        if url.as_str().len() > Self::LENGTH {
            return Err(ForbiddenUrl::TooLong(url.as_str().len()));
        }
        Ok(Self(url))
    }

    /// Checks the port, and a literal address, against the list: once more
    /// before each push, since the list may have changed since.
    ///
    /// # Errors
    /// [`ForbiddenUrl::Port`], [`ForbiddenUrl::Address`].
    pub fn check(&self, allow: &AllowList) -> Result<(), ForbiddenUrl> {
        let port = self.port();
        match self.literal() {
            Some(ip) => Ok(check_address(ip, port, allow)?),
            None if PORTS.contains(&port) || allow.names_port(port) => Ok(()),
            None => Err(ForbiddenUrl::Port(port)),
        }
    }

    /// The address, if it is a literal one.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        match self.0.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(ip.into()),
            _ => None,
        }
    }

    /// The host, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port, which the scheme decides if the URL does not.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(80)
    }

    /// Whether it is `https`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL, in the standard's own spelling.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl std::fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// What the parser means, to somebody who typed the URL.
fn explain(error: url::ParseError) -> &'static str {
    match error {
        url::ParseError::EmptyHost => "there is no host",
        url::ParseError::InvalidPort => "the port is not a number from 0 to 65535",
        url::ParseError::InvalidIpv4Address => "the host looks like an IPv4 address and is none",
        url::ParseError::InvalidIpv6Address => "the host looks like an IPv6 address and is none",
        url::ParseError::RelativeUrlWithoutBase => "it begins with https:// or http://",
        _ => "the host is not a name or an address",
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<WebhookUrl, ForbiddenUrl> {
        WebhookUrl::parse(text, &AllowList::default())
    }

    fn allow(texts: &[&str]) -> AllowList {
        texts
            .iter()
            .map(|text| text.parse::<super::super::AllowEntry>().expect("an entry"))
            .collect()
    }

    #[test]
    fn ordinary_urls_pass() {
        for text in [
            "https://example.com",
            "https://example.com/hooks?token=1&x=%23",
            "http://example.com:8080/",
            "https://example.com:8443",
            "https://bücher.example/ä",
            "https://1.1.1.1/",
            "https://[2606:4700:4700::1111]/",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let long = format!("https://example.com/{}", "x".repeat(2030));
        for (text, expected) in [
            (long.as_str(), "2048"),
            ("", "https://"),
            ("example.com/x", "https://"),
            ("https://", "no host"),
            ("http:///", "no host"),
            ("https://example.com:99999/", "port"),
            ("https://1.2.3.4.5.6/", "IPv4"),
            ("https://256.256.256.256/", "IPv4"),
            ("https://[::g]/", "IPv6"),
            ("https://[fe80::1%25eth0]/", "IPv6"),
            ("https://exa mple.com/", "white space"),
            ("https://example.com/\r\nx: y", "white space"),
            (" https://example.com/", "white space"),
            ("https://example.com\u{0}/", "control"),
            ("https:\\\\example.com/", "backslash"),
            ("ftp://example.com/", "http://"),
            ("file:///etc/passwd", "http://"),
            ("gopher://example.com/", "http://"),
            ("javascript:alert(1)", "http://"),
            ("https://me@example.com/", "user name"),
            ("https://me:s3cret@example.com/", "user name"),
            ("https://:s3cret@example.com/", "user name"),
            ("https://example.com/#", "fragment"),
            ("https://example.com/#x", "fragment"),
            ("https://example.com:22/", "--webhook-allow CIDR:22"),
            ("https://example.com:5432/", "--webhook-allow CIDR:5432"),
            ("https://1.1.1.1:25/", "--webhook-allow 1.1.1.1/32:25"),
            (
                "http://127.0.0.1:8080/",
                "--webhook-allow 127.0.0.1/32:8080",
            ),
            ("http://[::1]/", "--webhook-allow [::1]/128:80"),
            ("http://169.254.169.254/latest/meta-data/", "link-local"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_name_on_an_odd_port_passes_once_the_list_names_the_port() {
        let list = allow(&["10.0.0.0/8:9000"]);
        assert!(WebhookUrl::parse("http://hooks.internal:9000/", &list).is_ok());
        assert!(WebhookUrl::parse("http://hooks.internal:9001/", &list).is_err());
        assert!(WebhookUrl::parse("http://10.1.2.3:9000/", &list).is_ok());
        assert!(WebhookUrl::parse("http://10.1.2.3/", &list).is_err());
    }

    /// The spellings of one IPv4 address that browsers, and some libraries of C,
    /// take.
    fn spellings(ip: Ipv4Addr) -> Vec<String> {
        let [a, b, c, d] = ip.octets();
        let bits = ip.to_bits();
        let low = bits & 0xffff;
        let lower = bits & 0x00ff_ffff;
        vec![
            format!("{ip}"),
            format!("{ip}."),
            format!("{bits}"),
            format!("{bits:#x}"),
            format!("{bits:#X}").replace("0X", "0x"),
            format!("0{bits:o}"),
            format!("{a}.{lower}"),
            format!("{a}.{b}.{low}"),
            format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
            format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
            format!("0{a:o}.{b:#x}.{low}"),
            format!("000{a:o}.{b}.{c}.{d}"),
            format!(
                "%{:x}{}",
                ip.to_string().as_bytes()[0],
                &ip.to_string()[1..]
            ),
            ip.to_string().replace('.', "\u{3002}"),
            ip.to_string().replace('1', "\u{2460}"),
            format!("[::ffff:{ip}]"),
            format!("[::ffff:{:x}:{:x}]", bits >> 16, low),
            format!("[0:0:0:0:0:ffff:{ip}]"),
            format!("[::{ip}]"),
            format!("[64:ff9b::{ip}]"),
            format!("[64:ff9b:1::{ip}]"),
            format!("[2002:{:x}:{:x}::1]", bits >> 16, low),
            format!(
                "[2001:0:4136:e378:8000:63bf:{:x}:{:x}]",
                !(bits >> 16) & 0xffff,
                !low & 0xffff
            ),
            format!("[2a00:1450::5efe:{ip}]"),
            format!("[2a00:1450::200:5efe:{ip}]"),
        ]
    }

    fn forbidden_v4() -> impl Strategy<Value = Ipv4Addr> {
        (
            prop::sample::select(vec![
                (0x7f00_0000_u32, 8),
                (0x0a00_0000, 8),
                (0xac10_0000, 12),
                (0xc0a8_0000, 16),
                (0xa9fe_0000, 16),
                (0x6440_0000, 10),
                (0xe000_0000, 4),
                (0xf000_0000, 4),
                (0, 8),
            ]),
            any::<u32>(),
        )
            .prop_map(|((net, length), host)| {
                Ipv4Addr::from_bits(net | host & (u32::MAX >> length))
            })
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_forbidden_address_is_refused(
            ip in forbidden_v4(), https in any::<bool>(),
        ) {
            for host in spellings(ip) {
                let text = format!("http{}://{host}/x", if https { "s" } else { "" });
                match parse(&text) {
                    Err(ForbiddenUrl::Address(Forbidden::Address { .. })) => {}
                    other => prop_assert!(false, "{}: {:?}", text, other),
                }
            }
        }

        #[test]
        fn whatever_is_typed_it_is_parsed_or_refused(text in ".{0,80}") {
            let _ = parse(&text);
            let _ = parse(&format!("https://{text}"));
            let _ = parse(&format!("https://example.com{text}"));
        }

        #[test]
        fn what_passed_passes_again_in_its_own_spelling(
            host in "[a-zA-Z0-9.\\[\\]:%-]{1,40}", path in "[ -~]{0,20}",
        ) {
            if let Ok(url) = parse(&format!("https://{host}/{path}")) {
                prop_assert_eq!(parse(&url.to_string()), Ok(url));
            }
        }
    }
}
