//! What containers and pods get of the machine, by the kubelet's formulas. Pure.
//! <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    pod::{
        qos,
        seen::{Role, containers},
    },
    quantity,
};

/// Bounds and scale of `cpu.shares` (version 1), as the kernel and the kubelet have them.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;

/// The kernel's default period in which a quota of CPU time counts, in microseconds.
pub(crate) const PERIOD: u64 = 100_000;
/// The least quota that the kernel takes.
const QUOTA_MIN: u64 = 1000;

/// `oom_score_adj` of pods that are to be killed last, and first.
const OOM_GUARANTEED: i32 = -997;
const OOM_BEST_EFFORT: i32 = 1000;

/// Pods of at least this priority are as if guaranteed: `system-node-critical`.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// What is asked for, in thousandths of a CPU and in bytes. 0 is nothing, as in the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_request: u64,
    pub(crate) memory_request: u64,
    pub(crate) cpu_limit: u64,
    pub(crate) memory_limit: u64,
}

impl Amounts {
    /// Those of a container.
    #[must_use]
    pub(crate) fn of(container: &Container) -> Self {
        container.resources.as_ref().map(Self::read).unwrap_or_default()
    }

    fn read(resources: &ResourceRequirements) -> Self {
        let (requests, limits) = (resources.requests.as_ref(), resources.limits.as_ref());
        let mut amounts = Self {
            cpu_request: cpu(requests),
            memory_request: memory(requests),
            cpu_limit: cpu(limits),
            memory_limit: memory(limits),
        };
        // The API's default, for objects that did not come through it.
        if amounts.cpu_request == 0 {
            amounts.cpu_request = amounts.cpu_limit;
        }
        if amounts.memory_request == 0 {
            amounts.memory_request = amounts.memory_limit;
        }
        amounts
    }

    /// Those of a pod: of all its containers together, or what it says itself. A limit is one only
    /// if every container has one.
    #[must_use]
    pub(crate) fn of_pod(pod: &Pod) -> Self {
        let mut sum = Self::default();
        let mut sidecars = Self::default();
        let mut init = Self::default();
        let (mut cpu_limited, mut memory_limited) = (true, true);
        for (role, container) in containers(pod) {
            let own = Self::of(container);
            cpu_limited &= own.cpu_limit != 0;
            memory_limited &= own.memory_limit != 0;
            match role {
                Role::Sidecar => {
                    sidecars = sidecars.with(own, u64::saturating_add);
                    sum = sum.with(own, u64::saturating_add);
                    init = init.with(sidecars, u64::max);
                }
                // It runs beside the sidecars before it.
                Role::Init => {
                    init = init.with(own.with(sidecars, u64::saturating_add), u64::max);
                }
                Role::Main => sum = sum.with(own, u64::saturating_add),
            }
        }
        let mut all = sum.with(init, u64::max);
        if !cpu_limited {
            all.cpu_limit = 0;
        }
        if !memory_limited {
            all.memory_limit = 0;
        }
        let spec = pod.spec.as_ref();
        if let Some(own) = spec.and_then(|it| it.resources.as_ref()).map(Self::read) {
            all = own.with(all, |own, all| if own == 0 { all } else { own });
        }
        let overhead = spec.and_then(|it| it.overhead.as_ref());
        let (cpu, memory) = (cpu(overhead), memory(overhead));
        let more = |it: u64, overhead| if it == 0 { 0 } else { it.saturating_add(overhead) };
        Self {
            cpu_request: all.cpu_request.saturating_add(cpu),
            memory_request: all.memory_request.saturating_add(memory),
            cpu_limit: more(all.cpu_limit, cpu),
            memory_limit: more(all.memory_limit, memory),
        }
    }

