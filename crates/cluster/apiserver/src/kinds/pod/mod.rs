//! Pods.

mod row;
mod update;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    pod_spec,
    print::{AGE, NAME, column, wide},
    rules,
    value::{Read, items_mut, keep, object_mut, set, set_default},
};

pub(super) static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.Pod",
    subresources: &[Subresource::Status, Subresource::Log, Subresource::Binding],
    generation: true,
    deletion: Deletion::Graceful,
    default,
    prepare_create,
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status,
    validate,
    validate_update: update::validate,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row: row::row,
    fields,
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Containers that are ready, of all containers."),
    column("Status", "The phase, or what the containers are doing where that says more."),
    column("Restarts", "How often containers were restarted, and when last."),
    AGE,
    wide("IP", "Address of the pod."),
    wide("Node", "Node the pod is on."),
    wide("Nominated Node", "Node that is being cleared for the pod."),
    wide("Readiness Gates", "Conditions beyond the containers that are true, of all such."),
];

/// Seconds a pod stays on a node that is not ready or not reachable, unless it says otherwise.
const EVICTION_SECONDS: i64 = 300;
/// Account of pods that name none.
const ACCOUNT: &str = "default";

fn default(pod: &mut Value) {
    let Some(spec) = object_mut(pod, "spec") else { return };
    pod_spec::default(spec);
    set_default(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        items_mut(spec, list).for_each(default_requests);
    }
}

/// Who limits a resource and asks for none of it asks for the limit.
fn default_requests(container: &mut Value) {
    let limits = container.at(&["resources", "limits"]).clone();
    let Value::Object(limits) = limits else { return };
    let requests = object_mut(container, "resources").and_then(|it| object_mut(it, "requests"));
    let Some(Value::Object(requests)) = requests else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// What admission adds to a new pod, and its first status.
fn prepare_create(pod: &mut Value) {
    if let Some(spec) = object_mut(pod, "spec") {
        set_default(spec, "serviceAccountName", ACCOUNT);
        set_default(spec, "serviceAccount", ACCOUNT);
        set_default(spec, "priority", 0);
        set_default(spec, "preemptionPolicy", "PreemptLowerPriority");
        tolerate_short_outages(spec);
    }
    let class = quality_of_service(pod.field("spec"));
    set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
}

fn tolerate_short_outages(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = spec.items("tolerations").iter().any(|it| {
            matches!(it.text("key"), "" if it.text("operator") == "Exists")
                || it.text("key") == key && matches!(it.text("effect"), "" | "NoExecute")
        });
        if tolerated {
            continue;
        }
        set_default(spec, "tolerations", json!([]));
        if let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": EVICTION_SECONDS}));
        }
    }
}

/// The class by which pods give way when a node runs short (`status.qosClass`).
fn quality_of_service(spec: &Value) -> &'static str {
    let containers = || spec.items("containers").iter().chain(spec.items("initContainers"));
    let amounts = |container: &Value, list: &str| -> BTreeSet<(String, String)> {
        let resources = container.field("resources");
        let counted = resources.members(list).filter(|(it, _)| matches!(*it, "cpu" | "memory"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        counted.map(|(name, value)| (name.to_owned(), text(value))).collect()
    };
    let guaranteed = |container: &Value| {
        let limits = amounts(container, "limits");
        limits.len() == 2 && limits == amounts(container, "requests")
    };
    let asks =
        |it: &Value| !amounts(it, "limits").is_empty() || !amounts(it, "requests").is_empty();
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn prepare_status(new: &mut Value, old: &Value) {
    keep(new, "spec", old);
    // The class follows from `spec`, which never changes it.
    let class = old.field("status").field("qosClass").clone();
    if let (Some(status), false) = (new.get_mut("status"), class.is_null()) {
        set(status, "qosClass", class);
    }
}

fn validate(pod: &Value, causes: &mut Causes) {
    pod_spec::validate(pod.field("spec"), Path::new("spec"), causes);
}

fn fields(pod: &Value, path: &str) -> Option<String> {
    let (spec, status) = (pod.field("spec"), pod.field("status"));
    let text = match path {
        "spec.nodeName" => spec.text("nodeName"),
        "spec.restartPolicy" => spec.text("restartPolicy"),
        "spec.schedulerName" => spec.text("schedulerName"),
        "spec.serviceAccountName" => spec.text("serviceAccountName"),
        "spec.hostNetwork" if spec.flag("hostNetwork") => "true",
        "spec.hostNetwork" => "false",
        "status.phase" => status.text("phase"),
        "status.podIP" => status.text("podIP"),
        "status.podIPs" => status.items("podIPs").first().map_or("", |it| it.text("ip")),
        "status.nominatedNodeName" => status.text("nominatedNodeName"),
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(mut pod: Value) -> Value {
        default(&mut pod);
        prepare_create(&mut pod);
        pod
    }

    #[test]
    fn a_new_pod_is_admitted() {
        let pod = created(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}));
        assert_eq!(pod.at(&["spec", "serviceAccountName"]), "default");
        assert_eq!(pod.at(&["spec", "enableServiceLinks"]), true);
        assert_eq!(pod.at(&["spec", "priority"]), 0);
        assert_eq!(pod.field("spec").items("tolerations").len(), 2);
        assert_eq!(pod.field("status"), &json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }

    #[test]
    fn tolerations_given_are_kept() {
        let tolerations = json!([{"operator": "Exists"}]);
        let pod = created(json!({"spec": {"tolerations": tolerations}}));
        assert_eq!(pod.at(&["spec", "tolerations"]), &tolerations);
    }

    #[test]
    fn class_follows_resources() {
        let class = |resources: Value| {
            let pod = created(json!({"spec": {"containers": [{"resources": resources}]}}));
            pod.at(&["status", "qosClass"]).as_str().unwrap().to_owned()
        };
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    }
}
