//! Certificates of tests, and clients that trust them.

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// A certificate for 127.0.0.1 and its key, in PEM.
pub(crate) fn certificate() -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (cert.pem(), signing_key.serialize_pem())
}

/// A client that trusts only this certificate.
#[expect(clippy::disallowed_methods, reason = "tests ask what they please")]
pub(crate) fn https_client(pem: &str, is_http1: bool) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([trusted]);
    if is_http1 {
        builder = builder.http1_only();
    }
    builder.build().unwrap()
}
