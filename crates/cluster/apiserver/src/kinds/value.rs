//! Reading and filling JSON objects without caring whether a field is there.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Reading a JSON value whose fields may be absent: absent, `null` and empty are the same, as they
/// are for the original's zero values.
pub(super) trait Read {
    /// The field, `null` if absent.
    fn field(&self, name: &str) -> &Value;
    /// The field at the end of a path, `null` if any part is absent.
    fn at(&self, path: &[&str]) -> &Value;
    /// The field as text, empty if absent.
    fn text(&self, name: &str) -> &str;
    /// The field as a list, empty if absent.
    fn items(&self, name: &str) -> &[Value];
    /// The field's keys and values, none if absent.
    fn members(&self, name: &str) -> impl Iterator<Item = (&str, &Value)>;
    /// The field as a number.
    fn int(&self, name: &str) -> Option<i64>;
    /// The field as a flag, `false` if absent.
    fn flag(&self, name: &str) -> bool;
    /// Whether the field is there and says something.
    fn has(&self, name: &str) -> bool;
}

impl Read for Value {
    fn field(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&NULL)
    }

    fn at(&self, path: &[&str]) -> &Value {
        path.iter().fold(self, |value, name| value.field(name))
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }

    fn items(&self, name: &str) -> &[Value] {
        self.field(name).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn members(&self, name: &str) -> impl Iterator<Item = (&str, &Self)> {
        let members = self.field(name).as_object();
        members.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.field(name).as_i64()
    }

    fn flag(&self, name: &str) -> bool {
        self.field(name).as_bool().unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        !self.field(name).is_null()
    }
}

/// Sets the field if it is absent, `null` or an empty text. Does nothing to what is no object.
pub(super) fn set_default(value: &mut Value, name: &str, default: impl Into<Value>) {
    if let Value::Object(members) = value {
        let empty = match members.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if empty {
            members.insert(name.to_owned(), default.into());
        }
    }
}

/// Sets the field whatever it was. Does nothing to what is no object.
pub(super) fn set(value: &mut Value, name: &str, new: impl Into<Value>) {
    if let Value::Object(members) = value {
        members.insert(name.to_owned(), new.into());
    }
}

/// Gives `value` the field as `from` has it: present, or absent.
pub(super) fn keep(value: &mut Value, name: &str, from: &Value) {
    match from.get(name) {
        Some(old) => set(value, name, old.clone()),
        None => remove(value, name),
    }
}

/// Removes the field.
pub(super) fn remove(value: &mut Value, name: &str) {
    if let Value::Object(members) = value {
        members.remove(name);
    }
}

/// The items of a list to change, none if absent.
pub(super) fn items_mut<'a>(
    value: &'a mut Value,
    name: &str,
) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The value in a field, an empty object made there if absent. `None` if `value` is no object itself.
pub(super) fn object_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    set_default(value, name, Value::Object(Map::new()));
    value.get_mut(name)
}
