//! TLS by rustls: the certificate and its key, read anew when told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why a certificate and key are not used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate without a key, or the other way round.
    #[error("--tls-cert and --tls-key go together: {0} is missing")]
    Half(&'static str),
    /// A file that cannot be read, or holds something else.
    #[error("--{option} {}: {reason}", file.display())]
    File {
        /// Of which option.
        option: &'static str,
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The two do not fit each other.
    #[error(
        "--tls-key {} is not the key of the certificate in --tls-cert {}", key.display(),
        cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// What rustls says of them.
    #[error("--tls-cert {}: {source}", cert.display())]
    Rustls {
        /// The certificate's file.
        cert: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    http2: bool,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads a PEM file with the certificate, those that vouch for it after it,
    /// and one with its private key, if they are named.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(
        cert: &Option<PathBuf>,
        key: &Option<PathBuf>,
        http2: bool,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let (cert, key) = match (cert, key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(TlsError::Half("--tls-key")),
            (None, Some(_)) => return Err(TlsError::Half("--tls-cert")),
        };
        Ok(Some(Arc::new(Self {
            cert: cert.clone(),
            key: key.clone(),
            http2,
            config: RwLock::new(read(cert, key, http2)?),
        })))
    }

    /// Reads the files anew, for connections from now on.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = read(&self.cert, &self.key, self.http2)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }
}

fn read(cert: &Path, key: &Path, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let refused = |option, file: &Path, error, nothing: &str| TlsError::File {
        option,
        file: file.to_owned(),
        reason: explain(error, nothing),
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| {
            if chain.is_empty() {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|error| refused("tls-cert", cert, error, "no certificate"))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| refused("tls-key", key, error, "no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, private)
        });
    let mut config = config.map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            cert: cert.to_owned(),
            key: key.to_owned(),
        },
        source => TlsError::Rustls {
            cert: cert.to_owned(),
            source,
        },
    })?;
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

/// Without what is in the file.
fn explain(error: pem::Error, nothing: &str) -> String {
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file".to_owned()
        }
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("there is {nothing} in PEM in it"),
        _ => "it is not well-formed PEM".to_owned(),
    }
}
