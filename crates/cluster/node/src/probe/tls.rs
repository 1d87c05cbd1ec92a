//! TLS for `scheme: HTTPS` probes. As with the kubelet, the certificate is not checked: it is made
//! for the service's name, and a probe goes to the pod's address.

use std::sync::Arc;

use runtime::AnyCertificate;
use rustls::{
    ClientConfig,
    crypto::ring,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("`{0}` is no name for TLS")]
    Name(String, #[source] InvalidDnsNameError),
    #[error("no TLS version in common with the library")]
    Versions(#[source] rustls::Error),
    #[error("{0}")]
    Handshake(std::io::Error),
}

/// Speaks TLS on `socket`.
pub(super) async fn connect(
    host: &str,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate::new(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TlsError::Name(host.to_owned(), error))?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, socket).await.map_err(TlsError::Handshake)
}
