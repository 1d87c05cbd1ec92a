//! Keys of objects in the store: `/registry/GROUP/RESOURCE/NAMESPACE/NAME`, `core` for the core
//! group, an empty namespace for objects without one.

use bytes::Bytes;

use crate::kinds::Kind;

/// The key of an object.
pub(crate) fn object(kind: &Kind, namespace: &str, name: &str) -> Bytes {
    let mut key = collection(kind, Some(namespace));
    key.extend_from_slice(name.as_bytes());
    key.into()
}

/// The prefix of all objects of a kind, or of those in one namespace.
pub(crate) fn collection(kind: &Kind, namespace: Option<&str>) -> Vec<u8> {
    let kind = kind.stored();
    let group = if kind.group.is_empty() { "core" } else { kind.group };
    let mut key = Vec::with_capacity(96);
    for part in ["/registry/", group, "/", kind.plural, "/"] {
        key.extend_from_slice(part.as_bytes());
    }
    // An object without a namespace has `//` in its key, so that both lengths of path differ.
    if let Some(namespace) = namespace.or(if kind.namespaced { None } else { Some("") }) {
        key.extend_from_slice(namespace.as_bytes());
        key.push(b'/');
    }
    key
}

/// Namespace and name of the object at `key`.
pub(crate) fn namespace_and_name(key: &[u8]) -> (&str, &str) {
    let key = std::str::from_utf8(key).unwrap_or_default();
    let (rest, name) = key.rsplit_once('/').unwrap_or_default();
    let (_, namespace) = rest.rsplit_once('/').unwrap_or_default();
    (namespace, name)
}

/// The key of a namespace; `None` for the empty name, which no namespace has.
pub(crate) fn namespace(name: &str) -> Option<Bytes> {
    let kind = crate::kinds::KINDS.iter().find(|it| (it.group, it.kind) == ("", "Namespace"))?;
    if name.is_empty() { None } else { Some(object(kind, "", name)) }
}
