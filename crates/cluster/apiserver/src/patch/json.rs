//! RFC 6902, within limits: a few operations that copy can make an object of any size and depth.

use api::status::{Reason, Status};
use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::unprocessable;
use crate::{
    limits::{DEPTH_MAX, JSON_PATCH_BYTES_MAX},
    object::depth,
};

/// Applies operations one by one.
pub(super) fn apply(object: &mut Value, patch: &json_patch::Patch) -> Result<(), Status> {
    let mut left = JSON_PATCH_BYTES_MAX;
    for operation in &patch.0 {
        let (path, taken) = match operation {
            PatchOperation::Copy(it) => (&it.path, object.pointer(it.from.as_str())),
            PatchOperation::Move(it) => (&it.path, object.pointer(it.from.as_str())),
            PatchOperation::Add(it) => (&it.path, Some(&it.value)),
            PatchOperation::Replace(it) => (&it.path, Some(&it.value)),
            PatchOperation::Remove(it) => (&it.path, None),
            PatchOperation::Test(it) => (&it.path, None),
        };
        check_depth(path, taken)?;
        if let (PatchOperation::Copy(_) | PatchOperation::Move(_), Some(taken)) = (operation, taken)
        {
            left = left.checked_sub(size(taken)).ok_or_else(too_large)?;
        }
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|error| unprocessable(&error))?;
    }
    Ok(())
}

fn check_depth(path: &Pointer, value: Option<&Value>) -> Result<(), Status> {
    let room = DEPTH_MAX.checked_sub(path.count());
    match (room, value) {
        (Some(_), None) => Ok(()),
        (Some(room), Some(value)) if !depth::exceeds(value, room) => Ok(()),
        _ => Err(Status::bad_request(format!(
            "the patch nests values deeper than {DEPTH_MAX} levels"
        ))),
    }
}

/// About how many bytes a value has as JSON, and at least one for all that it consists of.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 2 + text.len(),
        Value::Array(values) => 2 + values.iter().map(size).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(key, value)| key.len() + 3 + size(value)).sum::<usize>()
        }
    }
}

fn too_large() -> Status {
    let message = format!(
        "the JSON patch copies and moves more than the allowed {JSON_PATCH_BYTES_MAX} bytes"
    );
    Status::new(Reason::RequestEntityTooLarge, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(patch: Value) -> Result<Value, String> {
        let mut object = json!({"a": {"b": "c".repeat(100)}});
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        apply(&mut object, &patch).map(|()| object).map_err(|it| it.to_string())
    }

    #[test]
    fn copies_cannot_double_an_object_again_and_again() {
        let double =
            |number: usize| json!({"op": "copy", "from": "", "path": format!("/x{number}")});
        assert!(check((0..8).map(double).collect()).is_ok());
        let error = check((0..40).map(double).collect()).unwrap_err();
        assert!(error.contains("copies and moves more than"), "{error}");
    }

    #[test]
    fn nothing_becomes_deeper_than_can_be_read_again() {
        let deep = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
        let path = |levels: usize| format!("/a{}", "/0".repeat(levels));
        let add = |value: Value| json!({"op": "add", "path": "/a", "value": value});
        assert!(check(json!([add(deep(90))])).is_ok());
        for operation in ["copy", "move"] {
            let further = json!({"op": operation, "from": "/d", "path": path(90)});
            let patch =
                json!([add(deep(90)), {"op": "add", "path": "/d", "value": deep(20)}, further]);
            assert!(check(patch).unwrap_err().contains("deeper than"), "{operation}");
        }
        assert!(check(json!([add(deep(DEPTH_MAX))])).unwrap_err().contains("deeper than"));
    }
}
