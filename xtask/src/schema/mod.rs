//! Writes the apiserver's table of types from a published OpenAPI v2 document of Kubernetes and the
//! Go packages of the same release.
//!
//! Takes facts only: names, types, keys, numbers. No descriptions. Does not fetch anything; in a
//! copy of Kubernetes' repository both are there (`api/openapi-spec/swagger.json`,
//! `staging/src/k8s.io`).

mod go;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use self::go::{Field, Sources};

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
/// Types of answers that the document does not have.
const EXTRA: &str = "
io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata meta.k8s.io/v1/PartialObjectMetadata
\tapiVersion string
\tkind string
\tmetadata .ObjectMeta #1

io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList meta.k8s.io/v1/PartialObjectMetadataList
\tapiVersion string
\titems!+ []io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata #2
\tkind string
\tmetadata .ListMeta #1
";

const HEADER: &str = "\
# Types of the Kubernetes API, one definition a paragraph: name [group/version/kind] [any], then a
# line a field: name[!][?][+] type [#numbers] [attribute…]. `any` is any JSON. `!` is required, `?`
# tells absent from zero, `+` is written even if zero; `[]` is a list, `{}` a map with string keys,
# `.Name` a type of the same package; numbers are those of the protobuf field, behind those of the
# messages that JSON leaves out around it. `enum` is the last attribute; its values may have spaces.
# Written by `cargo xtask schema`; do not edit.
";

/// Reads the document at `document` and the Go packages below `sources` (the folder of `k8s.io`), and
/// writes the table below `root`.
pub(crate) fn generate(root: &Path, document: &Path, sources: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(document).context("read the OpenAPI document")?;
    let document: Value = serde_json::from_str(&text).context("parse the OpenAPI document")?;
    let definitions = document.get("definitions").context("`definitions` is missing")?;
    let definitions = definitions.as_object().context("`definitions` is no object")?;
    let sources = Sources::read(sources)?;
    let mut paragraphs: Vec<String> = EXTRA.split("\n\n").map(|it| it.trim().to_owned()).collect();
    for (name, definition) in definitions.iter().filter(|(name, _)| scalar(name).is_none()) {
        let fields = sources.fields(name).with_context(|| format!("Go type of `{name}`"))?;
        paragraphs.push(paragraph(name, definition, fields.as_deref())?);
    }
    // Sorted, because the apiserver looks types up by bisection. The name ends before the first
    // space or line, which come before every letter.
    paragraphs.sort();
    fs::write(root.join(TABLE), format!("{HEADER}\n{}\n", paragraphs.join("\n\n")))
        .context("write the table")
}

/// What the table calls a type that is a scalar.
fn scalar(name: &str) -> Option<&'static str> {
    SCALARS.iter().find(|(it, _)| *it == name).map(|(_, it)| *it)
}

fn reference(property: &Value) -> Option<&str> {
    property.get("$ref")?.as_str()?.strip_prefix("#/definitions/")
}

