//! Rules for a pod's volumes.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

/// Greatest mode of a file: permissions only.
const MODE_MAX: i64 = 0o777;
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// What a host path can be said to be.
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks `volumes` and gives back their names.
pub(super) fn validate<'a>(
    spec: &'a Value,
    path: Path<'_>,
    causes: &mut Causes,
) -> BTreeSet<&'a str> {
    let volumes = path.child("volumes");
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        let path = volumes.index(index);
        let name = volume.text("name");
        if name.is_empty() {
            causes.required(path.child("name"), "");
        } else {
            rules::all(names::dns1123_label(name), path.child("name"), name, causes);
        }
        if !name.is_empty() && !seen.insert(name) {
            causes.duplicate(path.child("name"), &Value::from(name));
        }
        source(volume, path, causes);
    }
    seen
}

fn source(volume: &Value, path: Path<'_>, causes: &mut Causes) {
    let members = volume.as_object().into_iter().flatten();
    let mut given = members.filter(|(name, value)| *name != "name" && !value.is_null());
    let Some((kind, first)) = given.next() else {
        causes.required(path, "must specify a volume type");
        return;
    };
    for (more, _) in given {
        causes.forbidden(path.child(more), "may not specify more than 1 volume type");
    }
    let path = path.child(kind);
    match kind.as_str() {
        "emptyDir" => empty_dir(first, path, causes),
        "hostPath" => host_path(first, path, causes),
        "secret" => {
            required(first, "secretName", path, causes);
            files(first, path, causes);
        }
        "configMap" => {
            required(first, "name", path, causes);
            files(first, path, causes);
        }
        "downwardAPI" => mode(first, "defaultMode", path, causes),
        "persistentVolumeClaim" => required(first, "claimName", path, causes),
        _ => {}
    }
}

fn required(source: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    if source.text(name).is_empty() {
        causes.required(path.child(name), "");
    }
}

fn empty_dir(source: &Value, path: Path<'_>, causes: &mut Causes) {
    let limit = source.text("sizeLimit").parse::<api::quantity::Quantity>();
    if limit.is_ok_and(api::quantity::Quantity::is_negative) {
        causes.forbidden(
            path.child("sizeLimit"),
            "SizeLimit field must be a valid resource quantity",
        );
    }
}

/// Checks a path of the node.
pub(in crate::kinds) fn host_path(source: &Value, path: Path<'_>, causes: &mut Causes) {
    let host_path = source.text("path");
    if host_path.is_empty() {
        causes.required(path.child("path"), "");
    } else {
        backsteps(host_path, path.child("path"), causes);
    }
    if !HOST_PATH_TYPES.contains(&source.text("type")) {
        causes.not_supported(path.child("type"), source.field("type"), HOST_PATH_TYPES);
    }
}

/// Items and modes of a volume made from an object.
fn files(source: &Value, path: Path<'_>, causes: &mut Causes) {
    mode(source, "defaultMode", path, causes);
    let items = path.child("items");
    for (index, item) in source.items("items").iter().enumerate() {
        let path = items.index(index);
        required(item, "key", path, causes);
        match item.text("path") {
            "" => causes.required(path.child("path"), ""),
            text => {
                relative(text, path.child("path"), causes);
                if text.starts_with("..") && !text.starts_with("../") && text != ".." {
                    causes.invalid(path.child("path"), &text.into(), "must not start with '..'");
                }
            }
        }
        mode(item, "mode", path, causes);
    }
}

fn mode(source: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    if source.int(name).is_some_and(|it| !(0..=MODE_MAX).contains(&it)) {
        causes.invalid(path.child(name), source.field(name), MODE);
    }
}

/// A path below some folder that cannot leave it.
pub(super) fn relative(text: &str, path: Path<'_>, causes: &mut Causes) {
    if text.starts_with('/') {
        causes.invalid(path, &Value::from(text), "must be a relative path");
    }
    backsteps(text, path, causes);
}

fn backsteps(text: &str, path: Path<'_>, causes: &mut Causes) {
    if text.split('/').any(|it| it == "..") {
        causes.invalid(path, &Value::from(text), "must not contain '..'");
    }
}
