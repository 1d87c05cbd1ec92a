//! Objects of every kind in which something is not what it should be: a client's body, and bytes in
//! the store.

use jiff::Timestamp;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;

use super::{Twist, property, twist};
use crate::{
    kinds::{
        Causes, KINDS, Kind,
        testing::{created, sample},
    },
    object::{
        decode::{self, FieldValidation},
        metadata, parts,
    },
    protobuf, schema,
};

fn twisted() -> impl Strategy<Value = (Index, Vec<Twist>)> {
    (any::<Index>(), vec(twist(), 1..5))
}

fn twist_all(mut object: Value, twists: &[Twist]) -> Value {
    twists.iter().for_each(|it| it.apply(&mut object));
    object
}

/// What a write makes of a body, up to the point where it would be stored.
fn write(kind: &'static Kind, body: Value, old: &Value) -> Option<Value> {
    let typed = decode::typed(kind, body).ok()?;
    let mut new = decode::check(kind, typed, Vec::new(), FieldValidation::Ignore).ok()?.object;
    (kind.default)(&mut new);
    let mut again = new.clone();
    schema::prune(kind.schema, &mut again);
    (kind.default)(&mut again);
    assert_eq!(again, new, "{}: what was accepted is not in its final form", kind.kind);
    kind.convert_to_stored(&mut new);
    let mut updated = new.clone();
    (kind.prepare_update)(&mut updated, old);
    (kind.prepare_status)(&mut new.clone(), old);
    (kind.prepare_create)(&mut new);
    let mut causes = Causes::default();
    metadata::validate(kind, &new, &mut causes);
    (kind.validate)(&new, &mut causes);
    (kind.validate_create)(&new, &mut causes);
    (kind.validate_update)(&updated, old, &mut causes);
    metadata::validate_update(&updated, old, &mut causes);
    for subresource in kind.subresources {
        let mut part = updated.clone();
        (kind.prepare_part)(*subresource, &mut part, old);
        (kind.validate_part)(*subresource, &part, old, &mut causes);
    }
    drop(kind.warnings_on_create(&new));
    causes.is_empty().then_some(new)
}

#[test]
fn bodies_of_every_kind() {
    property(&twisted(), |(which, twists)| {
        let kind = KINDS[which.index(KINDS.len())];
        let old = created(kind, sample(kind));
        let body = twist_all(sample(kind), &twists);
        if let Some(stored) = write(kind, body, &old) {
            let stored_kind = kind.stored();
            prop_assert_eq!(
                schema::check(stored_kind.schema, &stored).mistyped,
                None,
                "{}",
                stored
            );
            if !protobuf::has_message(stored_kind.schema) {
                return Ok(());
            }
            let text = stored.to_string();
            prop_assert!(protobuf::encode(text.as_bytes()).is_ok(), "{}", text);
        }
        Ok(())
    });
}

#[test]
fn whatever_is_stored_has_a_row() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    property(&twisted(), |(which, twists)| {
        let kind = KINDS[which.index(KINDS.len())];
        let stored = twist_all(created(kind, sample(kind)), &twists).to_string();
        if let Ok(parts) = parts::read(stored.as_bytes(), &kind.row_reads) {
            let cells = (kind.row)(&parts.object, now);
            prop_assert_eq!(cells.len(), kind.columns.len());
        }
        drop(protobuf::encode(stored.as_bytes()));
        Ok(())
    });
}
