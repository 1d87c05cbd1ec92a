//! Manifests as a user writes them: YAML or JSON files, several documents each, with the line of
//! every field kept, so that what the API server says of a field can name its place.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::kustomization;

/// Largest manifest that is read, in bytes. Far over the API server's own limit on one object, far
/// under what would hurt.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Said of what holds no object: that everything is to go is more often an error than a wish.
const NOTHING_DONE: &str = "nothing was applied or deleted; `coracle down` stops all that runs, \
                            `coracle down --delete` removes it, too";

/// One object of a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The object as JSON.
    pub(crate) value: Value,
    /// The file it came from, as the user named it.
    pub(crate) file: String,
    lines: Lines,
}

impl Object {
    /// An object that a line of `file` means.
    pub(crate) fn of_line(value: Value, file: &str, line: u64) -> Self {
        let lines = Lines { line, children: BTreeMap::new() };
        Self { value, file: file.to_owned(), lines }
    }

    /// An object made from `file`, of which no line can be told.
    pub(crate) fn of_file(value: Value, file: &str) -> Self {
        Self::of_line(value, file, 0)
    }

    /// `apiVersion`.
    pub(crate) fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`.
    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`.
    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, if it is there.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// Where a field stands, as `file:line`; for a field that is missing, the nearest one around
    /// it. `field` is a path in Kubernetes' notation, such as `spec.containers[0].image`.
    pub(crate) fn place(&self, field: &str) -> String {
        match self.lines.find(field) {
            0 => self.file.clone(),
            line => format!("{}:{line}", self.file),
        }
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Reads the manifests at `path`: one file, a folder's kustomization, or else every `.yaml`, `.yml` and
/// `.json` of the folder in the order of their names (`coracle.yaml` is not one of them), or standard
/// input for `-`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Object>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .context("read manifests from standard input")?;
        let objects = parse("standard input", &text)?;
        if objects.is_empty() {
            bail!("no Kubernetes objects in standard input: {NOTHING_DONE}");
        }
        return Ok(objects);
    }
    if kustomization::is_in(path) {
        let objects = kustomization::read(path)?;
        if objects.is_empty() {
            let path = path.display();
            bail!(
                "no Kubernetes objects in `{path}`: its kustomization names none; {NOTHING_DONE}"
            );
        }
        return Ok(objects);
    }
    let mut objects = Vec::new();
    for file in files(path)? {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("read `{name}`"))?;
        objects.extend(parse(&name, &text)?);
    }
    if objects.is_empty() {
        let also = if path.is_dir() { " and no Procfile" } else { "" };
        let path = path.display();
        bail!("no Kubernetes objects in `{path}`: it holds no manifest{also}; {NOTHING_DONE}");
    }
    Ok(objects)
}

/// Whether a file is one of those that a folder's manifests are read from.
pub(crate) fn is_manifest(file: &Path) -> bool {
    let manifest = file.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
    manifest && file.file_name().is_none_or(|it| it != crate::project::FILE_NAME)
}

