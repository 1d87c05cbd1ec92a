//! Patches in all four languages, laid over an object. An input is two lines: the object with its kind,
//! and the patch, which may have more lines.

use proptest::prelude::*;
use serde_json::Value;

use super::hold;
use crate::{
    kinds::{Causes, KINDS, Kind},
    limits::DEPTH_MAX,
    object::{
        self,
        decode::{self, FieldValidation},
        depth, yaml,
    },
    ownership::{Claims, Draft, Live, Writer, same_but_times},
    patch::Patch,
};

/// The kind, the object and the patch; none if the object is none.
fn parts(input: &[u8]) -> Option<(&'static Kind, Value, &[u8])> {
    let end = input.iter().position(|it| *it == b'\n')?;
    let (object, patch) = input.split_at(end);
    let object: Value = serde_json::from_slice(object).ok().filter(Value::is_object)?;
    let name = object::text(&object, &["kind"]);
    let kind = KINDS.iter().copied().find(|it| it.kind == name)?;
    let object = decode::typed(kind, object).ok()?;
    let object = decode::check(kind, object, Vec::new(), FieldValidation::Ignore).ok()?.object;
    Some((kind, object, patch))
}

/// What is left of a patched object is what its kind knows, or it is refused.
fn patched(media_type: &str, input: &[u8]) -> Result<(), TestCaseError> {
    let Some((kind, old, patch)) = parts(input) else { return Ok(()) };
    let mut headers = http::HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, media_type.parse().unwrap());
    let Ok(patch) = Patch::read(&headers, patch) else { return Ok(()) };
    let Ok(new) = patch.apply(kind.schema, &old) else { return Ok(()) };
    prop_assert!(new.is_object());
    let again = patch.apply(kind.schema, &old).ok();
    prop_assert_eq!(again.as_ref(), Some(&new), "not the same again");
    let Ok(new) = decode::typed(kind, new) else { return Ok(()) };
    if let Ok(decoded) = decode::check(kind, new, Vec::new(), FieldValidation::Warn) {
        prop_assert!(!depth::exceeds(&decoded.object, DEPTH_MAX));
    }
    Ok(())
}

#[test]
fn json_patches() {
    hold("json-patch", |input| patched("application/json-patch+json", input));
}

#[test]
fn merge_patches() {
    hold("merge-patch", |input| patched("application/merge-patch+json", input));
}

#[test]
fn strategic_merge_patches() {
    hold("strategic-merge-patch", |input| patched("application/strategic-merge-patch+json", input));
}

/// An apply, as far as the object that would be stored; none if it is refused.
fn apply(
    writer: &Writer<'_>,
    kind: &Kind,
    live: Live<'_>,
    wanted: &Value,
) -> Option<(Value, Option<String>)> {
    let Draft { object, owners } = writer.apply(Some(live), wanted, true).ok()?;
    let Claims::Known(owners) = owners else { panic!("an apply knows its owners") };
    let object = decode::typed(kind, object).ok()?;
    let checked = decode::check(kind, object, Vec::new(), FieldValidation::Ignore).ok()?;
    let mut object = checked.object;
    (kind.default)(&mut object);
    let mut causes = Causes::default();
    (kind.validate)(&object, &mut causes);
    causes.is_empty().then_some((object, owners))
}

/// What was applied once is applied again without any change.
#[test]
fn applies() {
    let noon = "2026-01-01T12:00:00Z".parse().unwrap();
    hold("apply", |input| {
        let Some((kind, old, body)) = parts(input) else { return Ok(()) };
        let Ok(wanted) = yaml::read(body) else { return Ok(()) };
        let writer =
            |manager| Writer::new(kind, None, (Some(manager), "", "PatchOptions"), noon).unwrap();
        let owners = writer("before").create(&old, None);
        let live = Live { object: &old, owners: owners.as_deref() };
        let me = writer("me");
        drop(me.apply(Some(live), &wanted.value, false));
        let Some((object, owners)) = apply(&me, kind, live, &wanted.value) else { return Ok(()) };
        let live = Live { object: &object, owners: owners.as_deref() };
        let Some((again, same_owners)) = apply(&me, kind, live, &wanted.value) else {
            return Err(TestCaseError::fail("refused when applied again"));
        };
        prop_assert_eq!(&again, &object);
        let (one, other) = (owners.unwrap_or("[]".into()), same_owners.unwrap_or("[]".into()));
        prop_assert!(same_but_times(&one, &other), "{} became {}", one, other);
        Ok(())
    });
}
