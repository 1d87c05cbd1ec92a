//! Pods. What the cluster adds to a new pod beyond its defaults (account, tolerations, priority) is
//! admission's business.

mod parts;
mod row;
mod update;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Causes, Column, Deletion, Kind, Subresource, VERBS,
    path::Path,
    pod_spec,
    pods_by_template::name_warning,
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
    subresources: &[
        Subresource::Status,
        Subresource::Log,
        Subresource::Proxy,
        Subresource::Binding,
        Subresource::EphemeralContainers,
        Subresource::Eviction,
        Subresource::Resize,
    ],
    generation: true,
    deletion: Deletion::Graceful,
    default,
    prepare_create,
    prepare_update: |new, old| keep(new, "status", old),
    prepare_status,
    warnings: |pod| {
        let mut warnings: Vec<String> =
            name_warning(pod, "the Pod's hostname").into_iter().collect();
        warnings.extend(pod_spec::warnings(pod, ""));
        warnings
    },
    validate,
    prepare_part: parts::prepare,
    validate_create: |pod, causes| {
        if pod.field("spec").has("ephemeralContainers") {
            causes.forbidden("spec.ephemeralContainers", "cannot be set on create");
        }
    },
    validate_update: update::validate,
    validate_part: parts::validate_update,
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row_reads: row::READS,
    row: row::row,
    fields,
    shows_deleted: true,
    ..Kind::PLAIN
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

/// The first status.
fn prepare_create(pod: &mut Value) {
    let class = quality_of_service(pod.field("spec"));
    set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
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
    let (spec, path) = (pod.field("spec"), Path::new("spec"));
    pod_spec::validate(spec, path, causes);
    parts::validate_ephemeral(spec, path, causes);
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
    fn a_new_pod_is_pending() {
        let pod = created(json!({"spec": {"containers": [{"name": "a", "image": "x"}]},
            "status": {"phase": "Running"}}));
        assert_eq!(pod.at(&["spec", "enableServiceLinks"]), true);
        assert_eq!(pod.field("status"), &json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }

    #[test]
    fn limits_are_requests() {
        let resources = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}});
        let pod = created(json!({"spec": {"containers": [{"resources": resources}]}}));
        let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!(*requests, json!({"cpu": "1", "memory": "1Gi"}));
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
