//! Rules for who a pod's processes run as and what they may do.

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

/// Greatest user and group id.
const ID_MAX: i64 = i32::MAX as i64;

/// Checks `securityContext` of a pod.
pub(super) fn pod(context: &Value, path: Path<'_>, causes: &mut Causes) {
    ids(context, &["runAsUser", "runAsGroup", "fsGroup"], path, causes);
    let groups = path.child("supplementalGroups");
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        id(group, groups.index(index), causes);
    }
    let policies = ["Always", "OnRootMismatch"];
    if context.has("fsGroupChangePolicy") {
        rules::one_of(context, "fsGroupChangePolicy", &policies, path, causes);
    }
    seccomp(context.field("seccompProfile"), path.child("seccompProfile"), causes);
}

/// Checks what a pod with users of its own may have, and what only such a pod may.
pub(super) fn users(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let own = spec.field("hostUsers").as_bool() == Some(false);
    if own {
        // Kubernetes writes the paths so.
        for (field, shown) in
            [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if spec.flag(field) {
                causes.forbidden(path.child(shown), "when `hostUsers` is false");
            }
        }
    }
    for list in ["containers", "initContainers"] {
        let containers = path.child(list);
        for (index, container) in spec.items(list).iter().enumerate() {
            let path = containers.index(index);
            let context = container.field("securityContext");
            if !own && context.text("procMount") == "Unmasked" {
                let context_path = path.child("securityContext");
                let detail = "`hostUsers` must be false to use `Unmasked`";
                let mount = context.field("procMount");
                causes.invalid(context_path.child("procMount"), mount, detail);
            }
        }
    }
}

/// Checks `securityContext` of a container.
pub(super) fn container(context: &Value, path: Path<'_>, causes: &mut Causes) {
    ids(context, &["runAsUser", "runAsGroup"], path, causes);
    let escalation = context.field("allowPrivilegeEscalation").as_bool();
    if escalation == Some(false) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            causes.invalid(path, context, detail);
        }
        let added = context.field("capabilities").items("add");
        if added.iter().any(|it| it == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and \
                          `capabilities.Add` CAP_SYS_ADMIN";
            causes.invalid(path, context, detail);
        }
    }
    seccomp(context.field("seccompProfile"), path.child("seccompProfile"), causes);
}

fn ids(context: &Value, fields: &[&str], path: Path<'_>, causes: &mut Causes) {
    for field in fields.iter().filter(|it| context.has(it)) {
        id(context.field(field), path.child(field), causes);
    }
}

fn id(value: &Value, path: Path<'_>, causes: &mut Causes) {
    let number = value.as_i64().unwrap_or_default();
    rules::all(names::in_range(number, 0, ID_MAX), path, number, causes);
}

fn seccomp(profile: &Value, path: Path<'_>, causes: &mut Causes) {
    if profile.is_null() {
        return;
    }
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    rules::one_of(profile, "type", &types, path, causes);
    let (local, file) = (profile.text("type") == "Localhost", profile.has("localhostProfile"));
    if local && !file {
        let detail = "must be set when seccomp type is Localhost ";
        causes.required(path.child("localhostProfile"), detail);
    } else if !local && file {
        let detail = "can only be set when seccomp type is Localhost";
        causes.invalid(path.child("localhostProfile"), profile, detail);
    }
}
