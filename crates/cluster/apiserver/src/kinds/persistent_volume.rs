//! PersistentVolumes: storage that there is.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    path::Path,
    persistent_volume_claim as claim, pod_spec,
    print::{self, AGE, NAME, column, wide},
    rules,
    value::{Read, keep, object_mut, set, set_default},
};

pub(super) static PERSISTENT_VOLUME: Kind = Kind {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    schema: "io.k8s.api.core.v1.PersistentVolume",
    default,
    prepare_create: |volume| set(volume, "status", json!({"phase": "Pending"})),
    validate,
    validate_update,
    columns: COLUMNS,
    row,
    fields: |it, path| (path == "name").then(|| it.field("metadata").text("name").to_owned()),
    warnings: |volume| claim::class_annotation(volume).into_iter().collect(),
    warnings_on_update: Some(|volume| claim::class_annotation(volume).into_iter().collect()),
    unattended: true,
    shows_deleted: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Capacity", "How much there is in the volume."),
    column("Access Modes", "How nodes may mount it."),
    column("Reclaim Policy", "What becomes of it when its claim is gone."),
    column("Status", "Whether a claim has it."),
    column("Claim", "The claim that has it."),
    column("StorageClass", "How it was made."),
    column("VolumeAttributesClass", "Settings that can change."),
    column("Reason", "Why it is in its status."),
    AGE,
    wide("VolumeMode", "Whether pods see files or a device."),
];

/// Fields of `spec` that are not what the volume is in.
const NO_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn default(volume: &mut Value) {
    if let Some(status) = object_mut(volume, "status") {
        set_default(status, "phase", "Pending");
    }
    let Some(spec) = object_mut(volume, "spec") else { return };
    set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default(spec, "volumeMode", "Filesystem");
    // Here an empty type says something: no check at all.
    if let Some(Value::Object(host_path)) = spec.get_mut("hostPath") {
        host_path.entry("type").or_insert_with(|| "".into());
    }
}

fn validate(volume: &Value, causes: &mut Causes) {
    let (spec, path) = (volume.field("spec"), Path::new("spec"));
    if spec.items("accessModes").is_empty() {
        causes.required(path.child("accessModes"), "");
    }
    claim::access_modes(spec, path, causes);
    capacity(spec, path.child("capacity"), causes);
    let policies = ["Delete", "Recycle", "Retain"];
    rules::optional_one_of(spec, "persistentVolumeReclaimPolicy", &policies, path, causes);
    let affinity = spec.at(&["nodeAffinity", "required"]);
    let affinity_path = path.child("nodeAffinity");
    if spec.has("nodeAffinity") && affinity.is_null() {
        causes.required(affinity_path.child("required"), "must specify required node constraints");
    } else if !affinity.is_null() {
        pod_spec::node_selector(affinity, affinity_path.child("required"), causes);
    }
    source(spec, path, causes);
    claim::class_name(spec, "storageClassName", path, causes);
    rules::optional_one_of(spec, "volumeMode", &["Block", "Filesystem"], path, causes);
    claim::class_name(spec, "volumeAttributesClassName", path, causes);
    if spec.has("volumeAttributesClassName") && !spec.has("csi") {
        let detail = "has to be specified when using volumeAttributesClassName";
        causes.required(path.child("csi"), detail);
    }
}

fn capacity(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let capacity = spec.field("capacity");
    let others = spec.members("capacity").filter(|it| it.0 != "storage").count();
    if spec.members("capacity").next().is_none() {
        causes.required(path, "");
    }
    if !capacity.has("storage") || 0 < others {
        let shown = if capacity.is_null() { json!({}) } else { capacity.clone() };
        causes.not_supported(path, &shown, &["storage"]);
    }
    for (name, value) in spec.members("capacity") {
        if rules::quantity(value).is_some_and(|it| it.value() <= 0) {
            causes.invalid(path.key(name), value, "must be greater than zero");
        }
    }
}

fn sources(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = spec.as_object().into_iter().flatten();
    members
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, value)| !NO_SOURCES.contains(name) && !value.is_null())
}

