//! The annotation in which kubectl's client-side apply keeps what it has applied: the way over to
//! server-side apply, and back.

use api::names::ANNOTATIONS_BYTES_MAX;
use serde_json::{Map, Value};

use super::{
    compare::compare,
    fields::fields,
    set::Set,
    shape::Shape,
    valid::{self, Duplicates},
};
use crate::object;

/// The manager whose applies heed the annotation: kubectl's.
pub(super) const MANAGER: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const PATH: &[&str] = &["metadata", "annotations", ANNOTATION];

/// The fields that the annotation of `live` has set and that still are what it says; `None` if there
/// is no annotation that can be used.
pub(super) fn allowed(shape: Shape, live: &Value, api_version: &str) -> Option<Set<'static>> {
    let text = Some(object::text(live, PATH)).filter(|it| !it.is_empty())?;
    let last: Value = serde_json::from_str(text).ok()?;
    if object::text(&last, &["apiVersion"]) != api_version {
        return None;
    }
    valid::check(shape, &last, Duplicates::Refused).ok()?;
    let differs = compare(shape, &last, live).ok()?;
    let set = fields(shape, &last);
    let set = set.difference(&differs.modified).difference(&differs.added);
    Some(set.difference(&differs.removed).into_owned())
}

/// Makes the annotation of `new`, if it has one, say what was applied.
pub(super) fn renew(new: &mut Value, applied: &Value) {
    if object::text(new, PATH).is_empty() {
        return;
    }
    let mut applied = applied.clone();
    object::remove(&mut applied, PATH);
    let text = format!("{}\n", escaped(&applied.to_string()));
    object::set(new, PATH, Value::from(text));
    let annotations = object::at(new, &["metadata", "annotations"]).and_then(Value::as_object);
    let bytes = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    let bytes: usize = annotations.unwrap_or(&Map::new()).iter().map(bytes).sum();
    if ANNOTATIONS_BYTES_MAX < bytes {
        object::remove(new, PATH);
    }
}

/// JSON text as Go's encoder writes it, which is what kubectl compares with.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}
