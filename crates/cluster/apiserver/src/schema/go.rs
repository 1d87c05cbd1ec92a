//! Names of the original's Go types, which its decoder quotes when a value has the wrong type.
//!
//! The published schema says `string` where the original has a named string type; the fields where
//! people see the difference are listed here.

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