fn source(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let mut given = sources(spec);
    let Some((kind, first)) = given.next() else {
        causes.required(path, "must specify a volume type");
        return;
    };
    for (more, _) in given {
        causes.forbidden(path.child(more), "may not specify more than 1 volume type");
    }
    let below = path.child(kind);
    let required: &[&str] = match kind {
        "hostPath" => {
            pod_spec::host_path(first, below, causes);
            let recycled = spec.text("persistentVolumeReclaimPolicy") == "Recycle";
            if recycled && first.text("path").trim_end_matches('/').is_empty() {
                causes.forbidden(
                    path.child("persistentVolumeReclaimPolicy"),
                    "may not be 'recycle' for a hostPath mount of '/'",
                );
            }
            &[]
        }
        "local" => {
            if !spec.has("nodeAffinity") {
                let detail = "Local volume requires node affinity";
                causes.required(path.child("nodeAffinity"), detail);
            }
            &["path"]
        }
        "nfs" => &["server", "path"],
        "csi" => &["driver", "volumeHandle"],
        "iscsi" => &["targetPortal", "iqn"],
        _ => &[],
    };
    for name in required {
        if first.text(name).is_empty() {
            causes.required(below.child(name), "");
        }
    }
}

fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let only_sources = |it: &Value| -> Value {
        sources(it.field("spec")).map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    let (mut new_sources, old_sources) = (only_sources(new), only_sources(old));
    // This secret may be added later.
    let secret = "controllerExpandSecretRef";
    if let Some(csi) = new_sources.get_mut("csi")
        && !old_sources.field("csi").has(secret)
    {
        keep(csi, secret, old_sources.field("csi"));
    }
    if new_sources != old_sources {
        let difference = rules::difference(&new_sources, &old_sources);
        causes.forbidden(
            "spec.persistentvolumesource",
            &format!("spec.persistentvolumesource is immutable after creation\n{difference}"),
        );
    }
    let (new, old) = (new.field("spec"), old.field("spec"));
    rules::unchanged(new, old, "volumeMode", "volumeMode", causes);
    let class = "volumeAttributesClassName";
    if old.has(class) && !new.has(class) {
        let detail = "update from non-nil value to nil is forbidden";
        causes.forbidden(Path::new("spec").child(class), detail);
    }
}

fn row(volume: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (volume.field("spec"), volume.field("status"));
    let terminating = volume.field("metadata").has("deletionTimestamp");
    let holder = spec.field("claimRef");
    let held = format!("{}/{}", holder.text("namespace"), holder.text("name"));
    let capacity = spec.field("capacity").text("storage");
    vec![
        print::name(volume),
        if capacity.is_empty() { "0" } else { capacity }.into(),
        claim::printed_modes(spec.items("accessModes")).into(),
        spec.text("persistentVolumeReclaimPolicy").into(),
        if terminating { "Terminating" } else { status.text("phase") }.into(),
        if holder.is_null() { String::new() } else { held }.into(),
        claim::class_of(volume).into(),
        print::or_unset(spec.text("volumeAttributesClassName")).into(),
        status.text("reason").into(),
        print::age(volume, now),
        print::or_unset(spec.text("volumeMode")).into(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn a_volume_is_in_something() {
        check(
            &PERSISTENT_VOLUME,
            spec(json!({"hostPath": null, "capacity": null, "accessModes": null})),
            expect![[r#"
                spec.accessModes: Required value
                spec.capacity: Required value
                spec.capacity: Unsupported value: {}: supported values: "storage"
                spec: Required value: must specify a volume type"#]],
        );
        check(
            &PERSISTENT_VOLUME,
            spec(json!({"hostPath": {"path": "/"}, "nfs": {}, "capacity": {"storage": "-1"},
                "persistentVolumeReclaimPolicy": "Recycle", "nodeAffinity": {}})),
            expect![[r#"
                spec.capacity[storage]: Invalid value: "-1": must be greater than zero
                spec.nodeAffinity.required: Required value: must specify required node constraints
                spec.nfs: Forbidden: may not specify more than 1 volume type
                spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"#]],
        );
        check(
            &PERSISTENT_VOLUME,
            spec(json!({"hostPath": null, "local": {"path": "/a"}})),
            expect!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        );
    }

    #[test]
    fn and_stays_in_it() {
        check_update(
            &PERSISTENT_VOLUME,
            spec(json!({"hostPath": {"path": "/b"}, "persistentVolumeReclaimPolicy": "Delete"})),
            expect![[r#"
                spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation
                - hostPath: {"path":"/a","type":""}
                + hostPath: {"path":"/b","type":""}
            "#]],
        );
        check_row(
            &PERSISTENT_VOLUME,
            spec(json!({"claimRef": {"namespace": "n", "name": "c"}})),
            expect!["a | 1Gi | RWO | Retain | Pending | n/c |  | <unset> |  | 60m | Filesystem"],
        );
    }
}
