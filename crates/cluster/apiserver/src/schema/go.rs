//! What the original's Go types say beyond the published schema: the names its decoder quotes when
//! a value has the wrong type, and the fields whose zero value is the same as none.
//!
//! Only fields where people see the difference are listed.

use super::table::{Definition, Field, Type};

/// Fields whose text has a Go type of its own: type, field, Go type.
const NAMED: &[(&str, &str, &str)] = &[
    ("Capabilities", "add", "v1.Capability"),
    ("Capabilities", "drop", "v1.Capability"),
    ("Container", "imagePullPolicy", "v1.PullPolicy"),
    ("Container", "terminationMessagePolicy", "v1.TerminationMessagePolicy"),
    ("ContainerPort", "protocol", "v1.Protocol"),
    ("DeploymentStrategy", "type", "v1.DeploymentStrategyType"),
    ("EmptyDirVolumeSource", "medium", "v1.StorageMedium"),
    ("EndpointSlice", "addressType", "v1.AddressType"),
    ("HTTPGetAction", "scheme", "v1.URIScheme"),
    ("HostPathVolumeSource", "type", "v1.HostPathType"),
    ("LabelSelectorRequirement", "operator", "v1.LabelSelectorOperator"),
    ("NamespaceSpec", "finalizers", "v1.FinalizerName"),
    ("NamespaceStatus", "phase", "v1.NamespacePhase"),
    ("NodeSelectorRequirement", "operator", "v1.NodeSelectorOperator"),
    ("ObjectMeta", "uid", "types.UID"),
    ("OwnerReference", "uid", "types.UID"),
    ("PodCondition", "status", "v1.ConditionStatus"),
    ("PodCondition", "type", "v1.PodConditionType"),
    ("PodSpec", "dnsPolicy", "v1.DNSPolicy"),
    ("PodSpec", "preemptionPolicy", "v1.PreemptionPolicy"),
    ("PodSpec", "restartPolicy", "v1.RestartPolicy"),
    ("PodStatus", "phase", "v1.PodPhase"),
    ("Secret", "type", "v1.SecretType"),
    ("ServicePort", "protocol", "v1.Protocol"),
    ("ServiceSpec", "externalTrafficPolicy", "v1.ServiceExternalTrafficPolicy"),
    ("ServiceSpec", "internalTrafficPolicy", "v1.ServiceInternalTrafficPolicy"),
    ("ServiceSpec", "ipFamilies", "v1.IPFamily"),
    ("ServiceSpec", "ipFamilyPolicy", "v1.IPFamilyPolicy"),
    ("ServiceSpec", "sessionAffinity", "v1.ServiceAffinity"),
    ("ServiceSpec", "type", "v1.ServiceType"),
    ("Taint", "effect", "v1.TaintEffect"),
    ("Toleration", "effect", "v1.TaintEffect"),
    ("Toleration", "operator", "v1.TolerationOperator"),
];

/// Fields in which zero, `false` and the empty text are the same as none: type, its fields.
const ZERO_IS_NONE: &[(&str, &[&str])] = &[
    ("Container", &["stdin", "stdinOnce", "tty", "workingDir"]),
    ("ContainerPort", &["hostIP", "hostPort", "name"]),
    ("DeploymentSpec", &["minReadySeconds", "paused"]),
    (
        "DeploymentStatus",
        &[
            "availableReplicas",
            "observedGeneration",
            "readyReplicas",
            "replicas",
            "unavailableReplicas",
            "updatedReplicas",
        ],
    ),
    ("EmptyDirVolumeSource", &["medium"]),
    ("EnvVar", &["value"]),
    ("EnvFromSource", &["prefix"]),
    ("HTTPGetAction", &["host", "path", "scheme"]),
    ("NodeSpec", &["podCIDR", "providerID", "unschedulable"]),
    ("ObjectMeta", &["generateName", "generation", "namespace", "resourceVersion", "uid"]),
    ("PersistentVolumeClaimVolumeSource", &["readOnly"]),
    (
        "PodSpec",
        &[
            "hostIPC",
            "hostNetwork",
            "hostPID",
            "hostname",
            "nodeName",
            "priorityClassName",
            "serviceAccount",
            "serviceAccountName",
            "subdomain",
        ],
    ),
    (
        "Probe",
        &[
            "failureThreshold",
            "initialDelaySeconds",
            "periodSeconds",
            "successThreshold",
            "timeoutSeconds",
        ],
    ),
    ("ReplicaSetSpec", &["minReadySeconds"]),
    (
        "ReplicaSetStatus",
        &["availableReplicas", "fullyLabeledReplicas", "observedGeneration", "readyReplicas"],
    ),
    ("ServicePort", &["name", "nodePort"]),
    (
        "ServiceSpec",
        &[
            "clusterIP",
            "externalName",
            "healthCheckNodePort",
            "loadBalancerIP",
            "publishNotReadyAddresses",
        ],
    ),
    ("Toleration", &["effect", "key", "operator", "value"]),
    ("VolumeMount", &["readOnly", "subPath", "subPathExpr"]),
];

/// Whether zero, `false` or the empty text in `field` of `owner` is the same as none.
pub(super) fn zero_is_none(owner: &Definition, field: &Field) -> bool {
    let known = ZERO_IS_NONE.iter().find(|(name, _)| *name == owner.short_name());
    known.is_some_and(|(_, fields)| fields.contains(&field.name))
}

/// The Go type of a value of `kind` in `field` of `owner`. `kind` is the field's type or, for a
/// value inside a list or map, that of the item.
pub(super) fn type_name(owner: &Definition, field: &Field, kind: &Type) -> String {
    match kind {
        Type::String => {
            let known = NAMED.iter().find(|it| it.0 == owner.short_name() && it.1 == field.name);
            known.map_or("string", |it| it.2).to_owned()
        }
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Any => "runtime.RawExtension".to_owned(),
        Type::Object(_) => kind.below().map(struct_name).unwrap_or_default(),
        Type::List(items) => format!("[]{}", type_name(owner, field, items)),
        Type::Map(values) if **values == Type::Quantity => "v1.ResourceList".to_owned(),
        Type::Map(values) => format!("map[string]{}", type_name(owner, field, values)),
    }
}

/// The Go type of an object: package, which is named like the version, and type.
pub(super) fn struct_name(definition: &'static Definition) -> String {
    let mut parts = definition.name.rsplit('.');
    let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::definition;

    #[test]
    fn listed_fields_are_there_and_optional() {
        let of = |name: &str| {
            let packages = ["core", "apps", "discovery"].map(|it| format!("io.k8s.api.{it}.v1."));
            let meta = ["io.k8s.apimachinery.pkg.apis.meta.v1.".to_owned()];
            let mut packages = packages.into_iter().chain(meta);
            packages.find_map(|it| definition(&(it + name))).expect(name)
        };
        for (name, field, _) in NAMED {
            assert!(of(name).field(field).is_some(), "{name}.{field}");
        }
        for (name, fields) in ZERO_IS_NONE {
            for field in *fields {
                let found = of(name).field(field).expect(field);
                assert!(!found.required, "{name}.{field}");
            }
        }
    }
}
