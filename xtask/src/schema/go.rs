//! Reads from the original's Go types what its published document leaves out: numbers of protobuf
//! fields, which fields are pointers, which are always written, names of text types with their
//! values, defaults.
//!
//! Understands the declarations of those packages, not Go: one member a line, tags in backquotes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, bail};

/// Folders with the types and what they refer to, below the folder of `k8s.io`.
const FOLDERS: [&str; 5] = [
    "api",
    "apiextensions-apiserver/pkg/apis/apiextensions/v1",
    "apimachinery/pkg/apis/meta/v1",
    "apimachinery/pkg/types",
    "kube-aggregator/pkg/apis/apiregistration/v1",
];
/// Types of the language itself.
const BUILTIN: [&str; 8] =
    ["bool", "byte", "float64", "int", "int32", "int64", "interface{}", "string"];

/// A type's package (as imported) and name. The package of a builtin type is empty.
type Name = (String, String);

/// What the Go type of one field says.
#[derive(Clone, Debug, Default)]
pub(super) struct Field {
    /// Name in JSON; empty if JSON has the members of its type in its place.
    pub(super) json: String,
    /// Numbers of the protobuf field: its own, after those of the messages that JSON leaves out
    /// around it. Empty if it is in no message.
    pub(super) numbers: Vec<u32>,
    /// Whether absent and zero are told apart.
    pub(super) pointer: bool,
    /// Whether it is written even if it is zero.
    pub(super) always: bool,
    /// Whether its innermost list is a message of its own, with the items as field 1.
    pub(super) wrapped: bool,
    /// Default value, as Go or JSON write it.
    pub(super) default: Option<String>,
    /// Go's name of its text, if that is not `string`.
    pub(super) named: Option<String>,
    /// All values its text may have, sorted; empty if that is not said.
    pub(super) choices: Vec<String>,
    /// Its innermost type.
    pub(super) leaf: Name,
}

/// Everything that the packages declare.
#[derive(Default)]
pub(super) struct Sources {
    structs: BTreeMap<Name, Vec<Field>>,
    /// Names for other types: the type, and whether it is only another name.
    names: BTreeMap<Name, (Name, bool)>,
    constants: BTreeMap<Name, String>,
    values: BTreeMap<Name, BTreeSet<String>>,
    enums: BTreeSet<Name>,
    /// List types that are messages.
    messages: BTreeSet<Name>,
}

impl Sources {
    /// Reads all packages below `root`, which is the folder of `k8s.io`.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        for folder in FOLDERS {
            for entry in walkdir::WalkDir::new(root.join(folder)).sort_by_file_name() {
                let path = entry.context("walk the Go sources")?.into_path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let generated = name.contains("generated") || name.ends_with("_test.go");
                if !name.ends_with(".go") || generated {
                    continue;
                }
                let text = fs::read_to_string(&path).context("read a Go source")?;
                let package = path.parent().and_then(|it| it.strip_prefix(root).ok());
                let package = package.context("a source outside the folder")?;
                File::new(&format!("k8s.io/{}", package.display()), &text).read_into(&mut sources);
            }
        }
        Ok(sources)
    }

    /// The fields of the type that the published document calls `definition`; `None` if there is
    /// no such Go type.
    pub(super) fn fields(&self, definition: &str) -> anyhow::Result<Option<Vec<Field>>> {
        let rest = definition.strip_prefix("io.k8s.").context("a type outside k8s.io")?;
        let (package, name) = rest.rsplit_once('.').context("a type without a package")?;
        let package = format!("k8s.io/{}", package.replace('.', "/"));
        let mut fields = Vec::new();
        let found = self.collect(&(package, name.to_owned()), &[], &mut fields)?;
        Ok(found.then_some(fields))
    }

    fn collect(&self, name: &Name, around: &[u32], into: &mut Vec<Field>) -> anyhow::Result<bool> {
        if let Some((target, _)) = self.names.get(name) {
            return self.collect(target, around, into);
        }
        let Some(members) = self.structs.get(name) else { return Ok(false) };
        for member in members {
            let numbers = [around, &member.numbers].concat();
            if member.json.is_empty() {
                let start = into.len();
                if !self.collect(&member.leaf, &numbers, into)? {
                    bail!("`{}` is embedded in `{}` and not there", member.leaf.1, name.1);
                }
                if member.numbers.is_empty() {
                    // Not part of the message: what is in its place there is around the message.
                    into.iter_mut().skip(start).for_each(|it| it.numbers.clear());
                }
                continue;
            }
            into.push(self.completed(Field { numbers, ..member.clone() })?);
        }
        Ok(true)
    }

    /// The field with what its type's name says.
    fn completed(&self, mut field: Field) -> anyhow::Result<Field> {
        let mut leaf = &field.leaf;
        while let Some((target, true)) = self.names.get(leaf) {
            leaf = target;
        }
        field.wrapped = self.messages.contains(leaf);
        if !leaf.0.is_empty() && self.underlying(leaf) == ("", "string") {
            let package = leaf.0.rsplit('/').next().unwrap_or_default();
            field.named = Some(format!("{package}.{}", leaf.1));
            if self.enums.contains(leaf) {
                field.choices = self.values.get(leaf).into_iter().flatten().cloned().collect();
            }
        }
        if let Some(default) = &field.default {
            field.default = Some(match default.strip_prefix("ref(") {
                Some(name) => {
                    let name = (leaf.0.clone(), name.trim_end_matches(')').to_owned());
                    self.constants.get(&name).context("no such constant")?.clone()
                }
                None => default.trim_matches('"').to_owned(),
            });
        }
        Ok(field)
    }

    fn underlying<'a>(&'a self, name: &'a Name) -> (&'a str, &'a str) {
        let mut name = name;
        while let Some((target, _)) = self.names.get(name) {
            name = target;
        }
        (&name.0, &name.1)
    }
}

