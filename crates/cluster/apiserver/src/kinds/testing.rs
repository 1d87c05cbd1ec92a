//! A valid object of every kind, and the checks that tests of the kinds share.

use expect_test::Expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Causes, Creation, KINDS, Kind};
use crate::{object::parts, schema};

/// What is wrong with a new object: the sample of `kind` with `change` merged into it.
#[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
pub(super) fn check(kind: &Kind, change: Value, expected: Expect) {
    let mut object = sample(kind);
    json_patch::merge(&mut object, &change);
    expected.assert_eq(&findings(kind, &created(kind, object)));
}

/// What is wrong with a `change` merged into the stored sample of `kind`.
pub(super) fn check_update(kind: &Kind, change: Value, expected: Expect) {
    let old = created(kind, sample(kind));
    check_update_of(kind, &old, change, expected);
}

/// What is wrong with a `change` merged into `old`.
#[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
pub(super) fn check_update_of(kind: &Kind, old: &Value, change: Value, expected: Expect) {
    let mut new = old.clone();
    json_patch::merge(&mut new, &change);
    if kind.conversion.is_none() {
        (kind.default)(&mut new);
    }
    (kind.prepare_update)(&mut new, old);
    let mut causes = Causes::default();
    (kind.validate)(&new, &mut causes);
    (kind.validate_update)(&new, old, &mut causes);
    expected.assert_eq(&printed(&causes));
}

/// The row of an object, from the parts that the kind says it is made of.
pub(super) fn row(kind: &'static Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let text = object.to_string();
    (kind.row)(&parts::read(text.as_bytes(), &kind.row_reads).unwrap().object, now)
}

/// The cells of a row, from the sample of `kind` with `change` merged into what is stored of it.
#[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
pub(super) fn check_row(kind: &'static Kind, change: Value, expected: Expect) {
    let mut object = created(kind, sample(kind));
    object["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z".into();
    json_patch::merge(&mut object, &change);
    let cells = row(kind, &object, "2024-01-01T01:00:00Z".parse().unwrap());
    let cells: Vec<String> =
        cells.iter().map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned)).collect();
    expected.assert_eq(&cells.join(" | "));
}

fn printed(causes: &Causes) -> String {
    let lines = causes.as_slice().iter().map(|it| format!("{}: {}", it.field, it.message));
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|it| it.kind == name).unwrap()
}

