//! Replacements: a value of one object, copied into fields of others.

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::{
    kustomization::{FieldOptions, Replacement, Source, Target},
    resource::{Id, Resource},
    select::Select,
};

/// The field that is meant where none is named.
const NAME: &str = "metadata.name";

/// Carries out one replacement.
pub(crate) fn apply(resources: &mut [Resource], replacement: &Replacement) -> Result<(), String> {
    let value = match (&replacement.source, &replacement.source_value) {
        (Some(source), None) => source_value(resources, source)?,
        (None, Some(text)) => json!(text),
        (Some(_), Some(_)) => {
            return Err("`source` and `sourceValue` exclude each other".to_owned());
        }
        (None, None) => return Err("`source` is missing".to_owned()),
    };
    if replacement.targets.is_empty() {
        return Err("`targets` is missing".to_owned());
    }
    replacement.targets.iter().try_for_each(|target| into(resources, target, &value))
}

fn source_value(resources: &[Resource], source: &Source) -> Result<Value, String> {
    let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
    let meant = |id: &Id| {
        fits(&source.group, &id.group)
            && fits(&source.version, &id.version)
            && fits(&source.kind, &id.kind)
            && fits(&source.name, &id.name)
            && fits(&source.namespace, &id.namespace)
    };
    let what = format!("{} `{}`", source.kind, source.name);
    let mut found = resources.iter().filter(|it| it.ids().iter().any(meant));
    let resource = match (found.next(), found.next()) {
        (Some(one), None) => one,
        (None, _) => return Err(format!("source {what} is not there")),
        (Some(_), Some(_)) => return Err(format!("several objects are source {what}")),
    };
    let path = if source.field_path.is_empty() { NAME } else { &source.field_path };
    let mut here = Some(&resource.value);
    for part in split(path) {
        here = match (here, key_value(&part)) {
            (Some(Value::Array(items)), Some((key, value))) => {
                items.iter().find(|it| item_text(it, key).as_deref() == Some(value))
            }
            (Some(Value::Array(items)), None) => {
                part.parse().ok().and_then(|it: usize| items.get(it))
            }
            (Some(Value::Object(fields)), None) => fields.get(&part),
            _ => None,
        };
    }
    let value = here.filter(|it| !it.is_null());
    let value = value.ok_or_else(|| format!("source {what} has no field `{path}`"))?;
    let delimiter = &source.options.delimiter;
    if delimiter.is_empty() {
        return Ok(value.clone());
    }
    let whole = text(value).ok_or("only a plain value has a `delimiter`")?;
    let index = usize::try_from(source.options.index).ok();
    let part = index.and_then(|it| whole.split(delimiter.as_str()).nth(it));
    let part = part.ok_or_else(|| {
        format!("`{whole}` has no part {} between `{delimiter}`", source.options.index)
    })?;
    Ok(json!(part))
}

fn into(resources: &mut [Resource], target: &Target, value: &Value) -> Result<(), String> {
    let select = target.select.as_ref().ok_or("a target has no `select`")?;
    let select = Select::parse(select)?;
    let reject: Vec<Select> = target.reject.iter().map(Select::parse).collect::<Result<_, _>>()?;
    let name = [NAME.to_owned()];
    let paths = if target.field_paths.is_empty() { &name[..] } else { &target.field_paths };
    for resource in resources {
        let ids = resource.ids();
        let rejected = reject.iter().any(|it| {
            (it.has_labels() && it.labels_fit(resource))
                || (it.has_id() && ids.iter().any(|id| it.selects_id(id)))
        });
        let selected = select.labels_fit(resource) && ids.iter().any(|id| select.selects_id(id));
        if rejected || !selected {
            continue;
        }
        let what = resource.id().describe();
        for path in paths {
            let mut walk = Walk { value, options: &target.options, found: 0 };
            walk.at(&mut resource.value, &split(path), false)
                .map_err(|error| format!("`{path}` of {what}: {error}"))?;
            if walk.found == 0 {
                let create = if target.options.create { "" } else { "; `create` would make it" };
                return Err(format!("{what} has no field `{path}`{create}"));
            }
        }
    }
    Ok(())
}

struct Walk<'a> {
    value: &'a Value,
    options: &'a FieldOptions,
    found: usize,
}