    fn with(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_request: f(self.cpu_request, other.cpu_request),
            memory_request: f(self.memory_request, other.memory_request),
            cpu_limit: f(self.cpu_limit, other.cpu_limit),
            memory_limit: f(self.memory_limit, other.memory_limit),
        }
    }

    /// `cpu.shares` of version 1.
    #[must_use]
    pub(crate) fn shares(&self) -> u64 {
        shares(self.cpu_request)
    }

    /// `cpu.weight` of version 2: what container runtimes make of the shares since Kubernetes 1.35, by
    /// which one CPU weighs 100, the kernel's default.
    /// <https://kubernetes.io/blog/2026/01/30/new-cgroup-v1-to-v2-cpu-conversion-formula/>
    #[must_use]
    pub(crate) fn weight(&self) -> u64 {
        weight(self.shares())
    }

    /// CPU time in each [`PERIOD`], in microseconds; `None` is no limit.
    #[must_use]
    pub(crate) fn quota(&self) -> Option<u64> {
        let quota = self.cpu_limit.saturating_mul(PERIOD) / 1000;
        (self.cpu_limit != 0).then_some(quota.max(QUOTA_MIN))
    }

    /// Bytes; `None` is no limit.
    #[must_use]
    pub(crate) fn memory(&self) -> Option<u64> {
        Some(self.memory_limit).filter(|it| *it != 0)
    }
}

type List<'a> = Option<&'a BTreeMap<String, Quantity>>;

fn cpu(list: List<'_>) -> u64 {
    let millis = list.and_then(|it| quantity::millis(&it.get("cpu")?.0));
    millis.and_then(|it| u64::try_from(it).ok()).unwrap_or_default()
}

fn memory(list: List<'_>) -> u64 {
    list.and_then(|it| quantity::units(&it.get("memory")?.0)).unwrap_or_default()
}

