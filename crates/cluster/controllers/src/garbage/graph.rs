//! Who depends on whom, by uid: what the caches know of owners, turned around.

use std::collections::{BTreeMap, BTreeSet};

use client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object of any kind; kinds are numbered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) kind: usize,
    pub(super) key: Key,
}

impl Node {
    /// The key by which the loop, which knows of one kind of keys only, refers to the object. No
    /// name contains a slash.
    pub(super) fn to_key(&self) -> Key {
        let name = format!("{}/{}", self.kind, self.key.name);
        Key { namespace: self.key.namespace.clone(), name }
    }

    /// The object that `key` refers to.
    pub(super) fn from_key(key: &Key) -> Option<Self> {
        let (kind, name) = key.name.split_once('/')?;
        let name = name.to_owned();
        Some(Self { kind: kind.parse().ok()?, key: Key { namespace: key.namespace.clone(), name } })
    }
}

/// The dependents of all objects that have some.
#[derive(Debug, Default)]
pub(super) struct Graph {
    dependents: BTreeMap<String, BTreeSet<Node>>,
}

impl Graph {
    /// `node` was `old` and is `new`.
    pub(super) fn update(
        &mut self,
        node: &Node,
        old: Option<&ObjectMeta>,
        new: Option<&ObjectMeta>,
    ) {
        if let Some(old) = old {
            for owner in owners(old) {
                if let Some(dependents) = self.dependents.get_mut(owner) {
                    dependents.remove(node);
                    if dependents.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
        }
        if let Some(new) = new {
            for owner in owners(new) {
                self.dependents.entry(owner.to_owned()).or_default().insert(node.clone());
            }
        }
    }

    /// The objects that name this one as their owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Node> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }
}

fn owners(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    meta.owner_references.iter().flatten().map(|it| it.uid.as_str())
}