impl Walk<'_> {
    /// `new` says that what is here has just been made.
    fn at(&mut self, here: &mut Value, path: &[String], new: bool) -> Result<(), String> {
        let Some((part, rest)) = path.split_first() else {
            self.found += 1;
            return self.set(here, new);
        };
        if here.is_null() && (new || self.options.create) {
            *here = if is_of_list(part) { json!([]) } else { json!({}) };
        }
        match here {
            Value::Array(items) => self.in_list(items, part, rest),
            Value::Object(fields) => {
                if self.options.create && !fields.contains_key(part) {
                    let made = fields.entry(part.clone()).or_insert(Value::Null);
                    return self.at(made, rest, true);
                }
                fields.get_mut(part).map_or(Ok(()), |it| self.at(it, rest, false))
            }
            Value::String(_) => {
                Err(format!("`{part}` is inside a text: values in texts are not replaced here"))
            }
            _ => Ok(()),
        }
    }

    fn in_list(
        &mut self,
        items: &mut Vec<Value>,
        part: &str,
        rest: &[String],
    ) -> Result<(), String> {
        if part == "*" {
            return items.iter_mut().try_for_each(|it| self.at(it, rest, false));
        }
        if let Ok(index) = part.parse::<usize>() {
            let new = index == items.len() && self.options.create;
            if new {
                items.push(Value::Null);
            }
            let length = items.len();
            let item = items.get_mut(index);
            let item = item.ok_or_else(|| format!("there is no item {index} in {length}"))?;
            return self.at(item, rest, new);
        }
        let Some((key, wanted)) = key_value(part) else {
            return Err(format!(
                "`{part}` is looked for in a list: use `[key=value]`, `*` or a number"
            ));
        };
        let pattern = Regex::new(wanted)
            .map_err(|error| format!("`{wanted}` is no regular expression: {error}"))?;
        let fits = |it: &Value| item_text(it, key).is_some_and(|it| pattern.is_match(&it));
        if self.options.create && !items.iter().any(fits) {
            let value = plain(wanted);
            items.push(if key.is_empty() { value } else { json!({ key: value }) });
        }
        items.iter_mut().filter(|it| fits(it)).try_for_each(|it| self.at(it, rest, false))
    }

    fn set(&self, here: &mut Value, new: bool) -> Result<(), String> {
        let delimiter = self.options.delimiter.as_str();
        let mut value = self.value.clone();
        if !delimiter.is_empty() {
            let old = if new { String::new() } else { text(here).unwrap_or_default() };
            if here.is_array() || here.is_object() {
                return Err("only a plain value has a `delimiter`".to_owned());
            }
            let part = text(&value).ok_or("a list or a map cannot be part of a text")?;
            let mut parts: Vec<&str> = old.split(delimiter).collect();
            match usize::try_from(self.options.index) {
                Err(_) => parts.insert(0, &part),
                Ok(index) => match parts.get_mut(index) {
                    Some(place) => *place = &part,
                    None => parts.push(&part),
                },
            }
            value = json!(parts.join(delimiter));
        }
        *here = match (&*here, text(&value)) {
            (Value::Array(_) | Value::Object(_), _) => value,
            (Value::Null, None) => value,
            // What is made is written as plain text, and read as what that looks like.
            (Value::Null, Some(text)) if new => plain(&text),
            (_, None) => return Err("a list or a map cannot replace a plain value".to_owned()),
            (Value::String(_), Some(text)) => json!(text),
            (old, Some(text)) => {
                let read = plain(&text);
                if std::mem::discriminant(old) != std::mem::discriminant(&read) && !old.is_null() {
                    return Err(format!("`{text}` cannot stand for `{old}`, which is no text"));
                }
                read
            }
        };
        Ok(())
    }
}

fn is_of_list(part: &str) -> bool {
    part == "*" || key_value(part).is_some() || part.parse::<usize>().is_ok()
}

/// A plain value as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

/// What a text is in YAML without quotes.
fn plain(text: &str) -> Value {
    match serde_saphyr::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => json!(text),
    }
}

fn item_text(item: &Value, key: &str) -> Option<String> {
    if key.is_empty() { text(item) } else { item.get(key).and_then(text) }
}

/// Splits `[key=value]`.
fn key_value(part: &str) -> Option<(&str, &str)> {
    part.strip_prefix('[')?.strip_suffix(']')?.split_once('=')
}

/// Splits at dots; not at those in brackets, nor behind a backslash.
fn split(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut bracket = false;
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'.') => {
                characters.next();
                part.push('.');
            }
            '.' if !bracket => parts.push(std::mem::take(&mut part)),
            other => {
                bracket = match other {
                    '[' => true,
                    ']' => false,
                    _ => bracket,
                };
                part.push(other);
            }
        }
    }
    parts.push(part);
    let bare = |it: String| match it.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inside) if !inside.contains('=') => inside.to_owned(),
        _ => it,
    };
    parts.into_iter().filter(|it| !it.is_empty()).map(bare).collect()
}