fn container() -> Value {
    json!({"name": "c", "image": "app:v1", "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"port": "http"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [container()], "volumes": [{"name": "v"}]}})
}

fn webhook() -> Value {
    json!({"name": "a.example.com", "clientConfig": {"url": "https://a.example.com/x"},
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"]}]})
}

fn claim() -> Value {
    json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}})
}

fn job() -> Value {
    let mut template = template();
    template["spec"]["restartPolicy"] = "Never".into();
    json!({"template": template})
}

/// What a question asks.
fn of_reviews(kind: &Kind) -> Value {
    let objects = json!({"namespace": "n", "verb": "get", "resource": "pods"});
    match kind.kind {
        "LocalSubjectAccessReview" | "SubjectAccessReview" => {
            json!({"spec": {"user": "ann", "resourceAttributes": objects}})
        }
        "SelfSubjectAccessReview" => json!({"spec": {"resourceAttributes": objects}}),
        "SelfSubjectRulesReview" => json!({"spec": {"namespace": "n"}}),
        "TokenReview" => json!({"spec": {"token": "t"}}),
        _ => json!({}),
    }
}

/// What a small object has of a kind that extends the cluster.
fn of_extensions(kind: &Kind) -> Value {
    match kind.kind {
        "NodeMetrics" => json!({"timestamp": "2024-01-01T00:00:00Z", "window": "15s",
            "usage": {"cpu": "5m", "memory": "1Mi"}}),
        "PodMetrics" => json!({"timestamp": "2024-01-01T00:00:00Z", "window": "15s",
            "containers": [{"name": "c", "usage": {"cpu": "5m", "memory": "1Mi"}}]}),
        "CertificateSigningRequest" => json!({"spec": {"signerName": "example.com/s",
            "usages": ["client auth"],
            "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"}}),
        "CSIDriver" => json!({"spec": {}}),
        "CSINode" => json!({"spec": {"drivers": [{"name": "example.com", "nodeID": "n"}]}}),
        "CSIStorageCapacity" => json!({"storageClassName": "a", "capacity": "1Gi"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "example.com", "nodeName": "n",
            "source": {"persistentVolumeName": "v"}}}),
        "VolumeAttributesClass" => {
            json!({"driverName": "example.com", "parameters": {"a": "b"}})
        }
        "Fault" => json!({"spec": {"action": "Pause", "target": {"kind": "Pod", "names": ["a"]}}}),
        "GatewayClass" => json!({"spec": {"controllerName": "example.com/gateway"}}),
        "Gateway" => json!({"spec": {"gatewayClassName": "a",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
        "HTTPRoute" => json!({"spec": {"parentRefs": [{"name": "a"}],
            "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}}),
        "ReferenceGrant" => json!({"spec": {"to": [{"group": "", "kind": "Service"}],
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute",
                "namespace": "a"}]}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.96.0.0/16"]}}),
        "IPAddress" => json!({"spec": {"parentRef":
            {"resource": "services", "namespace": "n", "name": "a"}}}),
        "FlowSchema" => json!({"spec": {"priorityLevelConfiguration": {"name": "a"}}}),
        "PriorityLevelConfiguration" => json!({"spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Reject"}}}}),
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            json!({"webhooks": [webhook()]})
        }
        "ValidatingAdmissionPolicy" => json!({"spec": {"validations": [{"expression": "true"}],
            "matchConstraints": {"resourceRules": webhook()["rules"]}}}),
        "MutatingAdmissionPolicy" => json!({"spec": {"reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}],
            "matchConstraints": {"resourceRules": webhook()["rules"]}}}),
        "ValidatingAdmissionPolicyBinding" => {
            json!({"spec": {"policyName": "a", "validationActions": ["Deny"]}})
        }
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "a"}}),
        "DeviceClass" => json!({"spec": {"selectors": [{"cel": {"expression": "true"}}]}}),
        "ResourceClaim" => json!({"spec": claim()}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": claim()}}),
        "ResourceSlice" => json!({"spec": {"driver": "example.com", "allNodes": true,
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        _ => json!({}),
    }
}

/// A small valid object of each kind, as a user writes it.
pub(crate) fn sample(kind: &Kind) -> Value {
    let selector = json!({"matchLabels": {"app": "a"}});
    let mut object = match kind.kind {
        "Pod" => json!({"spec": template()["spec"]}),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            json!({"spec": {"selector": selector, "template": template()}})
        }
        "Service" => json!({"spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}}),
        "EndpointSlice" => json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.244.0.2"]}]}),
        "ConfigMap" => json!({"data": {"key": "value"}}),
        "Secret" => json!({"stringData": {"key": "value"}}),
        "Endpoints" => {
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]})
        }
        "Ingress" => {
            json!({"spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "a", "port": {"number": 80}}}}]}}]}})
        }
        "NetworkPolicy" => json!({"spec": {"podSelector": selector}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "Job" => json!({"spec": job()}),
        "CronJob" => json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job()}}}),
        "PersistentVolume" => json!({"spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}}),
        "PersistentVolumeClaim" => json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        "PodTemplate" => json!({"template": template()}),
        "ReplicationController" => json!({"spec": {"template": template()}}),
        "ControllerRevision" => json!({"data": {"a": 1}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/ingress"}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}),
        "PriorityClass" => json!({"value": 5}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "1"}}}),
        "Role" | "ClusterRole" => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"kind": "ClusterRole", "name": "r"}})
        }
        "RuntimeClass" => json!({"handler": "h"}),
        "StorageClass" => json!({"provisioner": "example.com/disk"}),
        "Event" if kind.group == "events.k8s.io" => json!({"regarding": {"namespace": "n"},
            "eventTime": "2024-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
            "reportingInstance": "i", "action": "Do", "reason": "Done", "type": "Normal"}),
        "HorizontalPodAutoscaler" => json!({"spec": {"maxReplicas": 5,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}),
        "Event" => json!({"involvedObject": {"namespace": "n"}}),
        "Binding" => json!({"target": {"name": "n"}}),
        _ if matches!(kind.creation, Creation::Answered(_)) => of_reviews(kind),
        _ => of_extensions(kind),
    };
    object["apiVersion"] = match kind.group {
        "" => kind.version.into(),
        group => format!("{group}/{}", kind.version).into(),
    };
    object["kind"] = kind.kind.into();
    let name = if kind.kind == "IPAddress" { "10.96.0.1" } else { "a" };
    object["metadata"] = match kind.creation {
        Creation::Answered(_) => json!({}),
        Creation::Kept | Creation::Bound => json!({"name": name}),
    };
    if kind.namespaced {
        object["metadata"]["namespace"] = "n".into();
    }
    object
}

/// Every finding about `object`, a line each.
pub(super) fn findings(kind: &Kind, object: &Value) -> String {
    let mut causes = Causes::default();
    (kind.validate)(object, &mut causes);
    printed(&causes)
}

/// What is stored of a new object.
pub(crate) fn created(kind: &Kind, mut object: Value) -> Value {
    schema::prune(kind.schema, &mut object);
    (kind.default)(&mut object);
    kind.convert_to_stored(&mut object);
    if kind.creation == Creation::Kept {
        object["metadata"]["uid"] = "u".into();
    }
    (kind.prepare_create)(&mut object);
    object
}
