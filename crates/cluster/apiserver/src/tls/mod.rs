//! HTTPS: certificates, client certificates, connections.

pub(crate) mod client_certificate;
mod der;
pub(crate) mod kubeconfig;
pub(crate) mod listener;
pub(crate) mod pki;
