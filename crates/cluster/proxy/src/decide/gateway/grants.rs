//! References to objects of other namespaces: allowed are those that a ReferenceGrant there allows.

use api::gateway::GROUP;

use super::Seen;

/// An object that names one of another namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub(super) kind: &'static str,
    pub(super) namespace: &'a str,
}

/// Whether `from` may name the object of the core group; what is in its own namespace it always may.
pub(super) fn allows(seen: &Seen, from: From<'_>, kind: &str, namespace: &str, name: &str) -> bool {
    if from.namespace == namespace {
        return true;
    }
    let there = |it: &&std::sync::Arc<api::gateway::ReferenceGrant>| {
        it.metadata.namespace.as_deref() == Some(namespace)
    };
    seen.grants.iter().filter(there).any(|grant| {
        let of =
            grant.spec.from.iter().any(|it| {
                it.group == GROUP && it.kind == from.kind && it.namespace == from.namespace
            });
        let to = grant.spec.to.iter().any(|it| {
            it.group.is_empty() && it.kind == kind && it.name.as_deref().is_none_or(|it| it == name)
        });
        of && to
    })
}
