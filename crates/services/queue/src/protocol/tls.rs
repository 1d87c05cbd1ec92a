//! Encryption: what is asked of clients, and what is told of an encrypted connection.

use std::{io, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    clients::TlsStats,
    options::{ClientAuth, TlsOptions, TlsVersion},
};
use crate::tls::{ClientOptions, TlsError, certificates, key, roots};

/// What accepts encrypted connections.
///
/// # Errors
/// If a file cannot be read or used.
pub(super) fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = match options.min_version {
        TlsVersion::V12 => &[&TLS13, &TLS12],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(TlsError::Certificate)?;
    let builder = match options.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Require => builder.with_client_cert_verifier(Arc::new(Anyone { provider })),
        ClientAuth::RequireVerify => {
            let roots = roots(options.root_ca_file.as_ref())?;
            if roots.is_empty() {
                return Err(TlsError::Roots);
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.build();
            builder.with_client_cert_verifier(verifier.map_err(TlsError::Verifier)?)
        }
    };
    let chain = certificates(&options.cert)?;
    let config =
        builder.with_single_cert(chain, key(&options.key)?).map_err(TlsError::Certificate)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What connects to auth servers that want it encrypted. Roots are looked for only when there is
/// somebody to connect to.
///
/// # Errors
/// If the file of roots cannot be read.
pub(super) fn connector(options: Option<&TlsOptions>) -> Result<TlsConnector, TlsError> {
    let root_ca_file = options.and_then(|it| it.root_ca_file.clone());
    ClientOptions { root_ca_file, ..ClientOptions::default() }.connector()
}

/// Accepts any certificate whose key the client has, whoever signed it: the policy `require`.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is told of a connection.
pub(super) fn stats(connection: &ServerConnection) -> TlsStats {
    let suite = connection.negotiated_cipher_suite();
    // The name in the standard: rustls tells versions apart in the name, too.
    let suite = suite.and_then(|it| it.suite().as_str()).unwrap_or_default();
    TlsStats {
        cipher_suite: suite.replacen("TLS13_", "TLS_", 1),
        version: match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS1.3",
            _ => "TLS1.2",
        },
    }
}

/// The common name of the certificate that the client showed; empty if there is none.
pub(super) fn common_name(connection: &ServerConnection) -> String {
    let shown = connection.peer_certificates().and_then(|it| it.first());
    shown.and_then(|it| subject_common_name(it)).unwrap_or_default()
}

/// A failed handshake as an error of the connection.
pub(super) fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")
}

/// The last common name in the subject of a certificate (RFC 5280, 4.1). The certificate has been
/// parsed by rustls before, so that this is only looking it up.
fn subject_common_name(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const VERSION: u8 = 0xa0;
    const OBJECT_ID: u8 = 0x06;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let (_, certificate, _) = element(certificate).filter(|it| it.0 == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|it| it.0 == SEQUENCE)?;
    if let Some((VERSION, _, rest)) = element(fields) {
        fields = rest;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        fields = element(fields)?.2;
    }
    let (_, mut names, _) = element(fields)?;
    let mut found = None;
    while let Some((SET, mut parts, rest)) = element(names) {
        names = rest;
        while let Some((SEQUENCE, pair, rest)) = element(parts) {
            parts = rest;
            if let Some((OBJECT_ID, COMMON_NAME, value)) = element(pair) {
                let (_, text, _) = element(value)?;
                found = Some(String::from_utf8_lossy(text).into_owned());
            }
        }
    }
    found
}

/// The first element of DER: its tag, what is in it, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if 0x80 <= first {
        let digits = usize::from(first & 0x7f);
        let (number, after) =
            rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
        length = number.iter().fold(0, |sum, &it| sum << 8 | usize::from(it));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn finds_the_common_name() {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "Org");
        params.distinguished_name.push(DnType::CommonName, "test.local");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(subject_common_name(certificate.der()).as_deref(), Some("test.local"));
    }

    #[test]
    fn any_bytes_are_no_certificate() {
        proptest::proptest!(|(der: Vec<u8>)| drop(subject_common_name(&der)));
    }
}
