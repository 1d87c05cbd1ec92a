//! Certificates of hosts, from the Secrets that Ingresses name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use client::Key;
use k8s_openapi::api::{
    core::v1::Secret,
    networking::v1::{Ingress, IngressTLS},
};
use rustls::sign::CertifiedKey;

use super::Problem;
use crate::tls::certified;

/// Reason of what is said about a Secret.
const NOT_USABLE: &str = "CertificateNotUsable";

/// The Secrets that Ingresses name.
pub(super) fn secrets(ingresses: &[Arc<Ingress>]) -> BTreeSet<Key> {
    ingresses.iter().flat_map(|it| tls(it).filter_map(|tls| key(it, tls))).collect()
}

/// Adds the certificates of an Ingress's hosts. A host that has one keeps it: who was first comes first.
pub(super) fn add(
    ingress: &Ingress,
    secrets: &BTreeMap<Key, Arc<Secret>>,
    certificates: &mut BTreeMap<String, Arc<CertifiedKey>>,
    problems: &mut Vec<Problem>,
) {
    for tls in tls(ingress) {
        let Some(key) = key(ingress, tls) else { continue };
        match read(&key, secrets.get(&key).map(AsRef::as_ref)) {
            Ok(certificate) => {
                let certificate = Arc::new(certificate);
                for host in hosts(ingress, tls) {
                    certificates.entry(host).or_insert_with(|| Arc::clone(&certificate));
                }
            }
            Err(why) => {
                let text = format!("{why}; the cluster's authority signs certificates instead");
                problems.push(Problem { reason: NOT_USABLE, text });
            }
        }
    }
}

fn tls(ingress: &Ingress) -> impl Iterator<Item = &IngressTLS> {
    ingress.spec.iter().flat_map(|it| it.tls.iter().flatten())
}

fn key(ingress: &Ingress, tls: &IngressTLS) -> Option<Key> {
    let name = tls.secret_name.clone().filter(|it| !it.is_empty())?;
    Some(Key { namespace: ingress.metadata.namespace.clone(), name })
}

/// Without hosts of its own, a certificate is for those of the rules.
fn hosts(ingress: &Ingress, tls: &IngressTLS) -> Vec<String> {
    let own: Vec<String> = tls.hosts.iter().flatten().cloned().collect();
    let rules = ingress.spec.iter().flat_map(|it| it.rules.iter().flatten());
    let hosts = if own.is_empty() { rules.filter_map(|it| it.host.clone()).collect() } else { own };
    hosts.iter().map(|it: &String| it.to_ascii_lowercase()).collect()
}

/// The certificate in a Secret, or for people why there is none.
pub(super) fn read(key: &Key, secret: Option<&Secret>) -> Result<CertifiedKey, String> {
    let secret = secret.ok_or_else(|| format!("Secret {key} does not exist"))?;
    let part = |name: &str| {
        let part = secret.data.as_ref().and_then(|it| it.get(name));
        part.map(|it| it.0.as_slice()).ok_or_else(|| format!("Secret {key} has no `{name}`"))
    };
    certified(part("tls.crt")?, part("tls.key")?)
        .map_err(|error| format!("Secret {key} is not usable: {error:#}"))
}
