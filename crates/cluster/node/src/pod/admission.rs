//! Which pods the node turns away for good, before anything of them is made: pure, in the kubelet's words.
//! <https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>

use k8s_openapi::api::core::v1::Pod;
use shim::SysctlScope;

use crate::context::is_on_host;

/// Why a pod never runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One word, for the status and the Event.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) message: String,
}

/// Why this pod never runs here, if it does not.
///
/// Only parameters of a pod's own namespaces can be set, and all of those, as with a kubelet that is told
/// to allow them: what they change is the pod's alone.
pub(super) fn refusal(pod: &Pod) -> Option<Refusal> {
    let spec = pod.spec.as_ref()?;
    let wanted = spec.security_context.as_ref()?.sysctls.as_deref()?;
    let host_ipc = spec.host_ipc == Some(true);
    let why = wanted.iter().find_map(|it| {
        let name = &it.name;
        match shim::sysctl_scope(name) {
            None => Some(format!("\"{name}\" not allowlisted")),
            Some(SysctlScope::Net) if is_on_host(pod) => {
                Some(format!("\"{name}\" not allowed with host net enabled"))
            }
            Some(SysctlScope::Ipc) if host_ipc => {
                Some(format!("\"{name}\" not allowed with host ipc enabled"))
            }
            Some(SysctlScope::Net | SysctlScope::Ipc) => None,
        }
    })?;
    Some(Refusal { reason: "SysctlForbidden", message: format!("forbidden sysctl: {why}") })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(name: &str, fields: &Value, expected: Expect) {
        let mut spec = json!({ "containers": [],
            "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let refused = refusal(&pod).map(|it| format!("{}: {}", it.reason, it.message));
        expected.assert_eq(&refused.unwrap_or_default());
    }

    #[test]
    fn only_the_pods_own_parameters_are_set() {
        let plain = json!({});
        check("net.core.somaxconn", &plain, expect![""]);
        check("kernel.shm_rmid_forced", &plain, expect![""]);
        check(
            "vm.swappiness",
            &plain,
            expect![[r#"SysctlForbidden: forbidden sysctl: "vm.swappiness" not allowlisted"#]],
        );
        check(
            "net.core.somaxconn",
            &json!({ "hostNetwork": true }),
            expect![[
                r#"SysctlForbidden: forbidden sysctl: "net.core.somaxconn" not allowed with host net enabled"#
            ]],
        );
        check(
            "kernel.msgmax",
            &json!({ "hostIPC": true }),
            expect![[
                r#"SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowed with host ipc enabled"#
            ]],
        );
    }
}
