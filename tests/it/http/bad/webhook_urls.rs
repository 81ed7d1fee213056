//! URLs that a webhook may not have, in every spelling.

use serde_json::json;

use super::check::check_at;
use super::table::{Row, send};

/// Loopback, private, link-local, shared, multicast, reserved, metadata.
const ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    // Decimal, hex, octal, short; full stops of other scripts.
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "167772161",
    "0xa000001",
    "012.0.0.1",
    "10.1",
    "0xa9.0xfe.0xa9.0xfe",
    "169。254。169。254",
    // By name.
    "localhost",
    "LOCALHOST",
    // IPv6, and IPv4 inside it: mapped, compatible, NAT64, 6to4, Teredo.
    "[::]",
    "[::1]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[fec0::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[5f00::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[::10.0.0.1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::1]",
    "[2002:a00:1::1]",
    "[2001:0:4136:e378:8000:63bf:f5ff:fffe]",
];

/// Neither HTTP, nor whole, nor plain.
const OTHERS: &[&str] = &[
    "",
    "hook",
    "//10.0.0.1/hook",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "https://me:secret@example.com/",
    "https://me@example.com/",
    "https://example.com/#part",
    "https://1.1.1.1:22/",
    "https://example.com:22/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "https://[2606:4700:4700::1111]:5432/",
    "https://exam ple.com/",
    "https://example.com/\r\nx: y",
    "https:\\\\example.com/",
];

fn rows() -> Vec<Row> {
    let mut urls: Vec<String> = OTHERS.iter().map(|&url| url.to_owned()).collect();
    for address in ADDRESSES {
        urls.push(format!("http://{address}/hook"));
    }
    // ISATAP.
    urls.push("http://[2a00:1450::5efe:10.0.0.1]/".to_owned());
    urls.push("http://[2a00:1450::200:5efe:10.0.0.1]/".to_owned());
    urls.push(format!("https://example.com/{}", "x".repeat(2048)));
    let path = "/v1/queues/orders/webhook";
    let owned = "/v1/topics/shop/subscriptions/n";
    let mut rows = Vec::new();
    for url in urls {
        let webhook = json!({"url": url});
        let row = send("PUT", path).json(webhook.to_string());
        rows.push(
            row.refused(422, "url-forbidden")
                .at("/url")
                .needs_postgres(),
        );
        let row = send("PATCH", "/v1/queues/pushed/webhook").json(webhook.to_string());
        rows.push(
            row.refused(422, "url-forbidden")
                .at("/url")
                .needs_postgres(),
        );
        let subscription = json!({"webhook": webhook}).to_string();
        let row = send("PUT", owned).json(subscription);
        rows.push(row.refused(422, "url-forbidden").at("/webhook/url"));
    }
    // RFC 6761: it resolves nowhere.
    let nowhere = json!({"url": "http://nowhere.invalid/hook"}).to_string();
    let row = send("PUT", path).json(nowhere);
    rows.push(
        row.refused(422, "url-unresolvable")
            .at("/url")
            .needs_postgres(),
    );
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_may_not_be_pushed_to_is_refused_in_every_spelling() {
    // As gateways are unless their operators say otherwise.
    check_at(|config| config.webhook_allow.clear(), |_| rows()).await;
}
