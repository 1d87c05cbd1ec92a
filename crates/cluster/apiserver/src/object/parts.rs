//! Reading only those parts of a stored object that somebody wants: most of a long list is never
//! looked at.

use std::{borrow::Cow, fmt};

use api::status::Status;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::stored;

/// Which parts of a value are wanted. Of a list, those of each item.
#[derive(Debug)]
pub enum Parts {
    /// All of it, but never who owns the fields of an object.
    All,
    /// These members of an object, and these parts of them; anything else than an object whole.
    Of(&'static [(&'static str, Self)]),
}

/// An object of which only parts were read.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    pub(crate) object: Value,
    /// The JSON text of the whole `metadata`; `null` if there is none.
    pub(crate) metadata: &'a str,
}

/// Reads parts of stored bytes.
pub(crate) fn read<'a>(bytes: &'a [u8], parts: &'static Parts) -> Result<Partial<'a>, Status> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_map(Object(parts)).and_then(|it| json.end().map(|()| it));
    read.map_err(|error| Status::internal(&format!("decode a stored object: {error}")))
}

impl Parts {
    /// What is wanted of a member; `None` if nothing is.
    fn member(&self, key: &str) -> Option<&'static Self> {
        match self {
            Self::All => Some(&Self::All),
            Self::Of(members) => members.iter().find(|it| it.0 == key).map(|it| &it.1),
        }
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The object itself, whose metadata is wanted as text besides.
struct Object(&'static Parts);

impl<'de> Visitor<'de> for Object {
    type Value = Partial<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Partial<'de>, A::Error> {
        let (mut members, mut metadata) = (Map::new(), "null");
        while let Some(Key(key)) = map.next_key()? {
            let parts = self.0.member(&key);
            if key == "metadata" {
                metadata = map.next_value::<&RawValue>()?.get();
                if let Some(parts) = parts {
                    let mut json = serde_json::Deserializer::from_str(metadata);
                    let value = match parts {
                        Parts::All => stored::without_owners(&mut json),
                        Parts::Of(_) => Seed(parts).deserialize(&mut json),
                    };
                    members.insert(key.into_owned(), value.map_err(A::Error::custom)?);
                }
                continue;
            }
            match parts {
                Some(parts) => {
                    members.insert(key.into_owned(), map.next_value_seed(Seed(parts))?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Partial { object: Value::Object(members), metadata })
    }
}

/// Reads a value of which parts are wanted.
#[derive(Clone, Copy)]
struct Seed(&'static Parts);

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0 {
            Parts::All => Value::deserialize(deserializer),
            Parts::Of(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(Key(key)) = map.next_key()? {
            match self.0.member(&key) {
                Some(parts) => {
                    members.insert(key.into_owned(), map.next_value_seed(Self(parts))?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static PARTS: Parts = Parts::Of(&[
        ("metadata", Parts::Of(&[("name", Parts::All)])),
        ("spec", Parts::Of(&[("items", Parts::Of(&[("a", Parts::All)])), ("free", Parts::All)])),
    ]);

    #[track_caller]
    fn check(object: &Value, expected: &Value) {
        let text = object.to_string();
        let read = read(text.as_bytes(), &PARTS).unwrap();
        assert_eq!(&read.object, expected);
        assert_eq!(read.metadata, object.get("metadata").unwrap_or(&Value::Null).to_string());
    }

    #[test]
    fn only_what_is_wanted_is_read() {
        check(
            &json!({
                "kind": "A",
                "metadata": {"labels": {"a": "b"}, "name": "n\n"},
                "spec": {"items": [{"a": {"x": 1}, "b": 2}, {}], "free": {"y": [1.5]}, "more": 1},
                "status": {},
            }),
            &json!({
                "metadata": {"name": "n\n"},
                "spec": {"items": [{"a": {"x": 1}}, {}], "free": {"y": [1.5]}},
            }),
        );
    }

    #[test]
    fn what_is_of_another_form_is_whole() {
        let odd = json!({"metadata": null, "spec": {"items": ["x", -1, 1.5, true, null, [[]]]}});
        check(&odd, &odd);
        check(&json!({"spec": "x"}), &json!({"spec": "x"}));
        assert!(read(b"[]", &PARTS).is_err());
        assert!(read(br#"{"spec":"#, &PARTS).is_err());
        assert!(read(br"{} {}", &PARTS).is_err());
    }
}
