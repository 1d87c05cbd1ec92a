//! ConfigMaps and Secrets from literals and files, and the hash at the end of their names.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    kustomization::{Generator, GeneratorOptions},
    resource::{Behavior, Resource},
};

/// Characters of Base64 a line. The hash is over the text as it is written.
const BASE64_LINE: usize = 70;

/// Characters of the hash in a name.
const HASH_LENGTH: usize = 10;

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

/// Reads a file named in a generator.
pub(crate) type Read<'a> = dyn Fn(&str) -> Result<Vec<u8>, String> + 'a;

/// Makes the object.
pub(crate) fn generate(
    kind: Kind,
    generator: &Generator,
    defaults: &GeneratorOptions,
    file: &str,
    read: &Read<'_>,
) -> Result<Resource, String> {
    if generator.name.is_empty() {
        return Err("`name` is missing".to_owned());
    }
    let pairs = pairs(generator, read)?;
    let mut object = match kind {
        Kind::ConfigMap => config_map(pairs),
        Kind::Secret => secret(pairs, &generator.kind),
    };
    if kind == Kind::ConfigMap && !generator.kind.is_empty() {
        return Err("`type` is of Secrets only".to_owned());
    }
    let options = &generator.options;
    if options.immutable || defaults.immutable {
        object.insert("immutable".to_owned(), json!(true));
    }
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(generator.name));
    if !generator.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(generator.namespace));
    }
    let fields = [
        ("labels", &defaults.labels, &options.labels),
        ("annotations", &defaults.annotations, &options.annotations),
    ];
    for (field, of_all, own) in fields {
        let merged: BTreeMap<_, _> = of_all.iter().chain(own).collect();
        if !merged.is_empty() {
            metadata.insert(field.to_owned(), json!(merged));
        }
    }
    object.insert("metadata".to_owned(), Value::Object(metadata));
    let mut resource = Resource::new(Value::Object(object), file);
    resource.hash = !(options.disable_name_suffix_hash || defaults.disable_name_suffix_hash);
    resource.behavior = match generator.behavior.as_str() {
        "" | "create" | "unspecified" => Behavior::Create,
        "merge" => Behavior::Merge,
        "replace" => Behavior::Replace,
        other => return Err(format!("behavior `{other}` is not create, merge or replace")),
    };
    Ok(resource)
}

type Pairs = BTreeMap<String, Vec<u8>>;

fn pairs(generator: &Generator, read: &Read<'_>) -> Result<Pairs, String> {
    let mut pairs = Pairs::new();
    let mut add = |key: &str, value: Vec<u8>| {
        let valid = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        if key.is_empty() || !key.chars().all(valid) {
            return Err(format!("key `{key}` may only hold letters, digits, `-`, `_` and `.`"));
        }
        match pairs.insert(key.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(format!("key `{key}` is there twice")),
        }
    };
    let env = (!generator.env.is_empty()).then_some(&generator.env);
    for path in generator.envs.iter().chain(env) {
        let text = String::from_utf8(read(path)?).map_err(|_| format!("`{path}` is not UTF-8"))?;
        for (index, line) in text.lines().enumerate() {
            let line = if index == 0 { line.trim_start_matches('\u{feff}') } else { line };
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            add(key, value.as_bytes().to_vec())
                .map_err(|it| format!("line {} of `{path}`: {it}", index + 1))?;
        }
    }
    for literal in &generator.literals {
        match literal.split_once('=') {
            Some((key, value)) if !key.is_empty() => add(key, unquoted(value).into())?,
            _ => return Err(format!("literal `{literal}` is not KEY=VALUE")),
        }
    }
    for file in &generator.files {
        let (key, path) = match file.split_once('=') {
            None => (file.rsplit('/').next().unwrap_or(file), file.as_str()),
            Some((key, path)) if !key.is_empty() && !path.is_empty() && !path.contains('=') => {
                (key, path)
            }
            Some(_) => return Err(format!("file `{file}` is neither PATH nor KEY=PATH")),
        };
        add(key, read(path)?)?;
    }
    Ok(pairs)
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote).and_then(|it: &str| it.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

fn config_map(pairs: Pairs) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!("v1"));
    object.insert("kind".to_owned(), json!("ConfigMap"));
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in pairs {
        match String::from_utf8(value) {
            Ok(text) => data.insert(key, json!(text)),
            Err(error) => binary.insert(key, json!(base64_lines(error.as_bytes()))),
        };
    }
    for (field, values) in [("data", data), ("binaryData", binary)] {
        if !values.is_empty() {
            object.insert(field.to_owned(), Value::Object(values));
        }
    }
    object
}

