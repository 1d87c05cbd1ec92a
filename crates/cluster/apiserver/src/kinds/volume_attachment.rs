//! VolumeAttachments: a volume is to be attached to a node.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Causes, Column, Kind,
    csi_node::driver_name,
    path::Path,
    print::{self, AGE, NAME, column, flag},
    rules,
    value::{Read, object_mut, set_default},
};

pub(super) static VOLUME_ATTACHMENT: Kind = Kind {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    namespaced: false,
    schema: "io.k8s.api.storage.v1.VolumeAttachment",
    default,
    prepare_create: |attachment| {
        super::value::remove(attachment, "status");
        default(attachment);
    },
    validate,
    validate_update: |new, old, causes| rules::unchanged(new, old, "spec", "spec", causes),
    columns: COLUMNS,
    row,
    unattended: true,
    shows_deleted: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Attacher", "The driver that does it."),
    column("PV", "The volume."),
    column("Node", "The node."),
    flag("Attached", "Whether it is done."),
    AGE,
];

/// Bytes of what a driver says of an attached volume, and of a failure.
const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;

fn default(attachment: &mut Value) {
    if let Some(status) = object_mut(attachment, "status") {
        set_default(status, "attached", false);
    }
}

fn validate(attachment: &Value, causes: &mut Causes) {
    let (spec, path) = (attachment.field("spec"), Path::new("spec"));
    driver_name(spec, "attacher", path, causes);
    let (source, source_path) = (spec.field("source"), path.child("source"));
    let volume = source.field("persistentVolumeName");
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), volume.as_str()) {
        (false, None) => causes.required(source_path, exactly_one),
        (true, Some(_)) => causes.forbidden(source_path, exactly_one),
        (false, Some("")) => {
            let detail = "must specify non empty persistentVolumeName";
            causes.required(source_path.child("persistentVolumeName"), detail);
        }
        _ => {}
    }
    let node = spec.text("nodeName");
    rules::all(api::names::dns1123_subdomain(node), path.child("nodeName"), node, causes);
    if let Some(name) = volume.as_str().filter(|it| !it.is_empty()) {
        let path = source_path.child("persistentVolumeName");
        rules::all(api::names::dns1123_subdomain(name), path, name, causes);
    }
    validate_status(attachment.field("status"), Path::new("status"), causes);
}

fn validate_status(status: &Value, path: Path<'_>, causes: &mut Causes) {
    let bytes: usize = status
        .members("attachmentMetadata")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if METADATA_BYTES_MAX < bytes {
        rules::too_long(path.child("attachmentMetadata"), METADATA_BYTES_MAX, causes);
    }
    for name in ["attachError", "detachError"] {
        if MESSAGE_BYTES_MAX < status.field(name).text("message").len() {
            rules::too_long(path.child(name).child("message"), METADATA_BYTES_MAX, causes);
        }
    }
}

fn row(attachment: &Value, now: Timestamp) -> Vec<Value> {
    let spec = attachment.field("spec");
    vec![
        print::name(attachment),
        spec.text("attacher").into(),
        spec.field("source").text("persistentVolumeName").into(),
        spec.text("nodeName").into(),
        attachment.field("status").flag("attached").into(),
        print::age(attachment, now),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    #[test]
    fn one_volume_on_one_node() {
        check(
            &VOLUME_ATTACHMENT,
            json!({"spec": {"attacher": null, "nodeName": null, "source": null}}),
            expect![[r#"
                spec.attacher: Required value
                spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
                spec.nodeName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
        );
        check_update(
            &VOLUME_ATTACHMENT,
            json!({"spec": {"nodeName": "m"}}),
            expect![[
                r#"spec: Invalid value: {"attacher":"example.com","nodeName":"m","source":{"persistentVolumeName":"v"}}: field is immutable"#
            ]],
        );
        check_row(
            &VOLUME_ATTACHMENT,
            json!({"status": {"attached": true}}),
            expect!["a | example.com | v | n | true | 60m"],
        );
    }
}
