//! One step of a path into an object: a field, an item of a list by its keys, or an item of a set.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde_json::Value;

/// One step of a path. The order is that of structured-merge-diff: fields, keys, values, indexes.
#[derive(Clone, Debug)]
pub(super) enum Element<'a> {
    /// A field of an object or a key of a map.
    Field(Cow<'a, str>),
    /// The item whose fields have these values; sorted by name.
    Key(Vec<(Cow<'a, str>, Cow<'a, Value>)>),
    /// The item of a set that is this value.
    Value(Cow<'a, Value>),
    /// The item at a position. Nothing here makes such a step, but a client may send one.
    Index(i64),
}

impl<'a> Element<'a> {
    pub(super) fn field(name: &'a str) -> Self {
        Self::Field(Cow::Borrowed(name))
    }

    /// The same, borrowing nothing.
    pub(super) fn into_owned(self) -> Element<'static> {
        match self {
            Self::Field(name) => Element::Field(Cow::Owned(name.into_owned())),
            Self::Key(fields) => {
                let owned = |(name, value): (Cow<'_, str>, Cow<'_, Value>)| {
                    (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()))
                };
                Element::Key(fields.into_iter().map(owned).collect())
            }
            Self::Value(value) => Element::Value(Cow::Owned(value.into_owned())),
            Self::Index(index) => Element::Index(index),
        }
    }

    /// Reads a key of `FieldsV1`. `None` for a kind of step that is not known, which is skipped as in
    /// the original.
    pub(super) fn read(key: Cow<'a, str>) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = key.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!("missing colon: {key}"));
        };
        let unreadable = |error: serde_json::Error| format!("step {key:?}: {error}");
        Ok(Some(match kind {
            "f" => Self::Field(match key {
                Cow::Borrowed(key) => Cow::Borrowed(key.get(2..).unwrap_or_default()),
                Cow::Owned(_) => Cow::Owned(rest.to_owned()),
            }),
            "v" => Self::Value(Cow::Owned(serde_json::from_str(rest).map_err(unreadable)?)),
            "k" => {
                // The map of a JSON object is sorted.
                let fields: serde_json::Map<String, Value> =
                    serde_json::from_str(rest).map_err(unreadable)?;
                let owned = |(name, value)| (Cow::Owned(name), Cow::Owned(value));
                Self::Key(fields.into_iter().map(owned).collect())
            }
            "i" => Self::Index(rest.parse().map_err(|_| format!("step {key:?}: no number"))?),
            _ => return Ok(None),
        }))
    }

    /// Writes the key of `FieldsV1`.
    pub(super) fn write(&self, key: &mut String) {
        match self {
            Self::Field(name) => {
                key.push_str("f:");
                key.push_str(name);
            }
            Self::Key(fields) => {
                key.push_str("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index != 0 {
                        key.push(',');
                    }
                    key.push_str(&Value::from(name.as_ref()).to_string());
                    key.push(':');
                    key.push_str(&value.to_string());
                }
                key.push('}');
            }
            Self::Value(value) => {
                key.push_str("v:");
                key.push_str(&value.to_string());
            }
            Self::Index(index) => {
                key.push_str("i:");
                key.push_str(&index.to_string());
            }
        }
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |it: &Self| match it {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        };
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b).map(|((name, value), (other_name, other))| {
                    name.cmp(other_name).then_with(|| order(value, other))
                });
                let differs = pairs.into_iter().find(|it| it.is_ne());
                differs.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => order(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element<'_> {}

/// As the original's messages show a step: `.spec`, `[name="a"]`, `[="a"]`.
impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                for (index, (name, value)) in fields.iter().enumerate() {
                    let before = if index == 0 { "[" } else { "," };
                    write!(f, "{before}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A total order of JSON values, in which numbers are the same if they mean the same.
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |it: &Value| match it {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => order_numbers(a, b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let differs = a.iter().zip(b).map(|(a, b)| order(a, b)).find(|it| it.is_ne());
            differs.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b).map(|((name, value), (other_name, other))| {
                name.cmp(other_name).then_with(|| order(value, other))
            });
            let differs = pairs.into_iter().find(|it| it.is_ne());
            differs.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn order_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    let whole = |it: &serde_json::Number| {
        it.as_i64().map(i128::from).or_else(|| it.as_u64().map(i128::from))
    };
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// Whether two values mean the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    order(a, b).is_eq()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(key: &str, shown: &str) {
        let element = Element::read(Cow::Borrowed(key)).unwrap().unwrap();
        assert_eq!(element.to_string(), shown);
        let mut written = String::new();
        element.write(&mut written);
        assert_eq!(written, key);
    }

    #[test]
    fn keys_are_read_shown_and_written() {
        check("f:a.b/c", ".a.b/c");
        check(r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#);
        check(r#"v:"a\"b""#, r#"[="a\"b"]"#);
        check("i:4", "[4]");
        assert_eq!(Element::read(Cow::Borrowed("z:what")), Ok(None));
        for bad in ["", "f", "ff:x", "k:[]", "v:{", "i:x"] {
            assert!(Element::read(Cow::Borrowed(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn order_is_that_of_the_original() {
        let steps = [
            "f:a",
            "f:b",
            r#"k:{"a":1}"#,
            r#"k:{"a":1,"b":1}"#,
            r#"k:{"a":"1"}"#,
            "v:1",
            "v:1.5",
            r#"v:"a""#,
            "v:true",
            "i:0",
            "i:10",
        ];
        let read = |it: &str| Element::read(Cow::Owned(it.to_owned())).unwrap().unwrap();
        let steps: Vec<_> = steps.iter().map(|it| read(it)).collect();
        assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
        assert!(same(&json!(1), &json!(1.0)));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 2})));
        assert!(!same(&json!(null), &json!({})));
    }
}
