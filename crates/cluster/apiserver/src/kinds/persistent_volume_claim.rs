//! PersistentVolumeClaims: storage that pods ask for.

use std::collections::BTreeSet;

use api::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, column, wide},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static PERSISTENT_VOLUME_CLAIM: Kind = Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    schema: "io.k8s.api.core.v1.PersistentVolumeClaim",
    default: |claim| {
        default(claim);
        default_sources(claim);
    },
    prepare_create: |claim| set(claim, "status", json!({"phase": "Pending"})),
    validate: |claim, causes| validate_spec(claim.field("spec"), Path::new("spec"), causes),
    validate_update,
    columns: COLUMNS,
    row,
    warnings: |claim| class_annotation(claim).into_iter().collect(),
    warnings_on_update: Some(|claim| class_annotation(claim).into_iter().collect()),
    unattended: true,
    shows_deleted: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether the claim has its volume."),
    column("Volume", "The volume it has."),
    column("Capacity", "How much there is in the volume."),
    column("Access Modes", "How nodes may mount the volume."),
    column("StorageClass", "How the volume is made."),
    column("VolumeAttributesClass", "Settings of the volume that can change."),
    AGE,
    wide("VolumeMode", "Whether pods see files or a device."),
];

/// How volumes can be mounted: the word, and how tables say it.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
/// The same, as messages list it.
const ACCESS_MODES_SORTED: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Annotation that named the class before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and \
    volumeAttributesClassName for bound claims";

/// Fills in a claim or the template of one.
pub(super) fn default(claim: &mut Value) {
    if let Some(status) = object_mut(claim, "status") {
        set_default(status, "phase", "Pending");
    }
    if let Some(spec) = object_mut(claim, "spec") {
        set_default(spec, "volumeMode", "Filesystem");
    }
}

/// What the volume is filled with has an old and a new field, which say the same.
fn default_sources(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec") else { return };
    match (spec.field("dataSource").clone(), spec.field("dataSourceRef").clone()) {
        (source @ Value::Object(_), Value::Null) => set(spec, "dataSourceRef", source),
        (Value::Null, Value::Object(reference)) if !reference.contains_key("namespace") => {
            let reference = Value::Object(reference);
            let known = reference.text("apiGroup").is_empty()
                && reference.text("kind") == "PersistentVolumeClaim"
                || reference.text("apiGroup") == "snapshot.storage.k8s.io"
                    && reference.text("kind") == "VolumeSnapshot";
            if known {
                set(spec, "dataSource", reference);
            }
        }
        _ => {}
    }
}

/// Checks the `spec` of a claim or of the template of one.
pub(super) fn validate_spec(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    if spec.items("accessModes").is_empty() {
        causes.required(path.child("accessModes"), "at least 1 access mode is required");
    }
    if spec.has("selector") {
        rules::label_selector(spec.field("selector"), path.child("selector"), causes);
    }
    access_modes(spec, path, causes);
    let resources = path.child("resources");
    let size_path = resources.key("storage");
    let size = spec.at(&["resources", "requests", "storage"]);
    match rules::quantity(size) {
        None => causes.required(size_path, ""),
        Some(amount) if amount.value() <= 0 => {
            causes.invalid(size_path, size, "must be greater than zero");
        }
        Some(_) => {}
    }
    class_name(spec, "storageClassName", path, causes);
    class_name(spec, "volumeAttributesClassName", path, causes);
    rules::optional_one_of(spec, "volumeMode", &VOLUME_MODES, path, causes);
    for name in ["dataSource", "dataSourceRef"] {
        if spec.has(name) {
            data_source(spec.field(name), path.child(name), causes);
        }
    }
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    if !source.is_null() && !reference.is_null() {
        let detail = if !reference.text("namespace").is_empty() {
            "may not be specified when dataSourceRef.namespace is specified"
        } else if source == reference {
            return;
        } else {
            "must match dataSourceRef"
        };
        causes.invalid(path, &Value::from(String::from(path.child("dataSource"))), detail);
    }
}

