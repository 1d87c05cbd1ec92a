//! Strategic merge patch: merge patch that knows by which key the items of a list are the same,
//! with directives for what merging cannot say.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/util/strategicpatch`; see
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use serde_json::{Map, Value};

use crate::schema::{self, Patching};

/// In an object or a list item: `replace`, `delete` or `merge`.
const PATCH: &str = "$patch";
/// In an object: the keys that stay.
const RETAIN_KEYS: &str = "$retainKeys";
/// Before the name of a list: the order its items shall have.
const ORDER: &str = "$setElementOrder/";
/// Before the name of a list of plain values: values to remove.
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Why a patch makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("unable to find merge key `{key}` in an item of the patch's list `{field}`")]
    NoMergeKey { field: String, key: String },
    #[error("`{value}` is not a value of directive `{directive}`")]
    Directive { directive: &'static str, value: String },
    #[error("invalid patch format: list `{field}` mixes objects and plain values")]
    MixedList { field: String },
    #[error("the patch must be an object")]
    NotAnObject,
}

/// What is known of the fields below a value.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// Those of a definition.
    Definition(&'a str),
    /// Any name; all values are of one definition, if it is known.
    Map(Option<&'static str>),
}

impl Scope<'_> {
    fn field(self, name: &str) -> Patching {
        match self {
            Self::Definition(definition) => schema::patching(definition, name).unwrap_or_default(),
            Self::Map(definition) => Patching { definition, ..Patching::default() },
        }
    }
}

fn below(field: &Patching) -> Scope<'static> {
    match (field.map, field.definition) {
        (false, Some(definition)) => Scope::Definition(definition),
        (_, definition) => Scope::Map(definition),
    }
}

/// `original`, an object of type `definition`, after `patch`.
pub(crate) fn apply(original: Value, patch: &Value, definition: &str) -> Result<Value, Error> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            merge_map(original, patch.clone(), Scope::Definition(definition)).map(Value::Object)
        }
        _ => Err(Error::NotAnObject),
    }
}

type Fields = Map<String, Value>;

fn merge_map(mut original: Fields, mut patch: Fields, scope: Scope<'_>) -> Result<Fields, Error> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(it)) if it == "merge" => {}
        Some(Value::String(it)) if it == "replace" => return Ok(without_directives_in(patch)),
        Some(Value::String(it)) if it == "delete" => return Ok(Fields::new()),
        Some(other) => return Err(bad(PATCH, &other)),
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        let Value::Array(keys) = keys else { return Err(bad(RETAIN_KEYS, &keys)) };
        original.retain(|name, _| keys.iter().any(|it| it == name));
    }
    set_orders(&mut original, &mut patch, scope)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) =
                (original.get_mut(list), &value)
            {
                items.retain(|it| !gone.contains(it));
            }
            continue;
        }
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let field = scope.field(&name);
        let merged = match (original.remove(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(merge_map(old, new, below(&field))?)
            }
            (Some(Value::Array(old)), Value::Array(new)) if field.merge => {
                Value::Array(merge_list(old, new, &name, &field)?)
            }
            (_, value) => without_directives(value),
        };
        original.insert(name, merged);
    }
    Ok(original)
}

