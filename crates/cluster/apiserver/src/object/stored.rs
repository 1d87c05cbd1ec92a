//! Reading stored bytes: the object, and beside it, as text, who owns its fields.

use std::fmt;

use api::status::Status;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

/// A stored object in its two parts.
#[derive(Debug)]
pub(crate) struct Stored<'a> {
    /// The object without `metadata.managedFields`.
    pub(crate) object: Value,
    /// The JSON text of `metadata.managedFields`.
    pub(crate) owners: Option<&'a str>,
}

/// Reads stored bytes.
pub(crate) fn parse(bytes: &[u8]) -> Result<Stored<'_>, Status> {
    serde_json::from_slice(bytes)
        .map_err(|error| Status::internal(&format!("decode a stored object: {error}")))
}

impl<'de> Deserialize<'de> for Stored<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut owners = None;
        let object = deserializer.deserialize_map(Object(&mut owners))?;
        Ok(Self { object, owners })
    }
}

/// Reads metadata without the list of owners.
pub(crate) fn without_owners<'de, D: Deserializer<'de>>(json: D) -> Result<Value, D::Error> {
    json.deserialize_map(Metadata(&mut None))
}

struct Object<'a, 'de>(&'a mut Option<&'de str>);
struct Metadata<'a, 'de>(&'a mut Option<&'de str>);

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == "metadata" {
                map.next_value_seed(Metadata(&mut *self.0))?
            } else {
                map.next_value()?
            };
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

impl<'de> DeserializeSeed<'de> for Metadata<'_, 'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "managedFields" {
                *self.0 = Some(map.next_value::<&RawValue>()?.get());
            } else {
                members.insert(key, map.next_value()?);
            }
        }
        Ok(Value::Object(members))
    }
}
