//! Encryption, and who clients are by their certificates.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::pace::Pace;

/// What is needed to listen for encrypted connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secure {
    /// The port; 0 for any that is free.
    pub port: u16,
    /// PEM file with the certificate, followed by those that vouch for it.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM file with the certificates that vouch for clients. With it, clients without a certificate are refused, and the
    /// others have the identity `x509` with their certificate's subject.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be had.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read {what} in {path}: {source}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("there is no certificate in {0}")]
    Empty(PathBuf),
    /// Certificate and key are of no use.
    #[error("cannot use the certificate {path}: {source}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: RustlsError,
    },
    /// The certificates that vouch for clients are of no use.
    #[error("cannot use the certificates in {path}: {reason}")]
    ClientCa {
        /// Their file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Secure {
    /// Reads the files.
    pub(super) fn acceptor(&self, handshakes: Arc<Handshakes>) -> Result<Acceptor, TlsError> {
        // In the order of the flags: of two files that are not there, people are told the first.
        let certificates = certificates(&self.certificate)?;
        let provider = Arc::new(ring::default_provider());
        let source = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::Certificate { path, source }
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(source(&self.certificate))?;
        let builder = match &self.client_ca {
            Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::File {
            what: "a private key",
            path: self.key.clone(),
            source,
        })?;
        let config = builder.with_single_cert(certificates, key).map_err(source(&self.certificate))?;
        Ok(Acceptor { acceptor: TlsAcceptor::from(Arc::new(config)), handshakes })
    }
}

/// Handshakes of all clients.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Under way.
    pub(super) open: AtomicUsize,
    /// Failed, since the start.
    pub(super) failed: AtomicU64,
    pace: Mutex<Pace>,
}

/// Takes encrypted connections, and logs why others are refused.
#[derive(Clone)]
pub(super) struct Acceptor {
    acceptor: TlsAcceptor,
    handshakes: Arc<Handshakes>,
}

impl Acceptor {
    /// Shakes hands with the client at `address`, who has this long for it.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        within: Duration,
    ) -> io::Result<TlsStream<TcpStream>> {
        let open = Open::new(&self.handshakes.open);
        let shaken = timeout(within, self.acceptor.accept(stream)).await;
        drop(open);
        let shaken = shaken.unwrap_or_else(|_| Err(io::Error::other("it was not completed in time")));
        if let Err(error) = &shaken {
            self.handshakes.failed.fetch_add(1, Ordering::Relaxed);
            let pace =
                self.handshakes.pace.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
            if let Some(untold) = pace {
                let hint = if speaks_no_tls(error) { " (the client does not speak TLS)" } else { "" };
                tracing::info!(%address, untold, "refused a connection: the TLS handshake failed: {error}{hint}");
            }
        }
        shaken
    }
}

/// Counts a handshake as long as it lasts, whatever ends it.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn speaks_no_tls(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<RustlsError>());
    matches!(source, Some(RustlsError::InvalidMessage(_)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    let all: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<_, _>>().map_err(file)?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |reason: String| TlsError::ClientCa { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error: RustlsError| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error: VerifierBuilderError| unusable(error.to_string()))
}

/// The subject of a client's certificate as ZooKeeper writes it: in the form of RFC 2253, last part first.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate().subject().to_string())
}
