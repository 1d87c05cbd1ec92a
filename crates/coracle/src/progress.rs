//! What still keeps an application from being ready, and why: a pure function of what the API says,
//! shown by `up` while it waits and by `status`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

/// A workload that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// `kind/name`, with the namespace if it is not `default`.
    pub(crate) object: String,
    /// How far it is, and what its pods wait for.
    pub(crate) reason: String,
    /// How far that is, where it changes all the time.
    pub(crate) advance: Option<String>,
    /// Whether it looks as though waiting will not help: a container fails again and again.
    pub(crate) failing: bool,
}

impl Waiting {
    /// All of it, for people.
    pub(crate) fn line(&self) -> String {
        let advance = self.advance.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        format!("{}: {}{advance}", self.object, self.reason)
    }
}

/// Those of the deployments, and of the pods that belong to nobody, that are not ready yet. Pods that have
/// ended for good are not among them: see [`crate::ended`].
pub(crate) fn waiting(deployments: &[&Deployment], pods: &[&Pod]) -> Vec<Waiting> {
    let deployments = deployments.iter().filter_map(|it| deployment(it, pods));
    let bare = pods.iter().filter(|it| it.metadata.owner_references.is_none());
    deployments.chain(bare.filter_map(|it| bare_pod(it))).collect()
}

fn deployment(deployment: &Deployment, pods: &[&Pod]) -> Option<Waiting> {
    let spec = deployment.spec.as_ref()?;
    let wanted = spec.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let old = status.replicas.unwrap_or(0) - updated;
    if seen && updated >= wanted && available >= wanted && old <= 0 {
        return None;
    }
    let namespace = deployment.metadata.namespace.as_deref();
    let ours = pods
        .iter()
        .filter(|it| it.metadata.namespace.as_deref() == namespace && selects(&spec.selector, it));
    let mut reason = format!("{} of {wanted} ready", available.min(updated));
    let mut troubles: Vec<(&str, Trouble)> = ours
        .filter_map(|it| Some((it.metadata.name.as_deref().unwrap_or_default(), trouble(it)?)))
        .collect();
    let failing = troubles.iter().any(|it| it.1.failing);
    troubles.sort_by_key(|it| it.1.failing);
    let mut advance = None;
    if let Some((pod, trouble)) = troubles.pop() {
        reason = format!("{reason}; pod {pod}: {}", trouble.text);
        advance = trouble.advance;
    }
    let object = object("deployment", namespace, deployment.metadata.name.as_deref());
    Some(Waiting { object, reason, advance, failing })
}

fn bare_pod(pod: &Pod) -> Option<Waiting> {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    if phase == Some("Failed") {
        return None;
    }
    let trouble = trouble(pod)?;
    let namespace = pod.metadata.namespace.as_deref();
    Some(Waiting {
        object: object("pod", namespace, pod.metadata.name.as_deref()),
        reason: trouble.text,
        advance: trouble.advance,
        failing: trouble.failing,
    })
}

struct Trouble {
    text: String,
    /// How far it is, while nothing is wrong.
    advance: Option<String>,
    failing: bool,
}

impl Trouble {
    fn new(text: String, failing: bool) -> Self {
        Self { text, advance: None, failing }
    }
}

/// Why a pod is not ready; nothing for one that is, has done its work, or is on its way out.
fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.clone().unwrap_or_default();
    let ready = condition(pod, "Ready").is_some_and(|(it, _)| it == "True");
    let finished = status.phase.as_deref() == Some("Succeeded");
    if ready || finished || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let initial = status.init_container_statuses.iter().flatten();
    let containers = initial.chain(status.container_statuses.iter().flatten());
    let of_container = containers.filter_map(container_trouble).max_by_key(|it| it.failing);
    let unscheduled = || match condition(pod, "PodScheduled") {
        Some((state, message)) if state == "False" => {
            Some(Trouble::new(format!("not scheduled: {message}"), false))
        }
        _ => None,
    };
    Some(of_container.or_else(unscheduled).unwrap_or_else(|| {
        let text = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
        Trouble::new(text, status.phase.as_deref() == Some("Failed"))
    }))
}

fn container_trouble(status: &ContainerStatus) -> Option<Trouble> {
    let name = &status.name;
    let state = status.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        // Why it ended last says more than that it waits to be tried again.
        let last = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
        let failing = !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing" | "");
        let mut advance = None;
        let message = match last {
            Some(last) => {
                let said = last.message.as_ref().map(|it| format!(": {}", it.trim_end()));
                format!(", ended with exit code {}{}", last.exit_code, said.unwrap_or_default())
            }
            None if failing => waiting.message.map(|it| format!(": {it}")).unwrap_or_default(),
            None => {
                advance = waiting.message;
                String::new()
            }
        };
        let text = format!("container {name}: {reason}{message}");
        return Some(Trouble { text, advance, failing });
    }
    if let Some(ended) = state.terminated {
        let failing = ended.exit_code != 0;
        let text = format!("container {name} ended with exit code {}", ended.exit_code);
        return failing.then_some(Trouble::new(text, failing));
    }
    let text = format!("container {name} runs but is not ready");
    (!status.ready).then_some(Trouble::new(text, false))
}

