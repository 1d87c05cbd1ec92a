//! Strategic merge, as kustomize does it. It differs from what the API server does with the same
//! patch: what a patch names in a merged list comes first, and items may have several keys.

use serde_json::{Map, Value};

/// In an object or in an item: `merge`, `replace` or `delete`.
const PATCH: &str = "$patch";

/// Deepest that values may be nested: far over any object, far under the stack.
const DEPTH_MAX: usize = 128;

/// What is known of the types of Kubernetes.
pub trait Schema {
    /// The name of the definition of a kind, if the kind is known.
    fn definition(&self, group: &str, version: &str, kind: &str) -> Option<&'static str>;

    /// What is known of a field of a definition.
    fn field(&self, definition: &str, name: &str) -> Option<Field>;
}

/// What is known of a field.
#[derive(Clone, Debug, Default)]
pub struct Field {
    /// Whether patches merge a list rather than replace it.
    pub merge: bool,
    /// Fields by which items of a merged list are the same; none if the items are plain.
    pub keys: Vec<&'static str>,
    /// Definition of the object, of the list's items, or of the map's values.
    pub definition: Option<&'static str>,
    /// Whether `definition` is of the values of a map.
    pub map: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Merge<'a> {
    schema: &'a dyn Schema,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Scope {
    Object(&'static str),
    Values(&'static str),
    Unknown,
}

type Fields = Map<String, Value>;

impl<'a> Merge<'a> {
    pub(crate) fn new(schema: &'a dyn Schema) -> Self {
        Self { schema, depth: 0 }
    }

    /// `original` after `patch`; nothing if the patch deletes it.
    pub(crate) fn object(
        self,
        original: Value,
        patch: Value,
        definition: Option<&'static str>,
    ) -> Result<Option<Value>, String> {
        let scope = definition.map_or(Scope::Unknown, Scope::Object);
        self.value(Some(original), patch, &Field::default(), scope)
    }

    fn deeper(self) -> Result<Self, String> {
        if self.depth == DEPTH_MAX {
            return Err(format!("values are nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn value(
        self,
        original: Option<Value>,
        patch: Value,
        field: &Field,
        scope: Scope,
    ) -> Result<Option<Value>, String> {
        let original = original.filter(|it| !it.is_null());
        match (original, patch) {
            (_, Value::Null) => Ok(None),
            (Some(Value::Object(original)), Value::Object(patch)) => {
                Ok(self.map(original, patch, scope)?.map(Value::Object))
            }
            (None, Value::Object(patch)) => {
                // A map that is added loses what only takes away.
                Ok(self.map(Fields::new(), patch, scope)?.map(Value::Object))
            }
            (original @ (Some(Value::Array(_)) | None), Value::Array(patch)) if field.merge => {
                let original = match original {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                Ok(self.list(original, patch, &field.keys, scope)?.map(Value::Array))
            }
            (Some(old), new) if shape(&old) != shape(&new) => {
                Err(format!("a {} cannot be merged into a {}", shape(&new), shape(&old)))
            }
            (_, plain) => Ok(Some(plain)),
        }
    }

    fn map(
        self,
        mut original: Fields,
        mut patch: Fields,
        scope: Scope,
    ) -> Result<Option<Fields>, String> {
        let deeper = self.deeper()?;
        match directive(&mut patch)? {
            Directive::Delete => return Ok(None),
            Directive::Replace => original = Fields::new(),
            Directive::Merge => {}
        }
        for (name, value) in patch {
            if name.starts_with('$') {
                return Err(format!("`{name}` is a directive that kustomize has not"));
            }
            let (field, below) = self.below(scope, &name);
            let merged = deeper
                .value(original.remove(&name), value, &field, below)
                .map_err(|error| prefixed(&name, &error))?;
            if let Some(merged) = merged {
                original.insert(name, merged);
            }
        }
        Ok(Some(original))
    }

    fn below(self, scope: Scope, name: &str) -> (Field, Scope) {
        let field = match scope {
            Scope::Object(definition) => self.schema.field(definition, name).unwrap_or_default(),
            Scope::Values(definition) => Field { definition: Some(definition), ..Field::default() },
            Scope::Unknown => Field::default(),
        };
        let below = match (field.definition, field.map) {
            (Some(definition), false) => Scope::Object(definition),
            (Some(definition), true) => Scope::Values(definition),
            (None, _) => Scope::Unknown,
        };
        (field, below)
    }

    fn list(
        self,
        original: Vec<Value>,
        mut patch: Vec<Value>,
        keys: &[&str],
        scope: Scope,
    ) -> Result<Option<Vec<Value>>, String> {
        let mut original = original;
        let alone =
            |it: &Value| it.as_object().is_some_and(|it| it.len() == 1 && it.contains_key(PATCH));
        if let Some(index) = patch.iter().position(alone) {
            let Value::Object(mut item) = patch.remove(index) else { return Ok(None) };
            match directive(&mut item)? {
                Directive::Delete => return Ok(None),
                Directive::Replace => original.clear(),
                Directive::Merge => {}
            }
        }
        // What a patch names comes first, but stays where it is if two keys tell items apart.
        let used = |key: &&&str| original.iter().chain(&patch).any(|it| it.get(**key).is_some());
        let in_place = keys.iter().filter(used).count() > 1;
        let mut merged: Vec<Value> = Vec::new();
        for item in patch {
            let Value::Object(mut item) = item else {
                original.retain(|it| *it != item);
                if !merged.contains(&item) {
                    merged.push(item);
                }
                continue;
            };
            if !keys.iter().any(|key| item.contains_key(*key)) {
                return Err(format!("an item has no `{}` to be merged by", keys.join("`, `")));
            }
            let found = position(&original, &item, keys);
            let old = found.and_then(|index| original.get(index)).cloned();
            let directive = directive(&mut item)?;
            let old = match (&directive, old) {
                (Directive::Merge, Some(Value::Object(old))) => old,
                _ => Fields::new(),
            };
            let new = match directive {
                Directive::Delete => None,
                _ => self.map(old, item, scope)?.map(Value::Object),
            };
            match (found.and_then(|index| original.get_mut(index)), new) {
                (Some(old), Some(new)) if in_place => *old = new,
                (_, new) => {
                    if let Some(index) = found {
                        original.remove(index);
                    }
                    merged.extend(new);
                }
            }
        }
        merged.append(&mut original);
        Ok(Some(merged))
    }
}

fn prefixed(name: &str, error: &str) -> String {
    format!("{name}: {error}")
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "list",
        Value::Object(_) => "map",
        _ => "plain value",
    }
}

/// The item that is the same: all keys equal, or as many as both have.
fn position(items: &[Value], wanted: &Fields, keys: &[&str]) -> Option<usize> {
    let exact = |it: &Value| keys.iter().all(|key| it.get(*key) == wanted.get(*key));
    let alike = |it: &Value| {
        let pairs = || keys.iter().map(|key| (it.get(*key), wanted.get(*key)));
        pairs().any(|(a, b)| a.is_some() && a == b)
            && pairs().all(|(a, b)| a.is_none() || b.is_none() || a == b)
    };
    items.iter().position(exact).or_else(|| items.iter().position(alike))
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(fields: &mut Fields) -> Result<Directive, String> {
    match fields.remove(PATCH) {
        None => Ok(Directive::Merge),
        Some(Value::String(it)) if it == "merge" => Ok(Directive::Merge),
        Some(Value::String(it)) if it == "replace" => Ok(Directive::Replace),
        Some(Value::String(it)) if it == "delete" => Ok(Directive::Delete),
        Some(other) => Err(format!("`{PATCH}: {other}` is not merge, replace or delete")),
    }
}
