//! TLS for `scheme: HTTPS` probes. As with the kubelet, the certificate is not checked: it is made
//! for the service's name, and a probe goes to the pod's address.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime},
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
    let signatures = provider.signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(signatures)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| TlsError::Name(host.to_owned(), error))?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, socket).await.map_err(TlsError::Handshake)
}

#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
