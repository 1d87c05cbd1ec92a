//! From JSON to protobuf, in one pass over the text: no value is built.
//!
//! How deep a message can be is what the JSON parser allows.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize as _,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    JSON_SCHEMA, Special,
    wire::{put_bytes, put_fixed64, put_message, put_varint, try_put_message},
};
use crate::schema::{
    self, Definition, Type, base64,
    time::{Moment, Precision},
};

/// Appends the message of an object of `definition`, without `apiVersion` and `kind`. What the type
/// does not know is left out.
pub(super) fn object(
    definition: &'static Definition,
    json: &[u8],
    out: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Message { definition, out }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Whether the type has a message at all. A type without fields has an empty one.
pub(super) fn has_message(definition: &Definition) -> bool {
    definition.fields.is_empty() || definition.fields.iter().any(|it| !it.wire.numbers.is_empty())
}

/// The members of an object.
struct Message<'o> {
    definition: &'static Definition,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of type {}", self.definition.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let field = self.definition.field(&name.0);
            match field.map(|it| (it, it.wire.numbers.as_slice())) {
                Some((field, [around @ .., number])) => map.next_value_seed(Member {
                    around,
                    value: Item {
                        kind: &field.kind,
                        number: *number,
                        wrapped: field.wire.wrapped,
                        out: &mut *self.out,
                    },
                })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A member's name or a text, borrowed from the JSON where that is possible.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A field's value in the messages around it that JSON leaves out. Each field has these of its own,
/// which a reader puts together again.
struct Member<'o> {
    around: &'static [u32],
    value: Item<'o>,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some((first, around)) = self.around.split_first() else {
            return self.value.deserialize(deserializer);
        };
        let Item { kind, number, wrapped, out } = self.value;
        try_put_message(out, *first, |out| {
            let value = Item { kind, number, wrapped, out };
            Member { around, value }.deserialize(deserializer)
        })
    }
}

/// A value and the number it is written under. `null` is not written.
struct Item<'o> {
    kind: &'static Type,
    number: u32,
    wrapped: bool,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Some(definition) = self.object() else { return deserializer.deserialize_any(self) };
        let Some(special) = Special::of(definition) else {
            return deserializer.deserialize_any(self);
        };
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw != "null" {
            try_put_message(self.out, self.number, |out| special.put(raw, out))
                .map_err(de::Error::custom)?;
        }
        Ok(())
    }
}

impl Item<'_> {
    /// The type, if the value is an object that has one.
    fn object(&self) -> Option<&'static Definition> {
        match self.kind {
            Type::Object(_) => self.kind.below(),
            _ => None,
        }
    }

    fn put_int<E: de::Error>(self, value: i64) -> Result<(), E> {
        let (number, out) = (self.number, &mut *self.out);
        match self.kind {
            // A negative number is written with all its 64 bits, whatever its type.
            Type::Int32 | Type::Int64 => put_varint(out, number, value.cast_unsigned()),
            Type::Double => return self.put_double(value as f64),
            Type::Quantity => {
                put_message(out, number, |out| put_bytes(out, 1, value.to_string().as_bytes()));
            }
            Type::IntOrString => put_message(out, number, |out| {
                put_varint(out, 1, INT);
                put_varint(out, 2, value.cast_unsigned());
            }),
            _ => return Err(E::invalid_type(de::Unexpected::Signed(value), &self)),
        }
        Ok(())
    }

    fn put_double<E: de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Type::Double => put_fixed64(self.out, self.number, value.to_bits()),
            Type::Quantity => put_message(self.out, self.number, |out| {
                put_bytes(out, 1, value.to_string().as_bytes());
            }),
            _ => return Err(E::invalid_type(de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn put_time<E: de::Error>(self, text: &str) -> Result<(), E> {
        // To the second or to the microsecond: as the JSON of both has it.
        let (time, nanos) = match self.kind {
            Type::MicroTime => {
                let time = Moment::parse(text, Precision::Micros).map_err(E::custom)?;
                (time, u64::from(time.micros()) * 1_000)
            }
            _ => (Moment::parse(text, Precision::Seconds).map_err(E::custom)?, 0),
        };
        put_message(self.out, self.number, |out| {
            put_varint(out, 1, time.seconds().cast_unsigned());
            put_varint(out, 2, nanos);
        });
        Ok(())
    }
}

/// `intstr.IntOrString.type`.
const INT: u64 = 0;
const STRING: u64 = 1;

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object() {
            Some(definition) => f.write_str(definition.name),
            None => write!(f, "{:?}", self.kind),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        if *self.kind != Type::Bool {
            return Err(E::invalid_type(de::Unexpected::Bool(value), &self));
        }
        put_varint(self.out, self.number, u64::from(value));
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.put_int(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.put_int(value),
            Err(_) => self.put_double(value as f64),
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.put_double(value)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let (number, out) = (self.number, &mut *self.out);
        match self.kind {
            Type::String => put_bytes(out, number, text.as_bytes()),
            Type::Bytes => {
                let bytes = base64::decode(text).map_err(E::custom)?;
                put_bytes(out, number, &bytes);
            }
            Type::Quantity => {
                put_message(out, number, |out| put_bytes(out, 1, text.as_bytes()));
            }
            Type::IntOrString => put_message(out, number, |out| {
                put_varint(out, 1, STRING);
                put_bytes(out, 3, text.as_bytes());
            }),
            Type::Time | Type::MicroTime => return self.put_time(text),
            _ => return Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Type::List(kind) = self.kind else {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        };
        let mut put_items = |out: &mut Vec<u8>, number| {
            while items
                .next_element_seed(Item { kind, number, wrapped: false, out: &mut *out })?
                .is_some()
            {}
            Ok(())
        };
        if self.wrapped {
            try_put_message(self.out, self.number, |out| put_items(out, 1))
        } else {
            put_items(self.out, self.number)
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some(definition) = self.object() {
            return try_put_message(self.out, self.number, |out| {
                Message { definition, out }.visit_map(map)
            });
        }
        let Type::Map(kind) = self.kind else {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        };
        while let Some(key) = map.next_key::<Name<'de>>()? {
            try_put_message(self.out, self.number, |out| {
                put_bytes(out, 1, key.0.as_bytes());
                map.next_value_seed(Item { kind, number: 2, wrapped: self.wrapped, out })
            })?;
        }
        Ok(())
    }
}

impl Special {
    /// Appends the message for a JSON text that is not `null`.
    fn put(self, raw: &str, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let schema = || schema::definition(JSON_SCHEMA).ok_or_else(|| de::Error::custom("no type"));
        let (one, many) = match self {
            Self::Raw => {
                put_bytes(out, 1, raw.as_bytes());
                return Ok(());
            }
            Self::OrBool => {
                // A schema implies that it is allowed.
                let allows = raw != "false";
                put_varint(out, 1, u64::from(allows));
                (2, 2)
            }
            Self::OrSchemas | Self::OrTexts => (1, 2),
        };
        match raw.as_bytes().first() {
            Some(b'{') => try_put_message(out, one, |out| object(schema()?, raw.as_bytes(), out)),
            Some(b'[') => {
                for item in serde_json::from_str::<Vec<&RawValue>>(raw)? {
                    let raw = item.get();
                    if self == Self::OrTexts {
                        put_bytes(out, many, serde_json::from_str::<String>(raw)?.as_bytes());
                    } else {
                        try_put_message(out, many, |out| object(schema()?, raw.as_bytes(), out))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
