//! The words of a command's line: names, numbers, ids, and what is said of bad ones.

use bytes::Bytes;

use super::{Gate, KEY_MAX};
use crate::{
    message::MessageId,
    name::Name,
    protocol::{clients::State, fault::Fault},
};

/// The words after the first that any command has a use for.
pub(super) type Words<'a> = [Option<&'a [u8]>; 2];

pub(super) fn fault(parts: &[&[u8]]) -> Fault {
    Fault::fatal(parts.concat())
}

pub(super) fn not_now(verb: &str) -> Fault {
    Fault::fatal(format!("E_INVALID cannot {verb} in current state"))
}

pub(super) fn name(word: &[u8]) -> Option<Name> {
    str::from_utf8(word).ok().and_then(Name::parse)
}

pub(super) fn key_of(word: &[u8]) -> Result<Option<Bytes>, Fault> {
    let Some(key) = word.strip_prefix(b"key=") else { return Ok(None) };
    if KEY_MAX < key.len() {
        let length = key.len();
        return Err(Fault::fatal(format!("E_INVALID PUB key too long {length} > {KEY_MAX}")));
    }
    Ok((!key.is_empty()).then(|| Bytes::copy_from_slice(key)))
}

pub(super) fn id(
    verb: &str,
    words: &Words<'_>,
    needed: usize,
    gate: Gate,
) -> Result<MessageId, Fault> {
    if gate.state == State::Init {
        return Err(not_now(verb));
    }
    let [Some(id), second] = words else { return Err(too_few(verb)) };
    if needed == 2 && second.is_none() {
        return Err(too_few(verb));
    }
    let id = <[u8; MessageId::LENGTH]>::try_from(*id);
    id.map(MessageId).map_err(|_| Fault::fatal("E_INVALID invalid message ID"))
}

fn too_few(verb: &str) -> Fault {
    Fault::fatal(format!("E_INVALID {verb} insufficient number of params"))
}

/// A number in digits; none are 0, and what does not fit wraps around, both as in the original.
pub(super) fn number(word: &[u8]) -> Option<i64> {
    let mut number: u64 = 0;
    for &digit in word {
        let value = char::from(digit).to_digit(10)?;
        number = number.wrapping_mul(10).wrapping_add(u64::from(value));
    }
    Some(number.cast_signed())
}
