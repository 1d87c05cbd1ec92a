//! Images from registries, and to them: the OCI distribution API, as a client.
//!
//! What comes is believed only as far as its digest goes. Every wait ends, every answer has a largest
//! size, and what came before a connection broke is not asked for again.

mod auth;
mod certificates;
mod download;
mod error;
mod keyring;
mod proxy;
mod pull;
mod push;
mod registries;
mod session;
mod transport;
mod user;

pub use error::{Error, Kind};
pub use keyring::{Credential, Keyring, KeyringError};
pub use proxy::{Proxies, ProxyError};
use registries::Endpoint;
pub use registries::{Registries, RegistriesError};
pub use transport::Patience;
use transport::Transport;
pub use user::{User, UserError};

use crate::Reference;

/// Speaks with registries. Cheap to clone; connections and resolved names are kept.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    registries: Registries,
}

impl Client {
    /// A client that knows of mirrors, insecure registries and proxies.
    ///
    /// # Errors
    ///
    /// [`Kind::Local`] if TLS cannot be set up.
    pub fn new(registries: Registries, proxies: Proxies, patience: Patience) -> Result<Self, Kind> {
        let transport = Transport::new(registries.certificates(), proxies, patience)?;
        Ok(Self { transport, registries })
    }
}

/// What to try at an endpoint: credentials that fit it, or none.
fn credentials(
    reference: &Reference,
    endpoint: &Endpoint,
    keyring: &Keyring,
) -> Vec<Option<Credential>> {
    // A mirror gets only what is meant for it.
    let there = format!("{}/{}", endpoint.host, endpoint.repository).parse();
    let found = match (endpoint.mirror, there) {
        (true, Ok(there)) => keyring.of(&there),
        (true, Err(_)) => Vec::new(),
        (false, _) => keyring.of(reference),
    };
    if found.is_empty() { vec![None] } else { found.into_iter().map(Some).collect() }
}

/// Adds to a refusal that credentials are where this program cannot get them.
fn hinted(error: Kind, reference: &Reference, keyring: &Keyring) -> Kind {
    match (error, keyring.helper(reference)) {
        (Kind::Unauthorized { registry, who, .. }, Some(helper)) => {
            let hint = format!(
                " (its credentials are kept by the helper `docker-credential-{helper}`, and helpers \
                 are not supported)"
            );
            Kind::Unauthorized { registry, who, hint }
        }
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests;
