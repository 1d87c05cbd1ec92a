//! Certificates for clients: those of Secrets by the host that is asked for, and for other hosts that are
//! served some that the cluster's authority signs, made when they are first asked for. Their keys are in
//! memory only.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::{limits::CERTIFICATES_MAX, table::Table};

/// Signs certificates as the cluster does.
pub trait Authority: fmt::Debug + Send + Sync {
    /// A new certificate for servers at `hosts`, and its key, both in PEM.
    ///
    /// # Errors
    /// One of the hosts cannot be in a certificate.
    fn sign_for(&self, hosts: &[String]) -> anyhow::Result<(String, String)>;
}

/// What clients are shown that ask for no name, or for one that is not served: with it they get an answer
/// that says so.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Chooses the certificate of a connection.
#[derive(Debug)]
pub(crate) struct Certificates {
    table: watch::Receiver<Arc<Table>>,
    authority: Arc<dyn Authority>,
    made: Mutex<BTreeMap<String, Arc<CertifiedKey>>>,
}

impl Certificates {
    pub(crate) fn new(
        table: watch::Receiver<Arc<Table>>,
        authority: Arc<dyn Authority>,
    ) -> Arc<Self> {
        Arc::new(Self { table, authority, made: Mutex::default() })
    }

    fn of(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let table = Arc::clone(&self.table.borrow());
        if let Some(certificate) = table.certificate(&name) {
            return Some(Arc::clone(certificate));
        }
        let served = name.ends_with(".localhost") || table.serves(&name);
        let name = if served { name } else { OWN_NAMES.first().copied()?.to_owned() };
        match self.made(&name) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(host = name, error, "no certificate made");
                None
            }
        }
    }

    fn made(&self, name: &str) -> anyhow::Result<Arc<CertifiedKey>> {
        // A poisoned lock is taken as it is: an insertion is all that happens under it.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificate) = made.get(name) {
            return Ok(Arc::clone(certificate));
        }
        let hosts: Vec<String> = match OWN_NAMES.contains(&name) {
            true => OWN_NAMES.map(str::to_owned).to_vec(),
            false => vec![name.to_owned()],
        };
        let (certificate, key) = self.authority.sign_for(&hosts)?;
        let certificate = Arc::new(certified(certificate.as_bytes(), key.as_bytes())?);
        // Names below `localhost` are anybody's to invent.
        if CERTIFICATES_MAX <= made.len() {
            made.clear();
        }
        made.insert(name.to_owned(), Arc::clone(&certificate));
        Ok(certificate)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.of(hello.server_name())
    }
}

/// A chain and its key, of PEM.
pub(crate) fn certified(chain: &[u8], key: &[u8]) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("the certificate is not PEM")?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(key).context("there is no private key in PEM")?;
    let key = any_supported_type(&key).context("the private key is of an unknown kind")?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().context("the private key is not the certificate's")?;
    Ok(certified)
}

/// TLS with these certificates; HTTP/2 if the client knows it.
pub(crate) fn acceptor(certificates: Arc<Certificates>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
