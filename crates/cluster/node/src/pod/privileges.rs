//! What a container of an image may do, from the security contexts of its pod and itself: pure, in
//! the kubelet's rules and words.
//! <https://kubernetes.io/docs/tasks/configure-pod-container/security-context/>
//!
//! Says what is wanted; how it comes about is the launch's and the shim's business.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};

/// What root in a container may do unless it says otherwise: containerd's default set.
pub(crate) const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability of Linux 6.x, see capabilities(7), without `CAP_`, in the order of their numbers.
pub(crate) const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a field of the API, and none excludes another"
)]
pub(crate) struct Privileges {
    /// `runAsUser`; `None` is the image's user.
    pub(crate) user: Option<u32>,
    /// `runAsGroup`; `None` is that of the user.
    pub(crate) group: Option<u32>,
    /// `supplementalGroups` and `fsGroup`.
    pub(crate) groups: Vec<u32>,
    /// Whether groups that the image gives the user count as well (`supplementalGroupsPolicy`).
    pub(crate) image_groups: bool,
    /// Without `CAP_`.
    pub(crate) capabilities: BTreeSet<&'static str>,
    pub(crate) privileged: bool,
    pub(crate) read_only_root: bool,
    pub(crate) no_new_privileges: bool,
    /// Whether parts of /proc are hidden or cannot be written (`procMount: Default`).
    pub(crate) masks_proc: bool,
    pub(crate) seccomp: Profile,
    pub(crate) apparmor: Profile,
}

/// Which profile of seccomp or AppArmor applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The one of container runtimes. Also without any word of it: a kubelet's `--seccomp-default`.
    Default,
    /// None.
    Unconfined,
    /// This one of the machine.
    Localhost(String),
}

/// The privileges of a container, or why it cannot be configured. `image_user` is the user of the
/// image's configuration.
pub(crate) fn privileges(
    pod: &Pod,
    container: &Container,
    image_user: &str,
) -> Result<Privileges, String> {
    let empty = (PodSecurityContext::default(), SecurityContext::default());
    let spec = pod.spec.as_ref();
    let of_pod = spec.and_then(|it| it.security_context.as_ref()).unwrap_or(&empty.0);
    let own = container.security_context.as_ref().unwrap_or(&empty.1);
    let user = own.run_as_user.or(of_pod.run_as_user);
    let privileged = own.privileged == Some(true);
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        verify_non_root(pod, container, user, image_user)?;
    }
    let capabilities = if privileged { ALL_CAPABILITIES.into() } else { capabilities(own)? };
    let groups = of_pod.supplemental_groups.iter().flatten().chain(&of_pod.fs_group);
    let number =
        |it: i64| u32::try_from(it).map_err(|_| format!("{it} is no id of a user or group"));
    Ok(Privileges {
        user: user.map(number).transpose()?,
        group: own.run_as_group.or(of_pod.run_as_group).map(number).transpose()?,
        groups: groups.copied().map(number).collect::<Result<_, _>>()?,
        image_groups: of_pod.supplemental_groups_policy.as_deref() != Some("Strict"),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        capabilities,
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        masks_proc: !privileged && own.proc_mount.as_deref() != Some("Unmasked"),
        seccomp: seccomp(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            privileged,
        ),
        apparmor: apparmor(
            own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref()),
            privileged,
        ),
    })
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> Profile {
    let named = profile.map(|it| (it.type_.as_str(), it.localhost_profile.clone()));
    choose(named, privileged)
}

fn apparmor(profile: Option<&AppArmorProfile>, privileged: bool) -> Profile {
    let named = profile.map(|it| (it.type_.as_str(), it.localhost_profile.clone()));
    choose(named, privileged)
}

fn choose(profile: Option<(&str, Option<String>)>, privileged: bool) -> Profile {
    match profile {
        // Container runtimes confine no privileged container.
        _ if privileged => Profile::Unconfined,
        Some(("Unconfined", _)) => Profile::Unconfined,
        Some(("Localhost", name)) => Profile::Localhost(name.unwrap_or_default()),
        Some(_) | None => Profile::Default,
    }
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    user: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let metadata = &pod.metadata;
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let pod =
        format!("{}_{}({})", text(&metadata.name), text(&metadata.namespace), text(&metadata.uid));
    let whom = format!("(pod: \"{pod}\", container: {})", container.name);
    let image_user = image_user.split(':').next().unwrap_or_default();
    match (user, image_user.parse::<u32>()) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {whom}")),
        (Some(_), _) => Ok(()),
        (None, Ok(0)) => {
            Err(format!("container has runAsNonRoot and image will run as root {whom}"))
        }
        (None, Ok(_)) => Ok(()),
        (None, Err(_)) if image_user.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {whom}"))
        }
        (None, Err(_)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify \
             user is non-root {whom}"
        )),
    }
}

