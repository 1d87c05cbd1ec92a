//! How a value is owned, by the table of types: as a whole, field by field, or item by item.

use std::{borrow::Cow, sync::LazyLock};

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{Definition, Field, Type, Zero};

/// How a value is owned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// One owner: a text, a number…
    Scalar(&'static Type),
    /// One owner: a list, map or object that is atomic.
    Atomic(&'static Type),
    /// An object with named fields.
    Struct(&'static Definition),
    /// A map whose keys are owned one by one.
    Map(&'static Type),
    /// A list of scalars that are owned one by one.
    Set(&'static Type),
    /// A list of objects that are owned one by one, told apart by some of their fields.
    Keyed(Keyed),
    /// Anything: what it is shows in the value.
    Free,
}

/// The list type `map`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed {
    /// Names of fields, separated by commas.
    keys: &'static str,
    item: &'static Type,
}

/// What a walk does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Leaf,
    Map,
    List,
}

impl Shape {
    pub(super) fn of_field(field: &'static Field) -> Self {
        match &field.kind {
            Type::List(item) => match field.list_type {
                Some("set") => Self::Set(item),
                Some("map") => {
                    Self::Keyed(Keyed { keys: field.list_keys.unwrap_or_default(), item })
                }
                _ => Self::Atomic(&field.kind),
            },
            Type::Map(values) if field.map_type != Some("atomic") => Self::Map(values),
            Type::Map(_) => Self::Atomic(&field.kind),
            Type::Object(_) => match (field.map_type, field.kind.below()) {
                (Some("atomic"), _) => Self::Atomic(&field.kind),
                (Some("granular"), Some(definition)) => Self::Struct(definition),
                _ => Self::of_type(&field.kind),
            },
            _ => Self::of_type(&field.kind),
        }
    }

    /// The shape of a list's items or a map's values.
    fn of_type(kind: &'static Type) -> Self {
        match kind {
            Type::Object(_) => match kind.below() {
                Some(it) if it.map_type == Some("atomic") => Self::Atomic(kind),
                Some(it) if !it.fields.is_empty() => Self::Struct(it),
                _ => Self::Free,
            },
            Type::List(_) => Self::Atomic(kind),
            Type::Map(values) => Self::Map(values),
            Type::Any => Self::Free,
            _ => Self::Scalar(kind),
        }
    }

    /// Whether the value is walked into, and how; an absent one and `null` take the shape's part.
    pub(super) fn form(self, value: Option<&Value>) -> Form {
        match self {
            Self::Scalar(_) | Self::Atomic(_) => Form::Leaf,
            Self::Struct(_) | Self::Map(_) => Form::Map,
            Self::Set(_) | Self::Keyed(_) => Form::List,
            // Lists of an unknown type are atomic.
            Self::Free if value.is_some_and(Value::is_object) => Form::Map,
            Self::Free => Form::Leaf,
        }
    }

    /// The shape of the value at `key`; `None` if there is no such field.
    pub(super) fn child(self, key: &str) -> Option<Self> {
        match self {
            Self::Struct(definition) => definition.field(key).map(Self::of_field),
            Self::Map(values) => Some(Self::of_type(values)),
            Self::Free => Some(Self::Free),
            Self::Scalar(_) | Self::Atomic(_) | Self::Set(_) | Self::Keyed(_) => None,
        }
    }

    /// The shape of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Keyed(Keyed { item, .. }) | Self::Set(item) => Self::of_type(item),
            _ => Self::Free,
        }
    }

    /// The shape below a step.
    pub(super) fn below(self, element: &Element<'_>) -> Option<Self> {
        match element {
            Element::Field(name) => self.child(name),
            Element::Key(_) => matches!(self, Self::Keyed(_)).then(|| self.item()),
            Element::Value(_) | Element::Index(_) => None,
        }
    }

    /// Whether `name` is a named field here, not a key of a map.
    pub(super) fn names(self, name: &str) -> bool {
        matches!(self, Self::Struct(definition) if definition.field(name).is_some())
    }

    /// The step to an item of a list, in the original's words if there is none.
    pub(super) fn step<'a>(self, item: &'a Value) -> Result<Element<'a>, String> {
        match self {
            Self::Keyed(keyed) => keyed.step(item),
            _ => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".to_owned())
                }
                Value::Array(_) => {
                    Err("not supported: associative list with lists as elements".to_owned())
                }
                Value::Null => {
                    let why =
                        "associative list without keys has an element that's an explicit null";
                    Err(why.to_owned())
                }
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    Ok(Element::Value(Cow::Borrowed(item)))
                }
            },
        }
    }

    /// What a field that is absent from an object stands for, where that is not nothing: an empty
    /// object for a struct, the zero value for a required field.
    pub(super) fn absent(self, key: &str) -> Option<&'static Value> {
        let Self::Struct(definition) = self else { return None };
        let field = definition.field(key)?;
        match (field.zero, &field.kind) {
            // A pointer: absent, or written as `null`.
            (Zero::Distinct, _) => field.required.then_some(&Value::Null),
            // A struct, which the original writes even if it is empty.
            (_, Type::Object(_)) if !field.kind.below().is_some_and(|it| it.any) => Some(&EMPTY),
            (Zero::Absent, _) => None,
            (Zero::Written, Type::String) => Some(&NO_TEXT),
            (Zero::Written, Type::Int32 | Type::Int64 | Type::Double) => Some(&ZERO),
            (Zero::Written, Type::Bool) => Some(&FALSE),
            (Zero::Written, _) => Some(&Value::Null),
        }
    }
}

/// An object without members.
pub(super) static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NO_TEXT: Value = Value::String(String::new());
static ZERO: LazyLock<Value> = LazyLock::new(|| Value::from(0));
static FALSE: Value = Value::Bool(false);

impl Keyed {
    fn step<'a>(&self, item: &'a Value) -> Result<Element<'a>, String> {
        let item = match item {
            Value::Object(item) => item,
            Value::Null => {
                return Err("associative list with keys may not have a null element".to_owned());
            }
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let definition = self.item.below();
        let mut fields = Vec::with_capacity(2);
        for key in self.keys.split(',') {
            let default = || default(definition?.field(key)?);
            if let Some(value) =
                item.get(key).map(Cow::Borrowed).or_else(|| default().map(Cow::Owned))
            {
                fields.push((Cow::Borrowed(key), value));
            }
        }
        if fields.is_empty() {
            let keys: Vec<_> = self.keys.split(',').map(|it| format!("{it:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and \
                 doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Element::Key(fields))
    }
}

fn default(field: &Field) -> Option<Value> {
    let text = field.default?;
    match field.kind {
        Type::Int32 | Type::Int64 | Type::Double | Type::Bool => serde_json::from_str(text).ok(),
        _ => Some(Value::from(text)),
    }
}

/// The members of an object; none for anything else.
pub(super) fn members(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

/// The items of a list; none for anything else.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
