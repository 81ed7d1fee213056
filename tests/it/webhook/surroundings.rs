//! What comes from the environment: proxies, CA certificates. A process reads
//! both once, so each of these tests runs once more in a process of its own.

use std::process::Command;

use postrider::domain::{AllowList, WebhookUrl};
use postrider::webhook::{Error, PushOutcome, Pusher};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;

use super::support::{PATIENT, push, pusher};
use crate::support::Receiver;

/// Set in the process that does it.
const URL: &str = "POSTRIDER_TEST_URL";

/// Runs the test of that name again, in a process with these variables.
async fn again(test: &str, url: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            &format!("webhook::surroundings::{test}"),
            "--nocapture",
        ])
        .env(URL, url)
        .envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_not_used() {
    if let Ok(url) = std::env::var(URL) {
        let pushed = push(&pusher(), &url, PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
        return;
    }
    let (receiver, proxy) = (Receiver::start().await, Receiver::start().await);
    let name = proxy.url("");
    let variables: Vec<(&str, &str)> = [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ]
    .map(|variable| (variable, name.as_str()))
    .into();
    again(
        "proxies_of_the_environment_are_not_used",
        &receiver.url("/"),
        &variables,
    )
    .await;
    assert_eq!(proxy.connections(), 0);
    assert_eq!(receiver.requests().len(), 1);
}

/// A server's configuration for a certificate of that name, and the certificate.
fn certified(name: &str) -> (rustls::ServerConfig, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (config, cert.pem())
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (config, _) = certified("localhost");
    let receiver = Receiver::start_tls(config).await;
    let url = receiver
        .url("/?token=s3cret")
        .replace("127.0.0.1", "localhost");
    let pushed = push(&pusher(), &url, PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
    let error = pushed.error.unwrap();
    assert!(error.starts_with("certificate not trusted: "), "{error}");
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!(receiver.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_against_those_of_the_machine() {
    if let Ok(url) = std::env::var(URL) {
        let pushed = push(&pusher(), &url, PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
        // The same server under a name that its certificate does not have.
        let pushed = push(&pusher(), &url.replace("localhost", "127.0.0.1"), PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Failed, "{pushed:?}");
        let error = pushed.error.unwrap();
        assert!(error.starts_with("certificate not trusted: "), "{error}");
        return;
    }
    let (config, pem) = certified("localhost");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let receiver = Receiver::start_tls(config).await;
    let url = receiver.url("/").replace("127.0.0.1", "localhost");
    let variables = [
        ("SSL_CERT_FILE", file.to_str().unwrap()),
        ("SSL_CERT_DIR", folder.path().to_str().unwrap()),
    ];
    let test = "certificates_are_checked_against_those_of_the_machine";
    again(test, &url, &variables).await;
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_ca_certificates_is_said_so() {
    if let Ok(url) = std::env::var(URL) {
        let pushed = push(&pusher(), &url, PATIENT).await;
        assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
        let https = WebhookUrl::parse("https://1.1.1.1/", &AllowList::default()).unwrap();
        let strict = Pusher::new(AllowList::default()).unwrap();
        let checked = strict.check(&https).await;
        assert!(matches!(checked, Err(Error::NoRoots)), "{checked:?}");
        let pushed = push(&strict, "https://1.1.1.1/", PATIENT).await;
        let error = pushed.error.unwrap();
        assert!(error.contains("no CA certificates"), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "").unwrap();
    let receiver = Receiver::start().await;
    let variables = [
        ("SSL_CERT_FILE", file.to_str().unwrap()),
        ("SSL_CERT_DIR", folder.path().to_str().unwrap()),
    ];
    let test = "a_machine_without_ca_certificates_is_said_so";
    again(test, &receiver.url("/"), &variables).await;
}
