//! The wire format of protobuf: tags, varints, lengths. Groups, which nobody writes any more, are
//! refused.

use super::DecodeError;

/// A field's value before its type is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, one after the other. Ends at the first error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, failed: false }
    }

    fn take(&mut self) -> Result<(u32, Scalar<'a>), DecodeError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Overflow)?;
        if number == 0 {
            return Err(DecodeError::Tag);
        }
        let value = match tag & 7 {
            0 => Scalar::Varint(varint(&mut self.rest)?),
            1 => Scalar::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_| DecodeError::End)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::End)?;
                self.rest = rest;
                Scalar::Bytes(bytes)
            }
            5 => Scalar::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(DecodeError::WireType(u32::try_from(other).unwrap_or_default())),
        };
        Ok((number, value))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::End)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Scalar<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.failed {
            return None;
        }
        let field = self.take();
        self.failed = field.is_err();
        Some(field)
    }
}

/// Takes a varint from the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DecodeError::End)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Overflow);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Overflow)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_number(out, u64::from(number) << 3);
    put_number(out, value);
}

pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_number(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_number(out, u64::from(number) << 3 | 2);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a message that `write` appends.
pub(crate) fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = try_put_message(out, number, |out| {
        write(out);
        Ok::<(), std::convert::Infallible>(())
    });
}

/// Appends a message that `write` appends, with its length before it.
pub(super) fn try_put_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_number(out, u64::from(number) << 3 | 2);
    let place = out.len();
    // Most messages are short: one byte is kept free, and the others move if it is not enough.
    out.push(0);
    let start = out.len();
    write(out)?;
    let length = out.len() - start;
    match (u8::try_from(length), out.get_mut(place)) {
        (Ok(length), Some(byte)) if length < 0x80 => *byte = length,
        _ => {
            let mut bytes = Vec::with_capacity(4);
            put_number(&mut bytes, length as u64);
            out.splice(place..start, bytes);
        }
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let bits = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            out.push(bits);
            return;
        }
        out.push(bits | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_come_back(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, value);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(varint(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn messages_come_back(inner in prop::collection::vec(any::<u8>(), 0..300), number in 1_u32..1000) {
            let mut bytes = Vec::new();
            put_message(&mut bytes, number, |out| out.extend_from_slice(&inner));
            let fields: Vec<_> = Fields::new(&bytes).collect();
            prop_assert_eq!(fields, vec![Ok((number, Scalar::Bytes(&inner)))]);
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_refused() {
        fn first(bytes: &[u8]) -> Result<(u32, Scalar<'_>), DecodeError> {
            Fields::new(bytes).next().unwrap()
        }
        assert_eq!(first(&[0x0a, 5, 1]), Err(DecodeError::End));
        assert_eq!(first(&[0x80]), Err(DecodeError::End));
        assert_eq!(first(&[0xff; 11]), Err(DecodeError::Overflow));
        assert_eq!(first(&[0x0b]), Err(DecodeError::WireType(3)));
        assert_eq!(first(&[0x00]), Err(DecodeError::Tag));
        assert_eq!(first(&[0x0d, 1, 2]), Err(DecodeError::End));
        assert_eq!(first(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Err(DecodeError::End));
    }
}