/// The files that the manifests at `path` are read from.
pub(crate) fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).with_context(|| format!("look at `{}`", path.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let entries = fs::read_dir(path).with_context(|| format!("list `{}`", path.display()))?;
    for entry in entries {
        let file = entry.with_context(|| format!("list `{}`", path.display()))?.path();
        if is_manifest(&file) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads all documents of one file.
pub(crate) fn parse(file: &str, text: &str) -> anyhow::Result<Vec<Object>> {
    // `defaultMode: 0400` is octal for kubectl, too.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Located> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| anyhow::anyhow!("{}", describe(file, &error)))?;
    let mut objects = Vec::new();
    for document in documents {
        collect(file, document, &mut objects)?;
    }
    Ok(objects)
}

fn describe(file: &str, error: &serde_saphyr::Error) -> String {
    let line = error.location().map_or(0, |it| it.line());
    format!("{file}:{line}: {}", error.without_snippet())
}

fn collect(file: &str, document: Located, objects: &mut Vec<Object>) -> anyhow::Result<()> {
    let line = document.referenced.line();
    let (value, lines) = split(document);
    if value.is_null() {
        return Ok(());
    }
    if value.get("kind").and_then(Value::as_str) == Some("List") {
        let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for (index, item) in items.into_iter().enumerate() {
            let lines = lines.child(&index.to_string()).cloned().unwrap_or_default();
            objects.push(check(Object { value: item, file: file.to_owned(), lines })?);
        }
        return Ok(());
    }
    if !value.is_object() {
        bail!("{file}:{line}: this document is no Kubernetes object");
    }
    objects.push(check(Object { value, file: file.to_owned(), lines })?);
    Ok(())
}

fn check(object: Object) -> anyhow::Result<Object> {
    for (field, value) in [("apiVersion", object.api_version()), ("kind", object.kind())] {
        if value.is_empty() {
            bail!("{}: `{field}` is missing", object.place(field));
        }
    }
    if object.name().is_empty() && object.text("/metadata/generateName").is_empty() {
        bail!("{}: `metadata.name` of this {} is missing", object.place("metadata"), object.kind());
    }
    Ok(object)
}

/// The line of every field, as a tree.
#[derive(Clone, Debug, Default)]
struct Lines {
    line: u64,
    children: BTreeMap<String, Self>,
}

impl Lines {
    fn child(&self, items_index: &str) -> Option<&Self> {
        self.children.get("items")?.children.get(items_index)
    }

    fn find(&self, field: &str) -> u64 {
        let mut here = self;
        for segment in segments(field) {
            match here.children.get(segment) {
                Some(child) => here = child,
                None => break,
            }
        }
        here.line
    }
}

/// Splits `spec.ports[0].name` and `metadata.labels[example.org/x]` at their joints.
fn segments(field: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some((inside, after)) = rest.strip_prefix('[').and_then(|it| it.split_once(']')) {
            segments.push(inside.trim_matches('"'));
            rest = after;
        } else {
            let trimmed = rest.strip_prefix('.').unwrap_or(rest);
            let end = trimmed.find(['.', '[']).unwrap_or(trimmed.len());
            let (segment, after) = trimmed.split_at(end);
            if !segment.is_empty() {
                segments.push(segment);
            }
            rest = if after.len() < rest.len() { after } else { "" };
        }
    }
    segments
}

type Located = Spanned<Node>;

#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Located>),
    Map(BTreeMap<String, Located>),
}

fn split(located: Located) -> (Value, Lines) {
    let line = located.referenced.line();
    match located.value {
        Node::Scalar(value) => (value, Lines { line, children: BTreeMap::new() }),
        Node::List(items) => {
            let (values, lines): (Vec<Value>, Vec<Lines>) = items.into_iter().map(split).unzip();
            let lines = lines.into_iter().enumerate().map(|(index, it)| (index.to_string(), it));
            (Value::Array(values), Lines { line, children: lines.collect() })
        }
        Node::Map(entries) => {
            let mut values = serde_json::Map::new();
            let mut children = BTreeMap::new();
            for (key, located) in entries {
                let (value, lines) = split(located);
                values.insert(key.clone(), value);
                children.insert(key, lines);
            }
            (Value::Object(values), Lines { line, children })
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        match serde_json::Number::from_f64(value) {
            Some(number) => Ok(Node::Scalar(Value::Number(number))),
            None => Err(E::custom("a number that JSON cannot hold")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, Located>()? {
            entries.insert(key, value);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let said = match parse("a.yaml", text) {
            Ok(objects) => {
                let lines = objects.iter().map(|it| format!("{} {}", it.place(""), it.value));
                lines.collect::<Vec<String>>().join("\n")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn reads_several_documents_and_lists() {
        check(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\n\
             kind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b}\n",
            expect![[r#"
                a.yaml:1 {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}
                a.yaml:9 {"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}"#]],
        );
    }

    #[test]
    fn numbers_that_begin_with_a_zero_are_octal() {
        check(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {a: 0400, b: 0o644, c: 0, d: '0400', e: 0.5}\n",
            expect![[r#"
                a.yaml:1 {"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"a":256,"b":420,"c":0,"d":"0400","e":0.5}}"#]],
        );
    }

    #[test]
    fn names_the_place_of_what_is_missing_or_broken() {
        check("kind: Pod\n", expect!["error: a.yaml:1: `apiVersion` is missing"]);
        check(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n",
            expect!["error: a.yaml:4: `metadata.name` of this Pod is missing"],
        );
        check("just text\n", expect!["error: a.yaml:1: this document is no Kubernetes object"]);
    }

    #[test]
    fn finds_fields_by_their_path() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels:\n    \
                    example.org/x: y\nspec:\n  containers:\n  - name: c\n    image: d\n";
        let object = parse("a.yaml", text).unwrap().remove(0);
        for (field, line) in [
            ("spec.containers[0].image", 10),
            ("spec.containers[0].ports[1].name", 9),
            ("metadata.labels[example.org/x]", 6),
            ("nothing", 1),
        ] {
            assert_eq!(object.place(field), format!("a.yaml:{line}"), "{field}");
        }
    }
}
