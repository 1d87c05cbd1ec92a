//! Who owns an object: controller references, adoption and release, the same for all controllers
//! that own objects by selector.

use api::selector::LabelSelector;
use client::{Api, Client, Key, Patch, PatchParams, Resource};
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The one owner that manages the object, if any.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|it| it.controller == Some(true))
}

/// Whether the object is managed by the owner with this uid.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    controller_of(meta).is_some_and(|it| Some(it.uid.as_str()) == uid)
}

/// Whether somebody has asked for the object's deletion.
pub(crate) const fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// The reference by which `owner` manages an object; it goes with its owner.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an object is to an owner that selects by labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Managed by the owner, and selected.
    Owned,
    /// Selected and without a manager: the owner may take it.
    Adoptable,
    /// Managed by the owner but no longer selected: the owner must let it go.
    Releasable,
    /// No business of the owner.
    Foreign,
}

/// Judges `object` for `owner`, as `ControllerRefManager` of kube-controller-manager does.
pub(crate) fn claim(owner: &ObjectMeta, selector: &LabelSelector, object: &ObjectMeta) -> Claim {
    let selected = object.labels.as_ref().is_some_and(|it| selector.matches(it));
    match controller_of(object) {
        Some(it) if Some(&it.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if selected => Claim::Owned,
        Some(_) if is_deleting(owner) || is_deleting(object) => Claim::Foreign,
        Some(_) => Claim::Releasable,
        None if !selected || is_deleting(owner) || is_deleting(object) => Claim::Foreign,
        None => Claim::Adoptable,
    }
}

/// A kind with a namespace, known at compile time.
pub(crate) trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone
{
}

/// Makes `owner` the manager of `object`. Asks the server first whether the owner is still there
/// and still wanted, since what the cache says of it may be old.
pub(crate) async fn adopt<O, K>(client: &Client, owner: &O, object: &K) -> anyhow::Result<()>
where
    O: Namespaced + std::fmt::Debug,
    K: Namespaced + std::fmt::Debug,
{
    let owners: Api<O> = api_of(client, owner);
    let live = owners.get(owner.meta().name.as_deref().unwrap_or_default()).await?;
    if live.meta().uid != owner.meta().uid || is_deleting(live.meta()) {
        anyhow::bail!("owner `{}` is gone or going", Key::of(owner));
    }
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.push(controller_reference(owner));
    write_references(client, object, &references).await
}

/// Ends the management of `object` by the owner with `uid`.
pub(crate) async fn release<K>(client: &Client, uid: Option<&str>, object: &K) -> anyhow::Result<()>
where
    K: Namespaced + std::fmt::Debug,
{
    let mut references = object.meta().owner_references.clone().unwrap_or_default();
    references.retain(|it| Some(it.uid.as_str()) != uid);
    write_references(client, object, &references).await
}

async fn write_references<K>(
    client: &Client,
    object: &K,
    references: &[OwnerReference],
) -> anyhow::Result<()>
where
    K: Namespaced + std::fmt::Debug,
{
    let patch = json!({"metadata": {
        "resourceVersion": object.meta().resource_version,
        "ownerReferences": references,
    }});
    let name = object.meta().name.as_deref().unwrap_or_default();
    let objects: Api<K> = api_of(client, object);
    objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The API of the namespace that `object` is in.
pub(crate) fn api_of<O: Resource, K: Namespaced>(client: &Client, object: &O) -> Api<K> {
    Api::namespaced(client.clone(), object.meta().namespace.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn meta(controller: Option<&str>, label: &str) -> ObjectMeta {
        let reference = |uid: &str| OwnerReference {
            uid: uid.to_owned(),
            controller: Some(true),
            ..Default::default()
        };
        ObjectMeta {
            labels: Some(BTreeMap::from([("app".to_owned(), label.to_owned())])),
            owner_references: controller.map(|it| vec![reference(it)]),
            ..Default::default()
        }
    }

    #[test]
    fn claims_as_kubernetes_does() {
        let owner = ObjectMeta { uid: Some("o".to_owned()), ..Default::default() };
        let mut going = owner.clone();
        going.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let selector = LabelSelector::parse("app=web").unwrap();
        for (owner, controller, label, expected) in [
            (&owner, Some("o"), "web", Claim::Owned),
            (&owner, Some("o"), "db", Claim::Releasable),
            (&owner, Some("other"), "web", Claim::Foreign),
            (&owner, None, "web", Claim::Adoptable),
            (&owner, None, "db", Claim::Foreign),
            (&going, None, "web", Claim::Foreign),
            (&going, Some("o"), "db", Claim::Foreign),
            (&going, Some("o"), "web", Claim::Owned),
        ] {
            assert_eq!(claim(owner, &selector, &meta(controller, label)), expected);
        }
    }
}