/// The default set, with what is added and without what is dropped: first dropped, then added, as in
/// container runtimes, and `ALL` before single ones.
fn capabilities(own: &SecurityContext) -> Result<BTreeSet<&'static str>, String> {
    let mut set = BTreeSet::from(CAPABILITIES);
    let Some(changes) = &own.capabilities else { return Ok(set) };
    let add = changes.add.as_deref().unwrap_or_default();
    let dropped = changes.drop.as_deref().unwrap_or_default();
    let all = |list: &[String]| list.iter().any(|it| it.eq_ignore_ascii_case("ALL"));
    if all(add) {
        set = ALL_CAPABILITIES.into();
    }
    if all(dropped) {
        set.clear();
    }
    for (list, added) in [(add, true), (dropped, false)] {
        for name in list.iter().filter(|it| !it.eq_ignore_ascii_case("ALL")) {
            let upper = name.to_ascii_uppercase();
            let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
            let known = ALL_CAPABILITIES.iter().find(|it| **it == plain);
            match (known, added) {
                (Some(known), true) => {
                    set.insert(known);
                }
                (Some(known), false) => {
                    set.remove(known);
                }
                (None, true) => return Err(format!("unknown capability \"{name}\" to add")),
                // What does not exist cannot be had.
                (None, false) => {}
            }
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(of_pod: &Value, own: &Value, image_user: &str, expected: &Expect) {
        let pod = json!({ "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
            "spec": { "securityContext": of_pod, "containers": [] } });
        let container = json!({ "name": "c", "securityContext": own });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let text = match privileges(&pod, &container, image_user) {
            Ok(it) => {
                let capabilities = it.capabilities.iter().copied().collect::<Vec<_>>().join(" ");
                let Privileges { user, group, groups, seccomp, .. } = &it;
                format!(
                    "{user:?} {group:?} {groups:?} {seccomp:?} no_new={} ro={}\n{capabilities}\n",
                    it.no_new_privileges, it.read_only_root
                )
            }
            Err(error) => format!("{error}\n"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn container_goes_before_pod() {
        check(
            &json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 5, "supplementalGroups": [3, 4] }),
            &json!({ "runAsUser": 9, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } }),
            "",
            &expect![[r#"
                Some(9) Some(2) [3, 4, 5] Default no_new=true ro=true

            "#]],
        );
    }

    #[test]
    fn capabilities_are_dropped_and_added() {
        let drop = json!({ "capabilities": { "drop": ["all"], "add": ["NET_BIND_SERVICE"] } });
        check(
            &json!({}),
            &drop,
            "",
            &expect![[r#"
                None None [] Default no_new=false ro=false
                NET_BIND_SERVICE
            "#]],
        );
        check(
            &json!({}),
            &json!({ "capabilities": { "drop": ["CAP_MKNOD", "KILL"], "add": ["cap_sys_time"] } }),
            "",
            &expect![[r#"
                None None [] Default no_new=false ro=false
                AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT SYS_TIME
            "#]],
        );
        check(
            &json!({}),
            &json!({ "capabilities": { "add": ["FLY"] } }),
            "",
            &expect![[r#"
                unknown capability "FLY" to add
            "#]],
        );
    }

    #[test]
    fn non_root_is_verified() {
        let policy = json!({ "runAsNonRoot": true });
        let of = |own: Value, image_user: &str, expected: Expect| {
            check(&policy, &own, image_user, &expected);
        };
        of(
            json!({ "runAsUser": 0 }),
            "",
            expect![[r#"
            container's runAsUser breaks non-root policy (pod: "web_shop(u)", container: c)
        "#]],
        );
        of(
            json!({}),
            "",
            expect![[r#"
            container has runAsNonRoot and image will run as root (pod: "web_shop(u)", container: c)
        "#]],
        );
        of(
            json!({}),
            "0:5",
            expect![[r#"
            container has runAsNonRoot and image will run as root (pod: "web_shop(u)", container: c)
        "#]],
        );
        of(
            json!({}),
            "www",
            expect![[r#"
            container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: "web_shop(u)", container: c)
        "#]],
        );
        of(
            json!({ "capabilities": { "drop": ["ALL"] } }),
            "101",
            expect![[r#"
            None None [] Default no_new=false ro=false

        "#]],
        );
    }

    #[test]
    fn privileged_is_not_confined() {
        let pod =
            json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "a.json" } });
        let own = json!({ "capabilities": { "drop": ["ALL"] } });
        check(
            &pod,
            &own,
            "",
            &expect![[r#"
            None None [] Localhost("a.json") no_new=false ro=false

        "#]],
        );
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [],
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } } }))
        .unwrap();
        let container = json!({ "name": "c", "securityContext": { "privileged": true } });
        let container: Container = serde_json::from_value(container).unwrap();
        let it = privileges(&pod, &container, "").unwrap();
        assert_eq!(it.seccomp, Profile::Unconfined);
        assert_eq!(it.capabilities.len(), ALL_CAPABILITIES.len());
        assert!(!it.masks_proc);
    }
}