/// The lines of a type; `known` is what its Go type says, if there is one.
fn paragraph(name: &str, definition: &Value, known: Option<&[Field]>) -> anyhow::Result<String> {
    let mut text = name.to_owned();
    let kinds = definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
    // More than one: a body that every group shares, such as DeleteOptions. It has no kind of its
    // own to look up.
    if let Some([kind]) = kinds.map(Vec::as_slice) {
        let part = |it: &str| kind.get(it).and_then(Value::as_str).unwrap_or_default();
        write!(text, " {}/{}/{}", part("group"), part("version"), part("kind"))?;
    }
    if is_free_form(name, definition) {
        text.push_str(" any");
    }
    if let Some(it) = definition.get("x-kubernetes-map-type").and_then(Value::as_str) {
        write!(text, " map={it}")?;
    }
    let required = definition.get("required").and_then(Value::as_array);
    let required: BTreeSet<&str> =
        required.into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = definition.get("properties").and_then(Value::as_object);
    // Sorted, because the apiserver looks fields up by bisection.
    let properties: BTreeMap<&String, &Value> = properties.into_iter().flatten().collect();
    for (field, property) in properties {
        let here = || format!("`{name}.{field}`");
        let none = Field::default();
        let known = match known {
            Some(fields) => {
                let found = fields.iter().find(|it| it.json == *field);
                found.with_context(here).context("no such field in Go")?
            }
            None => &none,
        };
        let kind = relative(&type_of(property).with_context(here)?, name);
        let mark = |it: bool, mark| if it { mark } else { "" };
        let required = mark(required.contains(field.as_str()), "!");
        let (pointer, always) = (mark(known.pointer, "?"), mark(known.always, "+"));
        write!(text, "\n\t{field}{required}{pointer}{always} {kind}")?;
        print_numbers(&known.numbers, &mut text)?;
        print_attributes(property, &mut text)?;
        print_known(known, &mut text)?;
    }
    Ok(text)
}

fn print_numbers(numbers: &[u32], text: &mut String) -> anyhow::Result<()> {
    for (index, it) in numbers.iter().enumerate() {
        write!(text, "{}{it}", if index == 0 { " #" } else { "." })?;
    }
    Ok(())
}

/// What only the Go type says of a field.
fn print_known(known: &Field, text: &mut String) -> anyhow::Result<()> {
    if known.wrapped {
        text.push_str(" wrapped");
    }
    if let Some(it) = &known.default {
        write!(text, " default={it}")?;
    }
    if let Some(it) = &known.named {
        write!(text, " go={it}")?;
    }
    // Last, because these may have spaces.
    if !known.choices.is_empty() {
        write!(text, " enum={}", known.choices.join(","))?;
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

fn print_attributes(property: &Value, text: &mut String) -> anyhow::Result<()> {
    let attribute = |it: &str| property.get(it).and_then(Value::as_str);
    if let Some(it) = attribute("x-kubernetes-list-type") {
        write!(text, " list={it}")?;
    }
    if let Some(keys) = property.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        write!(text, " keys={}", keys.join(","))?;
    }
    if let Some(it) = attribute("x-kubernetes-map-type") {
        write!(text, " map={it}")?;
    }
    if let Some(it) = attribute("x-kubernetes-patch-strategy") {
        write!(text, " patch={it}")?;
    }
    if let Some(it) = attribute("x-kubernetes-patch-merge-key") {
        write!(text, " merge={it}")?;
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
            "x-kubernetes-map-type": "atomic",
            "properties": {
                "name": {"type": "string", "description": "Its name."},
                "limits": {"type": "object", "additionalProperties":
                    {"$ref": "#/definitions/io.k8s.apimachinery.pkg.api.resource.Quantity"}},
                "parts": {"type": "array", "items": {"$ref": "#/definitions/Part"},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                    "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "a"}
            }
        });
        let go = |json: &str, numbers: &[u32]| Field {
            json: json.to_owned(),
            numbers: numbers.to_vec(),
            ..Field::default()
        };
        let name = Field {
            pointer: true,
            always: true,
            default: Some("a".to_owned()),
            named: Some("v1.Name".to_owned()),
            choices: vec!["a".to_owned(), "b".to_owned()],
            ..go("name", &[1])
        };
        let fields = [name, go("limits", &[2, 3]), Field { wrapped: true, ..go("parts", &[7]) }];
        let text = paragraph("Thing", &definition, Some(&fields)).unwrap();
        expect_test::expect![[r#"
            Thing map=atomic
            	limits {}quantity #2.3
            	name!?+ string #1 default=a go=v1.Name enum=a,b
            	parts []Part #7 list=map keys=a,b patch=merge merge=a wrapped"#]]
        .assert_eq(&text);
        assert!(paragraph("Thing", &definition, Some(&[])).is_err());
    }
}
