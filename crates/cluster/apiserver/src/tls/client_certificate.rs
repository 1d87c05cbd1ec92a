//! Authentication by client certificate.
//!
//! A certificate that is not ours must be answered with 401, not with a broken handshake, so that
//! the handshake takes any certificate whose key the client has, and who signed it is checked
//! afterwards. Go's server does the same (`tls.RequestClientCert`).

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::der;
use crate::identity::Identity;

/// Checks signatures in the handshake, and issuers when asked.
#[derive(Debug)]
pub(crate) struct Verifier {
    strict: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// Trusts what `authority` signed.
    pub(crate) fn new(authority: CertificateDer<'static>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { strict })
    }

    /// Who presented this chain.
    pub(crate) fn identify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Identity {
        let Some((own, intermediates)) = chain.split_first() else { return Identity::anonymous() };
        if let Err(error) = self.strict.verify_client_cert(own, intermediates, now) {
            tracing::debug!(%error, "client certificate is not trusted");
            return Identity::anonymous();
        }
        match der::certificate(own) {
            Some(it) => Identity::user(it.common_name, it.organizations),
            None => Identity::anonymous(),
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ParsedCertificate::try_from(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