fn secret(pairs: Pairs, kind: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), json!("v1"));
    object.insert("kind".to_owned(), json!("Secret"));
    let kind = if kind.is_empty() { "Opaque" } else { kind };
    object.insert("type".to_owned(), json!(kind));
    if !pairs.is_empty() {
        let data: Map<_, _> =
            pairs.into_iter().map(|(key, it)| (key, json!(base64_lines(&it)))).collect();
        object.insert("data".to_owned(), Value::Object(data));
    }
    object
}

/// Base64, in lines if it is longer than one.
fn base64_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    if text.len() < BASE64_LINE {
        return text;
    }
    let mut lines = String::new();
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % BASE64_LINE == 0 {
            lines.push('\n');
        }
        lines.push(character);
    }
    lines.push('\n');
    lines
}

/// Puts a generated object among the others, as its behaviour says.
pub(crate) fn absorb(resources: &mut Vec<Resource>, mut new: Resource) -> Result<(), String> {
    let id = new.id();
    let mut found = resources.iter_mut().filter(|it| it.ids().contains(&id));
    let (first, second) = (found.next(), found.next());
    match (first, second, new.behavior) {
        (None, _, Behavior::Create) => resources.push(new),
        (None, _, _) => {
            return Err(format!("there is no {} to merge into or replace", id.describe()));
        }
        (Some(_), None, Behavior::Create) => {
            let what = id.describe();
            return Err(format!("{what} is there already: give `behavior` merge or replace"));
        }
        (Some(old), None, behavior) => {
            new.inherit(old);
            merge_strings(&mut new.value, &old.value, &["metadata", "labels"]);
            merge_strings(&mut new.value, &old.value, &["metadata", "annotations"]);
            new.set_name(old.name());
            new.set_namespace(old.namespace());
            if behavior == Behavior::Merge {
                merge_strings(&mut new.value, &old.value, &["data"]);
                merge_strings(&mut new.value, &old.value, &["binaryData"]);
            }
            *old = new;
        }
        (Some(_), Some(_), _) => return Err(format!("several objects are {}", id.describe())),
    }
    Ok(())
}

/// Adds to the map at `path` what only `old` has.
fn merge_strings(new: &mut Value, old: &Value, path: &[&str]) {
    let pointer: String = path.iter().map(|it| format!("/{it}")).collect();
    let Some(Value::Object(old)) = old.pointer(&pointer) else { return };
    let mut here = new;
    for part in path {
        let Some(fields) = here.as_object_mut() else { return };
        here = fields.entry(*part).or_insert_with(|| json!({}));
    }
    let Some(fields) = here.as_object_mut() else { return };
    for (key, value) in old {
        fields.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// Puts the hash behind the names of what was generated.
pub(crate) fn add_hashes(resources: &mut [Resource]) {
    for resource in resources.iter_mut().filter(|it| it.hash) {
        resource.remember();
        let name = format!("{}-{}", resource.name(), hash(resource));
        resource.set_name(&name);
    }
}

/// SHA-256 of the content as JSON with sorted keys, in hexadecimal without what might spell a word.
fn hash(resource: &Resource) -> String {
    let mut content = Map::new();
    let value = |field: &str| resource.value.get(field).cloned();
    content.insert("kind".to_owned(), json!(resource.kind()));
    // Kustomize always leaves the name empty here.
    content.insert("name".to_owned(), json!(""));
    content.insert("data".to_owned(), value("data").unwrap_or_else(|| json!("")));
    let also = if resource.kind() == "Secret" {
        content.insert("type".to_owned(), value("type").unwrap_or_else(|| json!("")));
        "stringData"
    } else {
        "binaryData"
    };
    if let Some(also_value) = value(also).filter(Value::is_object) {
        content.insert(also.to_owned(), also_value);
    }
    let sorted: BTreeMap<String, Value> = content.into_iter().collect();
    let text = escaped(&json!(sorted).to_string());
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let hexadecimal: String = digest.as_ref().iter().map(|it| format!("{it:02x}")).collect();
    hexadecimal.chars().take(HASH_LENGTH).map(harmless).collect()
}

fn harmless(digit: char) -> char {
    match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    }
}

/// What Go's JSON escapes besides: these only occur inside strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => text.push(other),
        }
    }
    text
}
