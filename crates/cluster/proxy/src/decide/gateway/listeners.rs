//! Listeners of a Gateway: whether each can be served.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use api::gateway::{GROUP, Gateway, Listener, RouteKind, SecretRef};
use client::Key;
use rustls::sign::CertifiedKey;

use super::{
    super::{Problem, Seen, certificates},
    FoundListener, INVALID_ROUTE_KINDS,
    grants::{From, allows},
};

/// Why a listener's certificate cannot be used.
const INVALID_CERTIFICATE: &str = "InvalidCertificateRef";

/// A host and its certificate.
pub(super) type Certificate = (String, Arc<CertifiedKey>);

/// The Secrets that its listeners name.
pub(super) fn secrets(gateway: &Gateway) -> impl Iterator<Item = Key> {
    let tls = gateway.spec.listeners.iter().filter_map(|it| it.tls.as_ref());
    let references = tls.flat_map(|it| &it.certificate_refs).filter(|it| is_secret(it));
    references.map(|it| secret(gateway, it))
}

/// Why the Gateway cannot be at the addresses that it wants, if it wants some.
pub(super) fn address(gateway: &Gateway) -> Option<Problem> {
    gateway.spec.addresses.iter().find_map(|it| {
        let (kind, value) = (it.type_.as_deref().unwrap_or("IPAddress"), it.value.as_deref());
        match kind {
            "IPAddress" => {
                let address: Option<IpAddr> = value.unwrap_or("127.0.0.1").parse().ok();
                (!address.is_some_and(|it| it.is_loopback())).then(|| Problem {
                    reason: "AddressNotUsable",
                    text: format!("only 127.0.0.1 and ::1 are, not {}", value.unwrap_or_default()),
                })
            }
            _ => Some(Problem {
                reason: "UnsupportedAddress",
                text: format!("addresses of type {kind} are not supported, only IPAddress is"),
            }),
        }
    })
}

/// Reads all of a Gateway's listeners. `ports` says where TLS is spoken, and hears of more ports.
pub(super) fn read(
    gateway: &Gateway,
    seen: &Seen,
    taken: &BTreeSet<u16>,
    ports: &mut BTreeMap<u16, bool>,
) -> Vec<(FoundListener, Option<Certificate>)> {
    let all = gateway.spec.listeners.iter();
    all.map(|listener| {
        let mut found = FoundListener { name: listener.name.clone(), ..FoundListener::default() };
        found.port = u16::try_from(listener.port).unwrap_or_default();
        found.tls = listener.protocol == "HTTPS";
        found.nowhere = address(gateway).is_some();
        found.refused = refused(listener, taken);
        if matches!(listener.protocol.as_str(), "HTTP" | "HTTPS") {
            found.kinds = vec![http_route()];
        }
        if found.refused.is_none() {
            let tls = *ports.entry(found.port).or_insert(found.tls);
            if tls != found.tls {
                let spoken = if tls { "HTTPS" } else { "HTTP" };
                let text = format!("port {} is for {spoken}", found.port);
                found.conflict = Some(Problem { reason: "ProtocolConflict", text: text.clone() });
                found.refused = Some(Problem { reason: "PortUnavailable", text });
            }
        }
        let mut certificate = None;
        if found.tls {
            match of_listener(gateway, listener, seen) {
                Ok(it) => {
                    let host = listener.hostname.as_deref().unwrap_or_default();
                    certificate = Some((host.to_ascii_lowercase(), it));
                }
                Err(problem) => found.unresolved = Some(problem),
            }
        }
        kinds(listener, &mut found);
        (found, certificate)
    })
    .collect()
}

fn http_route() -> RouteKind {
    RouteKind { group: Some(GROUP.to_owned()), kind: "HTTPRoute".to_owned() }
}

fn refused(listener: &Listener, taken: &BTreeSet<u16>) -> Option<Problem> {
    let protocol = listener.protocol.as_str();
    if !matches!(protocol, "HTTP" | "HTTPS") {
        let text = format!("{protocol} is not supported, only HTTP and HTTPS are");
        return Some(Problem { reason: "UnsupportedProtocol", text });
    }
    let port = u16::try_from(listener.port).ok().filter(|it| !taken.contains(it));
    port.is_none().then(|| {
        let text = format!("a Service or a pod has port {} of this machine", listener.port);
        Problem { reason: "PortUnavailable", text }
    })
}

/// Leaves the kinds of routes that it wants; those that there are not are a problem.
fn kinds(listener: &Listener, found: &mut FoundListener) {
    let wanted = &listener.allowed_routes.kinds;
    if wanted.is_empty() {
        return;
    }
    let known =
        |it: &RouteKind| it.group.as_deref().unwrap_or(GROUP) == GROUP && it.kind == "HTTPRoute";
    if !wanted.iter().any(known) {
        found.kinds.clear();
    }
    if let Some(other) = wanted.iter().find(|it| !known(it)) {
        let text = format!("routes of kind {} are not supported, only HTTPRoutes are", other.kind);
        found.unresolved.get_or_insert(Problem { reason: INVALID_ROUTE_KINDS, text });
    }
}

/// The certificate of a listener: the first that it names. All must be good.
fn of_listener(
    gateway: &Gateway,
    listener: &Listener,
    seen: &Seen,
) -> Result<Arc<CertifiedKey>, Problem> {
    let invalid = |text: String| Problem { reason: INVALID_CERTIFICATE, text };
    let references = listener.tls.as_ref().map_or(&[][..], |it| &it.certificate_refs);
    let mut all = Vec::new();
    for reference in references {
        let SecretRef { kind, name, .. } = reference;
        if !is_secret(reference) {
            let kind = kind.as_deref().unwrap_or_default();
            let text =
                format!("a certificate that is {kind} {name} is not supported, only Secrets are");
            return Err(invalid(text));
        }
        let key = secret(gateway, reference);
        let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
        let from = From { kind: "Gateway", namespace };
        if !allows(seen, from, "Secret", key.namespace_or_empty(), name) {
            let text = format!("no ReferenceGrant lets this Gateway use Secret {key}");
            return Err(Problem { reason: "RefNotPermitted", text });
        }
        let read = certificates::read(&key, seen.secrets.get(&key).map(AsRef::as_ref));
        all.push(Arc::new(read.map_err(invalid)?));
    }
    let first = all.into_iter().next();
    first.ok_or_else(|| invalid("HTTPS needs a certificate, and none is named".to_owned()))
}

fn is_secret(reference: &SecretRef) -> bool {
    let group = reference.group.as_deref().unwrap_or_default();
    group.is_empty() && reference.kind.as_deref().is_none_or(|it| it == "Secret")
}

fn secret(gateway: &Gateway, reference: &SecretRef) -> Key {
    let own = || gateway.metadata.namespace.clone();
    Key { namespace: reference.namespace.clone().or_else(own), name: reference.name.clone() }
}
