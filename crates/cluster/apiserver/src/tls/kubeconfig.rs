//! The kubeconfig of the administrator, with everything embedded.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::pki::Pki;

/// The file for cluster `name` at `server_url`. It holds the administrator's private key.
pub(crate) fn text(pki: &Pki, name: &str, server_url: &str) -> String {
    let encode = |it: &str| BASE64_STANDARD.encode(it);
    let authority = encode(&pki.authority.certificate);
    let (certificate, key) = (encode(&pki.admin.certificate), encode(pki.admin.key_pem()));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         current-context: {name}\n\
         preferences: {{}}\n\
         clusters:\n\
         - name: {name}\n  \
           cluster:\n    \
             server: {server_url}\n    \
             certificate-authority-data: {authority}\n\
         contexts:\n\
         - name: {name}\n  \
           context:\n    \
             cluster: {name}\n    \
             user: {name}-admin\n\
         users:\n\
         - name: {name}-admin\n  \
           user:\n    \
             client-certificate-data: {certificate}\n    \
             client-key-data: {key}\n"
    )
}
