//! From protobuf to JSON values.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Number, Value, map::Entry};

use super::{
    DecodeError, JSON_SCHEMA, Special,
    wire::{Fields, Scalar, varint},
};
use crate::schema::{
    self, Definition, Field, Type, Zero,
    time::{Moment, Precision},
};

/// Deepest nesting of messages. Only JSON schemas and the JSON in them nest without end; every
/// other type stays under 20.
pub(super) const DEPTH_MAX: usize = 100;

type Members = Map<String, Value>;

/// The members of an object of `definition`. Fields that the type does not know are left out.
pub(super) fn object(
    definition: &'static Definition,
    bytes: &[u8],
) -> Result<Members, DecodeError> {
    let mut members = Members::new();
    Message { definition, around: &[], depth: DEPTH_MAX }.read(bytes, &mut members)?;
    Ok(members)
}

/// A message, or one inside that JSON leaves out.
#[derive(Clone, Copy)]
struct Message<'a> {
    definition: &'static Definition,
    /// Numbers of the messages around it that JSON leaves out.
    around: &'a [u32],
    /// How many more messages may be inside.
    depth: usize,
}

impl Message<'_> {
    fn read(self, bytes: &[u8], into: &mut Members) -> Result<(), DecodeError> {
        let depth = self.depth.checked_sub(1).ok_or(DecodeError::Depth)?;
        let fields = &self.definition.fields;
        for found in Fields::new(bytes) {
            let (number, scalar) = found?;
            let numbers = [self.around, &[number]].concat();
            if let Some(field) = fields.iter().find(|it| it.wire.numbers == numbers) {
                Place { field, depth }.read(scalar, into)?;
            } else if fields.iter().any(|it| it.wire.numbers.starts_with(&numbers)) {
                let Scalar::Bytes(bytes) = scalar else {
                    return Err(DecodeError::Mismatch(self.definition.short_name()));
                };
                Message { around: &numbers, depth, ..self }.read(bytes, into)?;
            }
        }
        Ok(())
    }
}

/// The field that a value is read for.
#[derive(Clone, Copy)]
struct Place {
    field: &'static Field,
    depth: usize,
}

impl Place {
    fn read(self, scalar: Scalar<'_>, into: &mut Members) -> Result<(), DecodeError> {
        let Self { field, .. } = self;
        let before = match into.entry(field.name) {
            Entry::Occupied(it) => it.into_mut(),
            Entry::Vacant(it) => it.insert(Value::Null),
        };
        self.value(&field.kind, scalar, before)?;
        let said_nothing = before.is_null() || (field.zero == Zero::Absent && is_zero(before));
        if said_nothing {
            into.remove(field.name);
        }
        Ok(())
    }

