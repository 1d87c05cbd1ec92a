//! Certificates, keys and roots in files, and what connects to others with them. What is asked of those
//! who connect here is in `protocol`.

use std::{path::PathBuf, sync::Arc};

use runtime::AnyCertificate;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

/// Why connections cannot be encrypted as asked.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file has no PEM of the right kind.
    #[error("read {}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The machine trusts nobody, and no other root was given.
    #[error("there are no root certificates to verify clients with")]
    Roots,
    /// Certificate and key do not belong together, or cannot be used.
    #[error("use the certificate")]
    Certificate(#[source] rustls::Error),
    /// The roots cannot be used.
    #[error("use the root certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// How others are connected to. By default with the machine's roots and without a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// Whoever answers is believed: nobody but somebody in between can tell.
    pub insecure_skip_verify: bool,
    /// File of those who sign the others' certificates, in place of those the machine trusts.
    pub root_ca_file: Option<PathBuf>,
    /// Files of a certificate to show, and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientOptions {
    /// What connects so.
    ///
    /// # Errors
    /// If a file cannot be read or used.
    pub(crate) fn connector(&self) -> Result<TlsConnector, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let any_certificate = AnyCertificate::new(&provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(any_certificate))
        } else {
            builder.with_root_certificates(roots(self.root_ca_file.as_ref())?)
        };
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, of)) => builder
                .with_client_auth_cert(certificates(certificate)?, key(of)?)
                .map_err(TlsError::Certificate)?,
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The certificates in a file.
pub(crate) fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let all = read().map_err(|source| TlsError::Pem { path: path.clone(), source })?;
    if all.is_empty() {
        let (path, source) = (path.clone(), pem::Error::NoItemsFound);
        return Err(TlsError::Pem { path, source });
    }
    Ok(all)
}

/// Who signs certificates: those in the file, or those the machine trusts.
pub(crate) fn roots(file: Option<&PathBuf>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let all = match file {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    // One that cannot be used vouches for nobody; the others still do.
    roots.add_parsable_certificates(all);
    Ok(roots)
}

/// The private key in a file.
pub(crate) fn key(path: &PathBuf) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|source| TlsError::Pem { path: path.clone(), source })
}
