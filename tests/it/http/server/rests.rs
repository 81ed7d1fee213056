//! HTTP/2 clients that connect and ask nothing, or nothing more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::config::Server;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::bad::http::connect;
use super::{http2_client, short_times, start};
use crate::support::{Gateway, certificate};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Empty.
pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GET http /livez, from the static table, and :authority x; the first stream.
pub(super) const GET_LIVEZ: &[u8] = &[
    0, 0, 13, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x04, 6, b'/', b'l', b'i', b'v', b'e', b'z', 0x41, 1,
    b'x',
];

/// A connection that has to be closed by the other side.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Sends this, and what HTTP/2 asks of a client that rests, until the gateway
/// closes: after how long, and the reasons of its GOAWAYs.
async fn closed_after<S: Stream>(
    connect: impl Future<Output = S>,
    first: &[u8],
) -> (Duration, Vec<u32>) {
    // Its time runs from the moment that it is accepted.
    let started = Instant::now();
    let mut stream = connect.await;
    stream.write_all(first).await.unwrap();
    // An answer would be taken for the rest of it.
    let is_cut = first.is_empty() || first.ends_with(&SETTINGS[..4]);
    let mut reasons = Vec::new();
    let resting = async {
        let mut head = [0; 9];
        // A reset is an end, too.
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                break;
            }
            match (head[3], head[4]) {
                // SETTINGS and PING, not acknowledgements.
                (4, 0) if !is_cut => {
                    let _ = stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await;
                }
                (6, 0) => {
                    let pong = [&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat();
                    let _ = stream.write_all(&pong).await;
                }
                (7, _) => reasons.push(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                _ => {}
            }
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(15), resting).await;
    assert!(closed.is_ok(), "it is never closed");
    (started.elapsed(), reasons)
}

#[track_caller]
pub(super) fn assert_about(waited: Duration, seconds: f64) {
    let waited = waited.as_secs_f64();
    assert!(
        (seconds - 0.1..seconds + 5.0).contains(&waited),
        "{waited} s, not {seconds}"
    );
}

/// A gateway with TLS, and a connection to it that speaks HTTP/2.
struct Encrypted {
    /// Until it has been read.
    _folder: tempfile::TempDir,
    gateway: Gateway,
    _database: crate::support::Database,
    trusted: Arc<rustls::ClientConfig>,
}

impl Encrypted {
    async fn start(times: Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = certificate();
        let [tls_cert, tls_key] = [("cert", &pem), ("key", &key)].map(|(name, text)| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            Some(file)
        });
        let (database, gateway) = start(Server {
            tls_cert,
            tls_key,
            ..times
        })
        .await;
        let mut roots = rustls::RootCertStore::empty();
        let certificate = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
        roots.add(certificate.unwrap()).unwrap();
        let mut trusted = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        trusted.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            _folder: folder,
            gateway,
            _database: database,
            trusted: Arc::new(trusted),
        }
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.trusted));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, connect(&self.gateway).await);
        let stream = stream.await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        stream
    }
}

/// What a client may send without asking anything.
fn beginnings() -> [Vec<u8>; 3] {
    [
        PREFACE.to_vec(),
        [PREFACE, &SETTINGS[..4]].concat(),
        [PREFACE, SETTINGS].concat(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_chooses_http_2_and_asks_nothing_has_the_time_of_a_first_head() {
    let (_database, gateway) = start(short_times(SECOND, HOUR)).await;
    let encrypted = Encrypted::start(short_times(SECOND, HOUR)).await;
    for first in beginnings() {
        let (waited, _) = closed_after(connect(&gateway), &first).await;
        assert_about(waited, 1.0);
        let (waited, _) = closed_after(encrypted.connect(), &first).await;
        assert_about(waited, 1.0);
    }
    // Not even the preface.
    let (waited, _) = closed_after(encrypted.connect(), b"").await;
    assert_about(waited, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_chooses_http_2_and_asks_nothing_does_not_hold_the_gateway_up() {
    let (_database, plain) = start(short_times(HOUR, HOUR)).await;
    let encrypted = Encrypted::start(short_times(HOUR, HOUR)).await;
    let mut kept = Vec::<Box<dyn Stream>>::new();
    for first in beginnings() {
        let mut stream = connect(&plain).await;
        stream.write_all(&first).await.unwrap();
        kept.push(Box::new(stream));
        let mut stream = encrypted.connect().await;
        stream.write_all(&first).await.unwrap();
        kept.push(Box::new(stream));
    }
    kept.push(Box::new(encrypted.connect().await));
    for gateway in [plain, encrypted.gateway] {
        let started = Instant::now();
        gateway.app.shut_down().await.unwrap();
        let waited = started.elapsed();
        assert!(waited < 4 * SECOND, "{waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_that_rests_for_too_long_is_told_to_go() {
    let times = short_times(SECOND, 3 * SECOND);
    let (_database, gateway) = start(times.clone()).await;
    let encrypted = Encrypted::start(times).await;
    let first = [PREFACE, SETTINGS, GET_LIVEZ].concat();
    let in_the_clear = closed_after(connect(&gateway), &first);
    let over_tls = closed_after(encrypted.connect(), &first);
    for (waited, reasons) in <[_; 2]>::from(tokio::join!(in_the_clear, over_tls)) {
        assert_about(waited, 3.0);
        // NO_ERROR.
        assert!(reasons.contains(&0), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_on_which_a_receiver_waits_does_not_rest() {
    let (_database, gateway) = start(Server {
        max_connections: 2,
        ..short_times(SECOND, SECOND)
    })
    .await;
    gateway.queue("work", json!({})).await;
    let client = http2_client();
    let receive = client
        .post(gateway.url("/v1/queues/work/receive"))
        .header("content-type", "application/json")
        .body(r#"{"wait_seconds": 4}"#);
    let receiving = async { receive.send().await.unwrap() };
    let asking = async {
        gateway.until_waiting(1).await;
        tokio::time::sleep(2 * SECOND).await;
        gateway.app.broker().waiting().values().sum::<usize>()
    };
    let (answer, still_waiting) = tokio::join!(receiving, asking);
    assert_eq!(still_waiting, 1);
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "{\"messages\":[]}\n");
}