/// `cpu.shares` for thousandths of a CPU.
#[must_use]
pub(crate) fn shares(cpu_millis: u64) -> u64 {
    (cpu_millis.saturating_mul(SHARES_PER_CPU) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// `cpu.weight` for `cpu.shares`: a parabola through the least, the default and the greatest of both,
/// on logarithmic scales.
#[must_use]
pub(crate) fn weight(shares: u64) -> u64 {
    if shares <= SHARES_MIN {
        return 1;
    }
    if SHARES_MAX <= shares {
        return 10_000;
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000"
    )]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight
}

/// `oom_score_adj` of a container: the more of its memory it has asked for, the later it is killed.
#[must_use]
pub(crate) fn oom_score(pod: &Pod, container: &Container, memory_bytes: u64) -> i32 {
    let priority = pod.spec.as_ref().and_then(|it| it.priority);
    if priority.is_some_and(|it| NODE_CRITICAL <= it) {
        return OOM_GUARANTEED;
    }
    match qos::class(pod) {
        "Guaranteed" => OOM_GUARANTEED,
        "BestEffort" => OOM_BEST_EFFORT,
        _ => {
            let request = Amounts::of(container).memory_request;
            let part = request.saturating_mul(1000).checked_div(memory_bytes).unwrap_or_default();
            let score = 1000 - i32::try_from(part).unwrap_or(1000);
            // Later than any guaranteed one, and before any that asked for nothing.
            score.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn check(spec: &Value, expected: Expect) {
        let pod = pod(spec);
        let line = |name: &str, it: Amounts| {
            format!(
                "{name}: shares {} weight {} quota {:?} memory {:?}",
                it.shares(),
                it.weight(),
                it.quota(),
                it.memory()
            )
        };
        let mut text = line("pod", Amounts::of_pod(&pod));
        for (_, container) in containers(&pod) {
            text += &format!(
                "\n{} oom {}",
                line(&container.name, Amounts::of(container)),
                oom_score(&pod, container, 8 << 30)
            );
        }
        expected.assert_eq(&text);
    }

    fn container(name: &str, requests: &[&str; 2], limits: &[&str; 2]) -> Value {
        let list = |[cpu, memory]: &[&str; 2]| {
            let all = [("cpu", cpu), ("memory", memory)];
            all.iter()
                .filter(|(_, it)| !it.is_empty())
                .map(|(name, it)| ((*name).to_owned(), json!(it)))
                .collect::<serde_json::Map<String, Value>>()
        };
        json!({ "name": name, "resources": { "requests": list(requests), "limits": list(limits) } })
    }

    #[test]
    fn pods_get_what_their_containers_ask_for() {
        check(
            &json!({ "containers": [container("a", &["", ""], &["", ""])] }),
            expect![[r#"
                pod: shares 2 weight 1 quota None memory None
                a: shares 2 weight 1 quota None memory None oom 1000"#]],
        );
        check(
            &json!({ "containers": [container("a", &["250m", "64Mi"], &["", ""])] }),
            expect![[r#"
                pod: shares 256 weight 35 quota None memory None
                a: shares 256 weight 35 quota None memory None oom 993"#]],
        );
        // A limit counts for the pod if every container has one.
        check(
            &json!({ "containers": [
                container("a", &["100m", ""], &["500m", "1Gi"]),
                container("b", &["", "2Gi"], &["1", ""]),
            ] }),
            expect![[r#"
                pod: shares 1126 weight 108 quota Some(150000) memory None
                a: shares 102 weight 17 quota Some(50000) memory Some(1073741824) oom 875
                b: shares 1024 weight 100 quota Some(100000) memory None oom 750"#]],
        );
        check(
            &json!({ "containers": [container("a", &["", ""], &["2", "100M"])] }),
            expect![[r#"
                pod: shares 2048 weight 174 quota Some(200000) memory Some(100000000)
                a: shares 2048 weight 174 quota Some(200000) memory Some(100000000) oom -997"#]],
        );
        // The least that the kernel takes.
        check(
            &json!({ "containers": [container("a", &["1m", "7900Mi"], &["5m", "7999Mi"])] }),
            expect![[r#"
                pod: shares 2 weight 1 quota Some(1000) memory Some(8387559424)
                a: shares 2 weight 1 quota Some(1000) memory Some(8387559424) oom 36"#]],
        );
        check(
            &json!({ "containers": [container("a", &["", "16Gi"], &["", ""])] }),
            expect![[r#"
                pod: shares 2 weight 1 quota None memory None
                a: shares 2 weight 1 quota None memory None oom 3"#]],
        );
    }

    #[test]
    fn init_containers_run_before_and_sidecars_beside() {
        let mut sidecar = container("side", &["100m", "1Mi"], &["100m", "1Mi"]);
        sidecar["restartPolicy"] = json!("Always");
        check(
            &json!({
                "initContainers": [
                    container("first", &["300m", "1Mi"], &["300m", "1Mi"]),
                    sidecar,
                    container("second", &["250m", "1Mi"], &["250m", "1Mi"]),
                ],
                "containers": [container("main", &["200m", "1Mi"], &["200m", "1Mi"])],
            }),
            expect![[r#"
                pod: shares 358 weight 45 quota Some(35000) memory Some(2097152)
                first: shares 307 weight 40 quota Some(30000) memory Some(1048576) oom -997
                side: shares 102 weight 17 quota Some(10000) memory Some(1048576) oom -997
                second: shares 256 weight 35 quota Some(25000) memory Some(1048576) oom -997
                main: shares 204 weight 29 quota Some(20000) memory Some(1048576) oom -997"#]],
        );
    }

    #[test]
    fn pods_may_say_it_themselves() {
        check(
            &json!({
                "resources": { "limits": { "memory": "1Gi" } },
                "overhead": { "cpu": "100m", "memory": "1Mi" },
                "priority": NODE_CRITICAL,
                "containers": [container("a", &["100m", ""], &["", ""])],
            }),
            expect![[r#"
                pod: shares 204 weight 29 quota None memory Some(1074790400)
                a: shares 102 weight 17 quota None memory None oom -997"#]],
        );
    }

    #[test]
    fn weights_are_those_of_container_runtimes() {
        for (shares, expected) in [
            (0, 1),
            (2, 1),
            (3, 2),
            (102, 17),
            (512, 59),
            (1024, 100),
            (10_240, 639),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        let weights: Vec<u64> = (SHARES_MIN..SHARES_MAX).step_by(97).map(weight).collect();
        assert!(weights.is_sorted() && weights.iter().all(|it| (1..=10_000).contains(it)));
    }
}