/// How a volume may be mounted.
pub(super) fn access_modes(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let modes: BTreeSet<&str> =
        spec.items("accessModes").iter().filter_map(Value::as_str).collect();
    let path = path.child("accessModes");
    for mode in modes.iter().filter(|it| !ACCESS_MODES_SORTED.contains(it)) {
        causes.not_supported(path, &Value::from(*mode), &ACCESS_MODES_SORTED);
    }
    let known = modes.iter().filter(|it| ACCESS_MODES_SORTED.contains(it)).count();
    if modes.contains("ReadWriteOncePod") && 1 < known {
        causes.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The name of a class, or none.
pub(super) fn class_name(spec: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    let class = spec.text(name);
    if !class.is_empty() {
        rules::all(names::dns1123_subdomain(class), path.child(name), class, causes);
    }
}

fn data_source(source: &Value, path: Path<'_>, causes: &mut Causes) {
    for name in ["name", "kind"] {
        if source.text(name).is_empty() {
            causes.required(path.child(name), "");
        }
    }
    let (kind, group) = (source.text("kind"), source.text("apiGroup"));
    if !group.is_empty() {
        rules::all(names::dns1123_subdomain(group), path.child("apiGroup"), group, causes);
    } else if kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        causes.invalid(path, &kind.into(), detail);
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        rules::all(names::dns1123_label(namespace), path.child("namespace"), namespace, causes);
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let (mut rest, old_spec) = (new.field("spec").clone(), old.field("spec"));
    if old_spec.text("volumeName").is_empty() {
        keep(&mut rest, "volumeName", old_spec);
    }
    // A claim without a class may get one, until it has a volume.
    if !old_spec.has("storageClassName") && old_spec.text("volumeName").is_empty() {
        keep(&mut rest, "storageClassName", old_spec);
    }
    if new.field("status").text("phase") == "Bound" {
        let size = old_spec.at(&["resources", "requests", "storage"]).clone();
        let requests = rest.get_mut("resources").and_then(|it| it.get_mut("requests"));
        if let Some(requests) = requests {
            set(requests, "storage", size);
        }
        keep(&mut rest, "volumeAttributesClassName", old_spec);
    }
    if rest != *old_spec {
        let difference = rules::difference(&rest, old_spec);
        causes.forbidden(path, &format!("{IMMUTABLE}\n{difference}"));
    }
    let size = |of: &Value, at: &[&str]| rules::quantity(of.at(at));
    let asked = ["spec", "resources", "requests", "storage"];
    let given = size(old, &["status", "capacity", "storage"]);
    if size(new, &asked) < size(old, &asked) && size(new, &asked) <= given {
        let detail = "field can not be less than status.capacity";
        causes.forbidden(asked.join("."), detail);
    }
    let mode = "volumeMode";
    rules::unchanged(new.field("spec"), old_spec, mode, mode, causes);
}

/// How tables say the access modes of a volume.
pub(super) fn printed_modes(modes: &[Value]) -> String {
    let short = ACCESS_MODES.iter().filter(|(mode, _)| modes.iter().any(|it| it == mode));
    short.map(|it| it.1).collect::<Vec<_>>().join(",")
}

/// Name of the storage class of a claim or volume.
pub(super) fn class_of(object: &Value) -> &str {
    match object.at(&["metadata", "annotations"]).field(CLASS).as_str() {
        Some(class) => class,
        None => object.field("spec").text("storageClassName"),
    }
}

/// What is said of a class that is named the old way.
pub(super) fn class_annotation(object: &Value) -> Option<String> {
    object.at(&["metadata", "annotations"]).has(CLASS).then(|| {
        format!(
            "metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" \
             attribute instead"
        )
    })
}

fn row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (claim.field("spec"), claim.field("status"));
    let terminating = claim.field("metadata").has("deletionTimestamp");
    let bound = !spec.text("volumeName").is_empty();
    let capacity = status.field("capacity").text("storage");
    let capacity = if capacity.is_empty() { "0" } else { capacity };
    let modes = printed_modes(status.items("accessModes"));
    vec![
        print::name(claim),
        if terminating { "Terminating" } else { status.text("phase") }.into(),
        spec.text("volumeName").into(),
        if bound { capacity } else { "" }.into(),
        if bound { modes } else { String::new() }.into(),
        class_of(claim).into(),
        print::or_unset(spec.text("volumeAttributesClassName")).into(),
        print::age(claim, now),
        print::or_unset(spec.text("volumeMode")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update, check_update_of, created, sample},
        *,
    };

    const CLAIM: &Kind = &PERSISTENT_VOLUME_CLAIM;

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn a_claim_says_how_much_and_how() {
        check(
            CLAIM,
            spec(json!({"accessModes": null, "resources": null, "volumeMode": "Tape"})),
            expect![[r#"
                spec.accessModes: Required value: at least 1 access mode is required
                spec.resources[storage]: Required value
                spec.volumeMode: Unsupported value: "Tape": supported values: "Block", "Filesystem""#]],
        );
        check(
            CLAIM,
            spec(json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce", "Any"],
                "resources": {"requests": {"storage": "0"}}, "dataSource": {"kind": "Snapshot"},
                "storageClassName": "A"})),
            expect![[r#"
                spec.accessModes: Unsupported value: "Any": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
                spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes
                spec.resources[storage]: Invalid value: "0": must be greater than zero
                spec.storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.dataSource.name: Required value
                spec.dataSource: Invalid value: "Snapshot": must be 'PersistentVolumeClaim' when referencing the default apiGroup
                spec.dataSourceRef.name: Required value
                spec.dataSourceRef: Invalid value: "Snapshot": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#]],
        );
    }

    #[test]
    fn sources_say_the_same() {
        let mut claim = sample(CLAIM);
        claim["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let claim = created(CLAIM, claim);
        assert_eq!(claim["spec"]["dataSourceRef"], claim["spec"]["dataSource"]);
    }

    #[test]
    fn bound_claims_may_grow() {
        let grow = json!({"resources": {"requests": {"storage": "2Gi"}}});
        check_update(
            CLAIM,
            spec(grow.clone()),
            expect![[r#"
            spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
            - resources: {"requests":{"storage":"1Gi"}}
            + resources: {"requests":{"storage":"2Gi"}}
        "#]],
        );
        let mut bound = created(CLAIM, sample(CLAIM));
        bound["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"]});
        bound["spec"]["volumeName"] = "v".into();
        check_update_of(CLAIM, &bound, spec(grow), expect![""]);
        let shrink = json!({"resources": {"requests": {"storage": "1Mi"}}});
        check_update_of(
            CLAIM,
            &bound,
            spec(shrink),
            expect![
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
            ],
        );
        check_row(
            CLAIM,
            json!({"status": bound["status"], "spec": bound["spec"]}),
            expect!["a | Bound | v | 1Gi | RWO |  | <unset> | 60m | Filesystem"],
        );
    }
}