    /// Reads a value. What a field says again is added to a list, a map or a message, and replaces
    /// everything else.
    fn value(
        self,
        kind: &'static Type,
        scalar: Scalar<'_>,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        match kind {
            Type::List(items) => self.list(items, scalar, value),
            Type::Map(values) => {
                let (key, found) = self.entry(values, self.bytes(scalar)?)?;
                let mut entries = members(value);
                entries.insert(key, found);
                *value = Value::Object(entries);
                Ok(())
            }
            Type::Object(_) => self.object(kind, self.bytes(scalar)?, value),
            _ => {
                *value = self.scalar(kind, scalar)?;
                Ok(())
            }
        }
    }

    fn list(
        self,
        items: &'static Type,
        scalar: Scalar<'_>,
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        if !value.is_array() {
            *value = Value::Array(Vec::new());
        }
        let Value::Array(list) = value else { return Ok(()) };
        let mut push = |scalar| {
            let mut item = Value::Null;
            self.value(items, scalar, &mut item)?;
            list.push(item);
            Ok(())
        };
        match (self.field.wire.wrapped, items, scalar) {
            (true, _, scalar) => {
                for found in Fields::new(self.bytes(scalar)?) {
                    if let (1, scalar) = found? {
                        push(scalar)?;
                    }
                }
                Ok(())
            }
            // Numbers may come packed.
            (false, Type::Int32 | Type::Int64, Scalar::Bytes(mut bytes)) => {
                while !bytes.is_empty() {
                    push(Scalar::Varint(varint(&mut bytes)?))?;
                }
                Ok(())
            }
            (false, _, scalar) => push(scalar),
        }
    }

    fn entry(self, values: &'static Type, bytes: &[u8]) -> Result<(String, Value), DecodeError> {
        let (mut key, mut value) = (String::new(), Value::Null);
        for found in Fields::new(bytes) {
            match found? {
                (1, scalar) => key = self.text(scalar)?,
                (2, scalar) => self.value(values, scalar, &mut value)?,
                _ => {}
            }
        }
        if value.is_null() {
            // An absent value is the zero of its type, which an empty field of most types means.
            self.value(values, Scalar::Bytes(&[]), &mut value)?;
        }
        Ok((key, value))
    }

    fn object(
        self,
        kind: &'static Type,
        bytes: &[u8],
        value: &mut Value,
    ) -> Result<(), DecodeError> {
        let Some(definition) = kind.below() else { return Ok(()) };
        if let Some(special) = Special::of(definition) {
            *value = self.special(special, bytes)?;
            return Ok(());
        }
        let message = Message { definition, around: &[], depth: self.depth };
        let mut found = members(value);
        message.read(bytes, &mut found)?;
        *value = Value::Object(found);
        Ok(())
    }

    fn special(self, special: Special, bytes: &[u8]) -> Result<Value, DecodeError> {
        let (mut truth, mut one, mut many) = (None, None, Vec::new());
        for found in Fields::new(bytes) {
            match (special, found?) {
                (Special::Raw, (1, scalar)) => {
                    let raw = self.bytes(scalar)?;
                    one = Some(
                        serde_json::from_slice(raw)
                            .map_err(|_| DecodeError::Json(self.field.name))?,
                    );
                }
                (Special::OrBool, (1, Scalar::Varint(it))) => truth = Some(Value::Bool(it != 0)),
                (Special::OrBool, (2, scalar))
                | (Special::OrSchemas | Special::OrTexts, (1, scalar)) => {
                    one = Some(self.schema(self.bytes(scalar)?)?);
                }
                (Special::OrSchemas, (2, scalar)) => many.push(self.schema(self.bytes(scalar)?)?),
                (Special::OrTexts, (2, scalar)) => many.push(Value::String(self.text(scalar)?)),
                _ => {}
            }
        }
        Ok(match (one, truth) {
            (Some(one), _) => one,
            (None, Some(truth)) => truth,
            (None, None) if many.is_empty() => Value::Null,
            (None, None) => Value::Array(many),
        })
    }

    fn schema(self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let mut found = Members::new();
        if let Some(definition) = schema::definition(JSON_SCHEMA) {
            Message { definition, around: &[], depth: self.depth }.read(bytes, &mut found)?;
        }
        Ok(Value::Object(found))
    }

    fn scalar(self, kind: &Type, scalar: Scalar<'_>) -> Result<Value, DecodeError> {
        Ok(match kind {
            Type::String => Value::String(self.text(scalar)?),
            Type::Int32 => {
                // Kept in 64 bits, whatever the sign; the upper ones say nothing.
                let bits = self.varint(scalar)? & u64::from(u32::MAX);
                let bits = u32::try_from(bits).map_err(|_| DecodeError::Range(self.field.name))?;
                Value::from(bits.cast_signed())
            }
            Type::Int64 => Value::from(self.varint(scalar)?.cast_signed()),
            Type::Bool => Value::Bool(self.varint(scalar)? != 0),
            Type::Double => match scalar {
                Scalar::Fixed64(bits) => Number::from_f64(f64::from_bits(bits))
                    .map(Value::Number)
                    .ok_or(DecodeError::Range(self.field.name))?,
                _ => return Err(DecodeError::Mismatch(self.field.name)),
            },
            Type::Bytes => Value::String(BASE64_STANDARD.encode(self.bytes(scalar)?)),
            Type::Quantity => {
                let text = last(self.bytes(scalar)?, 1)?;
                let text = text.map(|it| self.text(it)).transpose()?;
                Value::String(text.filter(|it| !it.is_empty()).unwrap_or_else(|| "0".to_owned()))
            }
            Type::IntOrString => self.int_or_string(self.bytes(scalar)?)?,
            Type::Time | Type::MicroTime => self.time(kind, self.bytes(scalar)?)?,
            Type::Any | Type::Object(_) | Type::List(_) | Type::Map(_) => Value::Null,
        })
    }

    fn int_or_string(self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let kind = last(bytes, 1)?;
        if matches!(kind, None | Some(Scalar::Varint(0))) {
            let number = last(bytes, 2)?.unwrap_or(Scalar::Varint(0));
            return self.scalar(&Type::Int32, number);
        }
        let text = last(bytes, 3)?.map(|it| self.text(it)).transpose()?;
        Ok(Value::String(text.unwrap_or_default()))
    }

    /// Nothing at all is no time.
    fn time(self, kind: &Type, bytes: &[u8]) -> Result<Value, DecodeError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let number = |number| match last(bytes, number)? {
            None => Ok(0),
            Some(scalar) => self.varint(scalar).map(u64::cast_signed),
        };
        let range = || DecodeError::Range(self.field.name);
        let (precision, nanos) = match kind {
            Type::MicroTime => (Precision::Micros, number(2)?),
            // The original does not look at the fraction here.
            _ => (Precision::Seconds, 0),
        };
        let nanos = u32::try_from(nanos).map_err(|_| range())?;
        let time = Moment::new(number(1)?, nanos).ok_or_else(range)?;
        Ok(if time.is_zero() { Value::Null } else { Value::String(time.print(precision)) })
    }

    fn varint(self, scalar: Scalar<'_>) -> Result<u64, DecodeError> {
        match scalar {
            Scalar::Varint(value) => Ok(value),
            // The zero of a map's value that is not there.
            Scalar::Bytes([]) => Ok(0),
            _ => Err(DecodeError::Mismatch(self.field.name)),
        }
    }

    fn bytes(self, scalar: Scalar<'_>) -> Result<&[u8], DecodeError> {
        match scalar {
            Scalar::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError::Mismatch(self.field.name)),
        }
    }

    fn text(self, scalar: Scalar<'_>) -> Result<String, DecodeError> {
        let bytes = self.bytes(scalar)?.to_vec();
        String::from_utf8(bytes).map_err(|_| DecodeError::Text(self.field.name))
    }
}

/// Takes the members out of a value that is an object, or is to become one.
fn members(value: &mut Value) -> Members {
    match value.take() {
        Value::Object(members) => members,
        _ => Members::new(),
    }
}

/// The last value of a field of a small message.
fn last(bytes: &[u8], number: u32) -> Result<Option<Scalar<'_>>, DecodeError> {
    let mut last = None;
    for found in Fields::new(bytes) {
        let (found, scalar) = found?;
        if found == number {
            last = Some(scalar);
        }
    }
    Ok(last)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
