//! Whether an applied configuration fits its type, in the original's words.
//!
//! This is less than the checks of other writes (numbers need not be whole): what is applied becomes
//! part of an object that is checked like any other.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    element::Element,
    shape::{Form, Shape},
};
use crate::{limits::FINDINGS_MAX, schema::Type};

/// Whether lists may have two items with the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duplicates {
    Refused,
    Allowed,
}

/// What is wrong with `value`, if anything.
pub(super) fn check(shape: Shape, value: &Value, duplicates: Duplicates) -> Result<(), String> {
    let mut walk = Walk { path: String::new(), found: Vec::new(), more: 0, duplicates };
    walk.value(shape, value);
    match walk.found.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        all => {
            let text = all.iter().fold("errors:".to_owned(), |text, it| text + "\n  " + it);
            let more =
                if walk.more == 0 { String::new() } else { format!("\n  and {} more", walk.more) };
            Err(text + &more)
        }
    }
}

struct Walk {
    path: String,
    found: Vec<String>,
    /// How many were found besides.
    more: usize,
    duplicates: Duplicates,
}

impl Walk {
    fn report(&mut self, what: &str) {
        if self.found.len() >= FINDINGS_MAX {
            self.more += 1;
            return;
        }
        let colon = if self.path.is_empty() { "" } else { ": " };
        self.found.push(format!("{}{colon}{what}", self.path));
    }

    fn at(&mut self, step: &Element<'_>, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        // Writing to a string cannot fail.
        let _ = write!(self.path, "{step}");
        check(self);
        self.path.truncate(length);
    }

    fn value(&mut self, shape: Shape, value: &Value) {
        match (shape, value) {
            (_, Value::Null) => {}
            (Shape::Scalar(kind), _) => self.scalar(kind, value),
            (Shape::Atomic(kind), _) => self.whole(kind, value),
            (Shape::Free, _) => {}
            (Shape::Struct(_) | Shape::Map(_), Value::Object(members)) => {
                for (key, value) in members {
                    let unknown = shape.child(key).is_none();
                    self.at(&Element::field(key), |walk| match shape.child(key) {
                        Some(child) => walk.value(child, value),
                        None => walk.report("field not declared in schema"),
                    });
                    if unknown {
                        break;
                    }
                }
            }
            (Shape::Set(_) | Shape::Keyed(_), Value::Array(items)) => self.items(shape, items),
            _ => self.wrong_form(shape.form(None), value),
        }
    }

    fn wrong_form(&mut self, wanted: Form, value: &Value) {
        let wanted = if wanted == Form::List { "list" } else { "map" };
        self.report(&format!("expected {wanted}, got &{{{}}}", shown(value)));
    }

    fn items(&mut self, shape: Shape, items: &[Value]) {
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let step = match shape.step(item) {
                Ok(step) => step,
                Err(why) => return self.report(&format!("element {index}: {why}")),
            };
            if self.duplicates == Duplicates::Refused && seen.contains(&step) {
                self.report(&format!("duplicate entries for key {step}"));
            }
            self.at(&step, |walk| walk.value(shape.item(), item));
            seen.insert(step);
        }
    }

    /// An atomic value: the types in it count, but not who owns what.
    fn whole(&mut self, kind: &'static Type, value: &Value) {
        match (kind, value) {
            (_, Value::Null) => {}
            (Type::List(item), Value::Array(items)) => {
                for (index, value) in (0..).zip(items) {
                    self.at(&Element::Index(index), |walk| walk.whole(item, value));
                }
            }
            (Type::Map(values), Value::Object(members)) => {
                for (key, value) in members {
                    self.at(&Element::field(key), |walk| walk.whole(values, value));
                }
            }
            (Type::Object(_), _) => match kind.below() {
                Some(definition) if !definition.fields.is_empty() => {
                    self.value(Shape::Struct(definition), value);
                }
                _ => {}
            },
            (Type::Any, _) => {}
            (Type::List(_), _) => self.wrong_form(Form::List, value),
            (Type::Map(_), _) => self.wrong_form(Form::Map, value),
            _ => self.scalar(kind, value),
        }
    }

    fn scalar(&mut self, kind: &Type, value: &Value) {
        let scalar = !value.is_object() && !value.is_array();
        match kind {
            Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => {
                let found = go_type(value);
                self.report(&format!("expected numeric (int or float), got {found}"));
            }
            Type::Bool if !value.is_boolean() => {
                self.report(&format!("expected boolean, got &{{{}}}", shown(value)));
            }
            Type::String | Type::Bytes | Type::Time | Type::MicroTime if !value.is_string() => {
                let found = go_syntax(value);
                let text =
                    format!("expected string, got &value.valueUnstructured{{Value:{found}}}");
                self.report(&text);
            }
            Type::Quantity | Type::IntOrString if !scalar => {
                self.report(&format!("expected any scalar, got &{{{}}}", shown(value)));
            }
            _ => {}
        }
    }
}

/// Go's name of the type that a decoder makes of a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go prints it with `%v`.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", members.join(" "))
        }
    }
}

/// A value as Go prints it with `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(members) => {
            let member = |(key, value)| format!("{key:?}:{}", go_syntax(value));
            let members: Vec<_> = members.iter().map(member).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
    }
}