/// One file while it is read.
struct File<'a> {
    package: &'a str,
    text: &'a str,
    imports: BTreeMap<&'a str, &'a str>,
}

impl<'a> File<'a> {
    fn new(package: &'a str, text: &'a str) -> Self {
        let mut imports = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            let line = line.strip_prefix("import ").unwrap_or(line);
            let Some((alias, path)) = line.strip_suffix('"').and_then(|it| it.split_once('"'))
            else {
                continue;
            };
            let alias = alias.trim();
            if path.starts_with("k8s.io/") && alias.bytes().all(|it| it.is_ascii_alphanumeric()) {
                let last = path.rsplit('/').next().unwrap_or(path);
                imports.insert(if alias.is_empty() { last } else { alias }, path);
            }
        }
        Self { package, text, imports }
    }

    fn read_into(&self, sources: &mut Sources) {
        let mut comments: Vec<&str> = Vec::new();
        let mut open: Option<Name> = None;
        for line in self.text.lines() {
            let trimmed = line.trim();
            if let Some(comment) = trimmed.strip_prefix("//") {
                comments.push(comment.trim());
                continue;
            }
            match &open {
                Some(name) if line == "}" => {
                    sources.structs.entry(name.clone()).or_default();
                    open = None;
                }
                Some(name) => {
                    if let Some(field) = self.member(trimmed, &comments) {
                        sources.structs.entry(name.clone()).or_default().push(field);
                    }
                }
                None => match line.strip_prefix("type ") {
                    Some(declared) => open = self.declared(declared, &comments, sources),
                    None => self.constant(trimmed, &comments, sources),
                },
            }
            comments.clear();
        }
    }

    /// A type declaration; returns the name if members follow.
    fn declared(&self, text: &str, comments: &[&str], sources: &mut Sources) -> Option<Name> {
        let (name, target) = text.split_once(' ')?;
        let name = (self.package.to_owned(), name.to_owned());
        if comments.contains(&"+enum") {
            sources.enums.insert(name.clone());
        }
        if comments.contains(&"+protobuf.nullable=true") {
            sources.messages.insert(name.clone());
        }
        match target {
            "struct {" => return Some(name),
            "struct{}" | "struct {}" => drop(sources.structs.insert(name, Vec::new())),
            target => {
                let (target, same) =
                    target.strip_prefix("= ").map_or((target, false), |it| (it, true));
                if target.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'.') {
                    sources.names.insert(name, (self.leaf(target), same));
                }
            }
        }
        None
    }

    /// `Name Type = "value"`, alone or in a block.
    fn constant(&self, text: &str, comments: &[&str], sources: &mut Sources) {
        let text = text.strip_prefix("const ").unwrap_or(text);
        let Some((left, value)) = text.split_once('=') else { return };
        let mut words = left.split_whitespace();
        let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let value = value.trim().trim_matches('"').to_owned();
        sources.constants.insert((self.package.to_owned(), name.to_owned()), value.clone());
        if !comments.contains(&"+k8s:enumExclude") {
            sources.values.entry(self.leaf(kind)).or_default().insert(value);
        }
    }

    /// A member of a struct; `None` if it is not in JSON.
    fn member(&self, line: &str, comments: &[&str]) -> Option<Field> {
        let (declared, tags) = line.split_once('`')?;
        let tag = |name: &str| {
            let start = tags.find(&format!("{name}:\""))? + name.len() + 2;
            tags.get(start..)?.split('"').next()
        };
        let json = tag("json")?;
        let (json, options) = json.split_once(',').unwrap_or((json, ""));
        if json == "-" {
            return None;
        }
        let mut words = declared.split_whitespace();
        let first = words.next()?;
        let kind = words.next().unwrap_or(first);
        let number = tag("protobuf").and_then(|it| it.split(',').nth(1)?.parse().ok());
        let default = comments.iter().find_map(|it| it.strip_prefix("+default="));
        Some(Field {
            json: json.to_owned(),
            numbers: number.into_iter().collect(),
            pointer: kind.starts_with('*'),
            always: !options.contains("omit"),
            default: default.map(str::to_owned),
            leaf: self.leaf(kind),
            ..Field::default()
        })
    }

    /// The innermost type: without pointers, lists and keys of maps.
    fn leaf(&self, kind: &str) -> Name {
        let mut kind = kind;
        loop {
            let map = || kind.strip_prefix("map[")?.split_once(']').map(|(_, values)| values);
            let inside = kind.strip_prefix('*').or_else(|| kind.strip_prefix("[]")).or_else(map);
            match inside {
                Some(inside) => kind = inside,
                None => break,
            }
        }
        match kind.split_once('.') {
            Some((alias, name)) => {
                let package = self.imports.get(alias).copied().unwrap_or(alias);
                (package.to_owned(), name.to_owned())
            }
            None if BUILTIN.contains(&kind) => (String::new(), kind.to_owned()),
            None => (self.package.to_owned(), kind.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Color of a thing.
// +enum
type Color string

const (
	Red Color = "Red"
	// +k8s:enumExclude
	Odd  Color = "Odd"
	Blue Color = "Blue"
)

// Words.
// +protobuf.nullable=true
type Words []string

type Inner struct {
	// +default=ref(Blue)
	Color Color `json:"color,omitempty" protobuf:"bytes,3,opt,name=color,casttype=Color"`
}

type Thing struct {
	metav1.TypeMeta `json:",inline"`
	Inner           `json:",inline" protobuf:"bytes,2,opt,name=inner"`

	// How often.
	Count *int32           `json:"count,omitempty" protobuf:"varint,4,opt,name=count"`
	Words map[string]Words `json:"words" protobuf:"bytes,5,rep,name=words"`
}
"#;
    const META: &str = "
type TypeMeta struct {
	Kind string `json:\"kind,omitempty\" protobuf:\"bytes,1,opt,name=kind\"`
}
";

    #[test]
    fn reads_what_the_types_say() {
        let mut sources = Sources::default();
        File::new("k8s.io/api/test/v1", SOURCE).read_into(&mut sources);
        File::new("k8s.io/apimachinery/pkg/apis/meta/v1", META).read_into(&mut sources);
        assert!(sources.fields("io.k8s.api.test.v1.Other").unwrap().is_none());
        let fields = sources.fields("io.k8s.api.test.v1.Thing").unwrap().unwrap();
        let lines: Vec<String> = fields
            .iter()
            .map(|it| {
                format!(
                    "{} {:?} pointer={} always={} wrapped={} {:?} {:?} {:?}\n",
                    it.json,
                    it.numbers,
                    it.pointer,
                    it.always,
                    it.wrapped,
                    it.default,
                    it.named,
                    it.choices
                )
            })
            .collect();
        expect_test::expect![[r#"
            kind [] pointer=false always=false wrapped=false None None []
            color [2, 3] pointer=false always=false wrapped=false Some("Blue") Some("v1.Color") ["Blue", "Red"]
            count [4] pointer=true always=false wrapped=false None None []
            words [5] pointer=false always=true wrapped=true None None []
        "#]]
        .assert_eq(&lines.concat());
    }
}
