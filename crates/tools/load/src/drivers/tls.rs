//! Certificates: which are believed, which is shown. Opens no connection.

use std::{path::PathBuf, sync::Arc};

use runtime::AnyCertificate;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
};

use crate::plan::{Protocol, Transport, Trust};

/// ALPN's name of HTTP/2.
pub(crate) const H2: &[u8] = b"h2";
/// ALPN's name of HTTP/1.1.
const HTTP1: &[u8] = b"http/1.1";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is not PEM.
    #[error("read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file has no certificate in it.
    #[error("`{path}` has no certificate")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// The system's certificates cannot be read, and none were given.
    #[error("the system has no certificates to believe in: {reason}; give --ca FILE or --insecure")]
    NoRoots {
        /// What was found instead.
        reason: String,
    },
    /// A certificate or key is not what it says.
    #[error("use the certificates")]
    Unusable(#[from] rustls::Error),
}

/// Whether files are named, so that what is wrong with them can be said before anything else.
pub(crate) fn is_named(transport: &Transport) -> bool {
    transport.identity.is_some() || matches!(transport.trust, Trust::File(_))
}

/// What TLS connections are made with.
pub(crate) fn config(transport: &Transport) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let any_certificate = AnyCertificate::new(&provider);
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &transport.trust {
        Trust::System => builder.with_root_certificates(system()?),
        Trust::File(path) => builder.with_root_certificates(roots(path)?),
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(any_certificate))
        }
    };
    let mut config = match &transport.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_file(&identity.key)
                .map_err(|source| Error::Read { path: identity.key.clone(), source })?;
            builder.with_client_auth_cert(certificates(&identity.certificate)?, key)?
        }
    };
    config.alpn_protocols = match transport.protocol {
        Protocol::Http1 => vec![HTTP1.to_vec()],
        Protocol::Http2 => vec![H2.to_vec()],
    };
    Ok(Arc::new(config))
}

/// A host as certificates name it.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(host.to_owned())
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = |source| Error::Read { path: path.clone(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    if found.is_empty() { Err(Error::Empty { path: path.clone() }) } else { Ok(found) }
}

fn roots(path: &PathBuf) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

fn system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        let reason =
            found.errors.first().map_or_else(|| "none found".to_owned(), |it| it.to_string());
        return Err(Error::NoRoots { reason });
    }
    Ok(store)
}
