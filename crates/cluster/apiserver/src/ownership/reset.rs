//! Fields that a write cannot change, because the kind takes their old value: nobody comes to own
//! them by it.

use super::set::Set;
use crate::kinds::{Kind, Subresource};

/// Parts of metadata that a write to `/status` leaves alone: group, kind, paths. Of Kubernetes'
/// strategies (`GetResetFields`).
const BY_STATUS: &[(&str, &str, &[&[&str]])] = &[
    ("", "Pod", &[&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
    ("apps", "Deployment", &[&["metadata", "labels"]]),
    ("apiextensions.k8s.io", "CustomResourceDefinition", &[&["metadata"]]),
    ("apiregistration.k8s.io", "APIService", &[&["metadata"]]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &[&["metadata"]]),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", &[&["metadata"]]),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", &[&["metadata"]]),
    ("storage.k8s.io", "VolumeAttachment", &[&["metadata"]]),
];

/// What a write to the object, or to one of its subresources, leaves alone.
pub(super) fn fields(kind: &Kind, subresource: Option<Subresource>) -> Set<'static> {
    match subresource {
        Some(Subresource::Status) => {}
        None | Some(Subresource::Finalize) if kind.subresources.contains(&Subresource::Status) => {
            return Set::of(&["status"]);
        }
        // What another part takes back is done before anybody comes to own it.
        _ => return Set::default(),
    }
    let own = BY_STATUS.iter().find(|it| (it.0, it.1) == (kind.group, kind.kind));
    let paths = own.map(|it| it.2).unwrap_or_default();
    paths.iter().fold(Set::of(&["spec"]), |set, path| set.union(Set::of(path)))
}

/// What has no owner at all.
pub(super) fn unowned() -> Set<'static> {
    let metadata = [
        "creationTimestamp",
        "clusterName",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let roots = ["apiVersion", "kind", "metadata"].map(|it| Set::of(&[it]));
    let below = metadata.map(|it| Set::of(&["metadata", it]));
    roots.into_iter().chain(below).fold(Set::default(), Set::union)
}
