//! Bodies in protobuf: messages of real objects, changed.

use proptest::prelude::*;

use super::{Bytes, change, hold, property};
use crate::{
    kinds::{
        KINDS,
        testing::{created, sample},
    },
    protobuf,
};

/// What is read of bytes is written and read again as the same.
fn reads(input: &[u8]) -> Result<(), TestCaseError> {
    let Ok(object) = protobuf::decode(input) else { return Ok(()) };
    let text = object.to_string();
    let written = match protobuf::encode(text.as_bytes()) {
        Ok(written) => written,
        Err(error) => return Err(TestCaseError::fail(format!("{error:?} of {text}"))),
    };
    let again = protobuf::decode(&written);
    prop_assert_eq!(again.map(|it| it.to_string()), Ok(text));
    Ok(())
}

#[test]
fn bodies() {
    hold("protobuf", reads);
}

#[test]
fn bodies_of_every_kind() {
    let case = (any::<prop::sample::Index>(), prop::collection::vec(change(), 0..5));
    let case = case.prop_map(|(which, changes)| {
        let all: Vec<_> =
            KINDS.iter().copied().filter(|it| protobuf::has_message(it.schema)).collect();
        let kind = *which.get(&all);
        let text = created(kind, sample(kind)).to_string();
        let mut bytes = protobuf::encode(text.as_bytes()).unwrap();
        changes.iter().for_each(|it| it.apply(&mut bytes));
        Bytes(bytes)
    });
    property(&case, |input| reads(&input.0));
}
