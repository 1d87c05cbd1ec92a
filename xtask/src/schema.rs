//! Writes the apiserver's table of types from a published OpenAPI v2 document of Kubernetes.
//!
//! Takes facts only: names, types, keys. No descriptions. Does not fetch the document; the release
//! notes of Kubernetes say where it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The file to write.
const TABLE: &str = "crates/cluster/apiserver/src/schema/table.txt";
/// Types that are a JSON scalar with rules of its own, and what the table calls them.
const SCALARS: [(&str, &str); 4] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "intstr"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "microtime"),
];
/// Types that hold any JSON object although the document gives them a type.
const FREE_FORM: [&str; 3] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
];
/// Defaults that belong to a type because a list key needs them. Version 2 documents leave
/// defaults out; the version 3 documents of the same release have them.
const DEFAULTS: [(&str, &str, &str); 2] = [
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
];

const HEADER: &str = "\
# Types of the Kubernetes API, one definition a paragraph: name [group/version/kind] [any], then a
# line a field: name[!] type [attribute…]. `any` is any JSON, `!` is required, `[]` a list, `{}` a
# map with string keys, `.Name` a type of the same package.
# Written by `cargo xtask schema OPENAPI-V2-FILE`; do not edit.
";

/// Reads the document at `document` and writes the table below `root`.
pub(crate) fn generate(root: &Path, document: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(document).context("read the OpenAPI document")?;
    let document: Value = serde_json::from_str(&text).context("parse the OpenAPI document")?;
    let definitions = document.get("definitions").context("`definitions` is missing")?;
    let mut table = HEADER.to_owned();
    let definitions = definitions.as_object().context("`definitions` is no object")?;
    let definitions: BTreeMap<&String, &Value> =
        definitions.iter().filter(|(name, _)| scalar(name).is_none()).collect();
    for (name, definition) in definitions {
        print_definition(name, definition, &mut table)?;
    }
    fs::write(root.join(TABLE), table).context("write the table")
}

/// What the table calls a type that is a scalar.
fn scalar(name: &str) -> Option<&'static str> {
    SCALARS.iter().find(|(it, _)| *it == name).map(|(_, it)| *it)
}

fn reference(property: &Value) -> Option<&str> {
    property.get("$ref")?.as_str()?.strip_prefix("#/definitions/")
}

fn print_definition(name: &str, definition: &Value, table: &mut String) -> anyhow::Result<()> {
    write!(table, "\n{name}")?;
    let kinds = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    // More than one: a body that every group shares, such as DeleteOptions. It has no kind of its
    // own to look up.
    if let Some([kind]) = kinds.map(Vec::as_slice) {
        let part = |it: &str| kind.get(it).and_then(Value::as_str).unwrap_or_default();
        write!(table, " {}/{}/{}", part("group"), part("version"), part("kind"))?;
    }
    if is_free_form(name, definition) {
        table.push_str(" any");
    }
    table.push('\n');
    let required = definition.get("required").and_then(Value::as_array);
    let required: BTreeSet<&str> =
        required.into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = definition.get("properties").and_then(Value::as_object);
    // Sorted, because the apiserver looks fields up by bisection.
    let properties: BTreeMap<&String, &Value> = properties.into_iter().flatten().collect();
    for (field, property) in properties {
        let mark = if required.contains(field.as_str()) { "!" } else { "" };
        let kind = type_of(property).with_context(|| format!("`{name}.{field}`"))?;
        let kind = relative(&kind, name);
        write!(table, "\t{field}{mark} {kind}")?;
        print_attributes(property, table)?;
        if let Some((.., it)) = DEFAULTS.iter().find(|it| it.0 == name && it.1 == *field) {
            write!(table, " default={it}")?;
        }
        table.push('\n');
    }
    Ok(())
}

/// Whether a value of the type may be any JSON: the document says nothing of it, or it is a known
/// one. A type with `type: object` and no fields is one whose fields are still to come.
fn is_free_form(name: &str, definition: &Value) -> bool {
    definition.get("type").is_none() || FREE_FORM.contains(&name)
}

/// A type of the same package is named by its last part alone, with the dot.
fn relative(kind: &str, definition: &str) -> String {
    let package = definition.rfind('.').and_then(|at| definition.get(..at)).unwrap_or_default();
    let start = kind.find(|it: char| it.is_ascii_alphabetic()).unwrap_or_default();
    let (prefix, name) = kind.split_at(start);
    match name.strip_prefix(package) {
        Some(rest) if rest.starts_with('.') && !rest.get(1..).unwrap_or_default().contains('.') => {
            format!("{prefix}{rest}")
        }
        _ => kind.to_owned(),
    }
}

fn print_attributes(property: &Value, table: &mut String) -> anyhow::Result<()> {
    let text = |it: &str| property.get(it).and_then(Value::as_str);
    if let Some(it) = text("x-kubernetes-list-type") {
        write!(table, " list={it}")?;
    }
    if let Some(keys) = property.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        write!(table, " keys={}", keys.join(","))?;
    }
    if let Some(it) = text("x-kubernetes-map-type") {
        write!(table, " map={it}")?;
    }
    if let Some(it) = text("x-kubernetes-patch-strategy") {
        write!(table, " patch={it}")?;
    }
    if let Some(it) = text("x-kubernetes-patch-merge-key") {
        write!(table, " merge={it}")?;
    }
    Ok(())
}

fn type_of(property: &Value) -> anyhow::Result<String> {
    if let Some(name) = reference(property) {
        return Ok(scalar(name).unwrap_or(name).to_owned());
    }
    let text = |it: &str| property.get(it).and_then(Value::as_str).unwrap_or_default();
    Ok(match (text("type"), text("format")) {
        ("string", "") => "string".to_owned(),
        ("string", "byte") => "bytes".to_owned(),
        ("boolean", "") => "bool".to_owned(),
        ("integer", format @ ("int32" | "int64")) => format.to_owned(),
        ("number", "double") => "double".to_owned(),
        ("array", _) => {
            format!("[]{}", type_of(property.get("items").context("no `items`")?)?)
        }
        ("object", _) => match property.get("additionalProperties") {
            Some(values) => format!("{{}}{}", type_of(values)?),
            None => "object".to_owned(),
        },
        (kind, format) => bail!("unknown type `{kind}` with format `{format}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_facts_only() {
        let definition = serde_json::json!({
            "description": "A thing.",
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "description": "Its name."},
                "limits": {"type": "object", "additionalProperties":
                    {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"}},
                "parts": {"type": "array", "items": {"$ref": "#/definitions/Part"},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "a"}
            }
        });
        let mut table = String::new();
        print_definition("Thing", &definition, &mut table).unwrap();
        expect_test::expect![[r#"

            Thing
            	limits {}quantity
            	name! string
            	parts []Part list=map keys=a,b patch=merge merge=a
        "#]]
        .assert_eq(&table);
    }
}
