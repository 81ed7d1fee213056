//! TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::app;
use postrider::config::Server;
use reqwest::Version;
use serde_json::json;

use super::super::bad::http::{connect, exchange, read_to_end};
use super::short_times;
use crate::support::{Database, Gateway, certificate, config, https_client};

/// A certificate and its key in files.
struct Pair {
    folder: tempfile::TempDir,
    /// What a client has to trust.
    pem: String,
}

impl Pair {
    fn new() -> Self {
        let (pem, key) = certificate();
        let pair = Self {
            folder: tempfile::tempdir().unwrap(),
            pem,
        };
        pair.write(&pair.pem, &key);
        pair
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn write(&self, cert: &str, key: &str) {
        std::fs::write(self.cert(), cert).unwrap();
        std::fs::write(self.key(), key).unwrap();
    }

    fn settings(&self) -> Server {
        Server {
            tls_cert: Some(self.cert()),
            tls_key: Some(self.key()),
            ..Server::default()
        }
    }
}

async fn start(server: Server) -> (Database, Gateway) {
    super::start(server).await
}

async fn version(client: &reqwest::Client, gateway: &Gateway) -> Result<Version, reqwest::Error> {
    let response = client.get(https(gateway, "/livez")).send().await?;
    assert_eq!(response.status(), 200);
    Ok(response.version())
}

fn https(gateway: &Gateway, path: &str) -> String {
    gateway.url(path).replace("http://", "https://")
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_choose_the_protocol_in_the_handshake() {
    let pair = Pair::new();
    let (_database, gateway) = start(pair.settings()).await;
    let both = https_client(&pair.pem, false);
    assert_eq!(version(&both, &gateway).await.unwrap(), Version::HTTP_2);
    let old = https_client(&pair.pem, true);
    assert_eq!(version(&old, &gateway).await.unwrap(), Version::HTTP_11);

    let one = start(Server {
        http2: false,
        ..pair.settings()
    })
    .await;
    assert_eq!(version(&both, &one.1).await.unwrap(), Version::HTTP_11);

    // A message there and back.
    let post = async |path: &str, body: serde_json::Value| {
        let request = both
            .post(https(&gateway, path))
            .header("content-type", "application/json")
            .body(body.to_string());
        request.send().await.unwrap().text().await.unwrap()
    };
    let put = both.put(https(&gateway, "/v1/queues/work")).send().await;
    assert_eq!(put.unwrap().status(), 201);
    post("/v1/queues/work/messages", json!({"body": "secret"})).await;
    let received = post("/v1/queues/work/receive", json!({})).await;
    assert!(received.contains("\"body\":\"secret\""), "{received}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_gets_no_answer_and_holds_nobody_up() {
    let pair = Pair::new();
    let (_database, gateway) = start(Server {
        tls_cert: Some(pair.cert()),
        tls_key: Some(pair.key()),
        ..short_times(Duration::from_secs(1), Duration::from_secs(1))
    })
    .await;
    let answer = exchange(&gateway, b"GET /livez HTTP/1.1\r\n\r\n").await;
    assert!(!answer.contains("HTTP"), "{answer}");
    let mut silent = connect(&gateway).await;
    let closed = tokio::time::timeout(Duration::from_secs(8), read_to_end(&mut silent));
    assert_eq!(closed.await.unwrap(), "");
    let client = https_client(&pair.pem, false);
    version(&client, &gateway).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_read_anew_and_a_bad_one_is_not_taken() {
    let pair = Pair::new();
    let (_database, gateway) = start(pair.settings()).await;
    let (new, new_key) = certificate();
    let trusts = |pem: &str| https_client(pem, false);
    let kept = trusts(&pair.pem);
    version(&kept, &gateway).await.unwrap();
    assert!(version(&trusts(&new), &gateway).await.is_err());

    // The new certificate with the old key; half a file; none.
    let old_key = std::fs::read_to_string(pair.key()).unwrap();
    for (cert, key) in [
        (new.as_str(), old_key.as_str()),
        (new.as_str(), &new_key[..50]),
        ("", new_key.as_str()),
    ] {
        pair.write(cert, key);
        gateway.app.reload();
        version(&trusts(&pair.pem), &gateway).await.unwrap();
    }
    std::fs::remove_file(pair.cert()).unwrap();
    gateway.app.reload();
    version(&trusts(&pair.pem), &gateway).await.unwrap();

    pair.write(&new, &new_key);
    gateway.app.reload();
    version(&trusts(&new), &gateway).await.unwrap();
    assert!(version(&trusts(&pair.pem), &gateway).await.is_err());
    // Connections that are open stay so.
    version(&kept, &gateway).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let (pair, other) = (Pair::new(), Pair::new());
    let junk = pair.folder.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\n!").unwrap();
    let missing = Path::new("/nowhere/cert.pem").to_owned();
    let said = async |cert: Option<PathBuf>, key: Option<PathBuf>| {
        let mut config = config("postgres://nobody@127.0.0.1:1/nothing");
        config.server.tls_cert = cert;
        config.server.tls_key = key;
        // Said at once, though there is no database.
        let started = tokio::time::timeout(Duration::from_secs(20), app::App::start(&config));
        started.await.unwrap().unwrap_err().to_string()
    };
    for (cert, key, expected) in [
        (
            Some(missing.clone()),
            Some(pair.key()),
            "--tls-cert /nowhere/cert.pem: there is no such",
        ),
        (
            Some(pair.cert()),
            Some(missing),
            "--tls-key /nowhere/cert.pem: there is no such",
        ),
        (
            Some(pair.key()),
            Some(pair.key()),
            "there is no certificate in PEM in it",
        ),
        (
            Some(pair.cert()),
            Some(pair.cert()),
            "there is no private key in PEM in it",
        ),
        (Some(junk), Some(pair.key()), "not well-formed PEM"),
        (
            Some(pair.cert()),
            Some(other.key()),
            "is not the key of the certificate",
        ),
        (Some(pair.cert()), None, "--tls-key is missing"),
        (None, Some(pair.key()), "--tls-cert is missing"),
    ] {
        let error = said(cert, key).await;
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