fn bad(directive: &'static str, value: &Value) -> Error {
    Error::Directive { directive, value: value.to_string() }
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    name: &str,
    field: &Patching,
) -> Result<Vec<Value>, Error> {
    let objects = patch.iter().filter(|it| it.is_object()).count();
    if objects == 0 {
        for value in patch {
            if !original.contains(&value) {
                original.push(value);
            }
        }
        return Ok(original);
    }
    if objects != patch.len() {
        return Err(Error::MixedList { field: name.to_owned() });
    }
    let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|it| directive(it).as_deref() == Some("replace")) {
        let rest = patch.into_iter().filter(|it| it.get(PATCH).is_none());
        return Ok(rest.map(without_directives).collect());
    }
    let Some(key) = field.merge_key else {
        return Err(Error::NoMergeKey { field: name.to_owned(), key: String::new() });
    };
    for item in patch {
        let identity = item
            .get(key)
            .cloned()
            .ok_or_else(|| Error::NoMergeKey { field: name.to_owned(), key: key.to_owned() })?;
        let same = |it: &Value| it.get(key) == Some(&identity);
        match directive(&item).as_deref() {
            Some("delete") => {
                original.retain(|it| !same(it));
                continue;
            }
            None | Some("merge") => {}
            Some(other) => return Err(bad(PATCH, &Value::String(other.to_owned()))),
        }
        match (original.iter_mut().find(|it| same(it)), item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                *old = merge_map(std::mem::take(old), new, below(field))?;
            }
            (_, item) => original.push(without_directives(item)),
        }
    }
    Ok(original)
}

/// Merges each list that the patch gives an order, and puts it into that order. What such a list
/// needs is taken out of the patch.
fn set_orders(original: &mut Fields, patch: &mut Fields, scope: Scope<'_>) -> Result<(), Error> {
    let names: Vec<String> =
        patch.keys().filter_map(|it| it.strip_prefix(ORDER)).map(str::to_owned).collect();
    for name in names {
        let Some(order) = patch.remove(&format!("{ORDER}{name}")) else { continue };
        let Value::Array(order) = order else { return Err(bad(ORDER, &order)) };
        let field = scope.field(&name);
        let gone = patch.remove(&format!("{DELETE_FROM}{name}"));
        let live = match original.get(&name) {
            Some(Value::Array(live)) => live.clone(),
            _ => Vec::new(),
        };
        let kept = live.iter().filter(|it| {
            !gone.as_ref().and_then(Value::as_array).is_some_and(|gone| gone.contains(it))
        });
        let kept = kept.cloned().collect();
        let merged = match patch.remove(&name) {
            Some(Value::Array(items)) => merge_list(kept, items, &name, &field)?,
            // The list is deleted, or replaced by something else.
            Some(other) => {
                patch.insert(name, other);
                continue;
            }
            None => kept,
        };
        if merged.is_empty() && !original.contains_key(&name) {
            continue;
        }
        original.insert(name, Value::Array(in_order(merged, &order, &live, field.merge_key)));
    }
    Ok(())
}

/// The items that `order` names in that order; the others between them by where they stand in
/// `live`.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let identity = |item: &Value| match key {
        Some(key) if item.is_object() => item.get(key).cloned().unwrap_or_default(),
        _ => item.clone(),
    };
    let index = |list: &[Value], item: &Value| {
        let wanted = identity(item);
        list.iter().position(|it| identity(it) == wanted)
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|it| index(order, it).is_some());
    named.sort_by_key(|it| index(order, it));
    // Items that are not live keep their order, behind those that are.
    others.sort_by_key(|it| index(live, it).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let place = index(live, &item);
        while let Some(other) =
            others.next_if(|it| index(live, it).zip(place).is_some_and(|(it, place)| it < place))
        {
            result.push(other);
        }
        result.push(item);
    }
    result.extend(others);
    result
}

/// A value of the patch that meets nothing to be merged with: what is left when its directives
/// have nothing to act on.
fn without_directives(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives_in(fields)),
        Value::Array(items) => {
            let plain = items.into_iter().filter(|it| {
                !matches!(it.get(PATCH).and_then(Value::as_str), Some("delete" | "replace"))
            });
            Value::Array(plain.map(without_directives).collect())
        }
        plain => plain,
    }
}

fn without_directives_in(fields: Fields) -> Fields {
    let fields = fields.into_iter();
    let plain = fields.filter(|(name, value)| {
        let directive = [PATCH, RETAIN_KEYS].contains(&name.as_str())
            || name.starts_with(ORDER)
            || name.starts_with(DELETE_FROM);
        !directive && !value.is_null()
    });
    plain.map(|(name, value)| (name, without_directives(value))).collect()
}