fn condition(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|it| it.type_ == kind)?;
    Some((found.status.clone(), found.message.clone().unwrap_or_default()))
}

/// Whether the `matchLabels` of a workload's selector fit the pod: enough to say whose pod it is.
fn selects(selector: &LabelSelector, pod: &Pod) -> bool {
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let wanted = selector.match_labels.as_ref().unwrap_or(&none);
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// An object as people are told of it: `kind/name`, with the namespace if it is not `default`.
pub(crate) fn object(kind: &str, namespace: Option<&str>, name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    match namespace {
        Some("default") | None => format!("{kind}/{name}"),
        Some(namespace) => format!("{kind}/{name} in {namespace}"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(deployment: Value, pods: Value, expected: Expect) {
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let pods: Vec<Pod> = serde_json::from_value(pods).unwrap();
        let pods: Vec<&Pod> = pods.iter().collect();
        let lines = waiting(&[&deployment], &pods);
        let line = |it: &Waiting| {
            let failing = if it.failing { " (failing)" } else { "" };
            let advance = it.advance.as_ref().map(|it| format!(" [{it}]")).unwrap_or_default();
            format!("{}: {}{failing}{advance}", it.object, it.reason)
        };
        expected.assert_eq(&lines.iter().map(line).collect::<Vec<String>>().join("\n"));
    }

    fn worker(status: Value) -> Value {
        json!({
            "metadata": {"name": "worker", "namespace": "default", "generation": 2},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "worker"}},
                     "template": {}},
            "status": status,
        })
    }

    fn pod(status: Value) -> Value {
        json!({
            "metadata": {"name": "worker-1", "namespace": "default", "labels": {"app": "worker"},
                         "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                                              "name": "worker-1", "uid": "1"}]},
            "status": status,
        })
    }

    #[test]
    fn a_pod_of_nobody_stands_for_itself() {
        let mut alone = pod(json!({"phase": "Pending"}));
        alone["metadata"]["ownerReferences"].take();
        let done = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
                          "availableReplicas": 1});
        check(worker(done.clone()), json!([alone]), expect!["pod/worker-1: Pending"]);
        // What has ended for good is not waited for.
        alone["status"]["phase"] = "Failed".into();
        check(worker(done), json!([alone]), expect![""]);
    }

    #[test]
    fn another_pod_takes_the_place_of_a_failed_one() {
        check(
            worker(json!({"observedGeneration": 2})),
            json!([pod(json!({"phase": "Failed"}))]),
            expect!["deployment/worker: 0 of 1 ready; pod worker-1: Failed (failing)"],
        );
    }

    #[test]
    fn nothing_to_wait_for() {
        let done = json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
                          "availableReplicas": 1});
        check(worker(done), json!([]), expect![""]);
    }

    #[test]
    fn an_old_generation_is_not_ready() {
        let old = json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1,
                         "availableReplicas": 1});
        check(worker(old), json!([]), expect!["deployment/worker: 1 of 1 ready"]);
    }

    #[test]
    fn says_what_a_container_waits_for() {
        let waiting = json!({"reason": "CrashLoopBackOff", "message": "back-off 10s"});
        let last = json!({"exitCode": 3, "message": "no such file\n"});
        let status = json!({"phase": "Running", "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 1, "image": "", "imageID": "",
            "state": {"waiting": waiting}, "lastState": {"terminated": last}}]});
        check(
            worker(json!({"observedGeneration": 2})),
            json!([pod(status)]),
            expect![
                "deployment/worker: 0 of 1 ready; pod worker-1: container worker: CrashLoopBackOff, ended with exit code 3: no such file (failing)"
            ],
        );
    }

    #[test]
    fn says_how_far_a_pull_is() {
        let waiting = json!({"reason": "ContainerCreating", "message": "Pulling image: 1 of 2"});
        let status = json!({"phase": "Pending", "containerStatuses": [{
            "name": "worker", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"waiting": waiting}}]});
        check(
            worker(json!({"observedGeneration": 2})),
            json!([pod(status)]),
            expect![
                "deployment/worker: 0 of 1 ready; pod worker-1: container worker: ContainerCreating [Pulling image: 1 of 2]"
            ],
        );
    }

    #[test]
    fn says_why_a_pod_is_not_scheduled() {
        let status = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        check(
            worker(json!({"observedGeneration": 2})),
            json!([pod(status)]),
            expect![
                "deployment/worker: 0 of 1 ready; pod worker-1: not scheduled: 0/1 nodes are available"
            ],
        );
    }
}
