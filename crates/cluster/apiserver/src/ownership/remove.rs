//! An object without the fields of a set.

use serde_json::{Map, Value};

use super::{
    element::Element,
    set::Set,
    shape::{Form, Shape},
};

/// `value` without the paths in `gone` and what is below them. What is left empty on the way
/// becomes `null`, as in the original.
pub(super) fn remove(shape: Shape, value: &Value, gone: &Set<'_>) -> Value {
    if gone.is_empty() {
        return value.clone();
    }
    match (shape.form(Some(value)), value) {
        (Form::Map, Value::Object(members)) => {
            let kept = members.iter().filter_map(|(key, value)| {
                let node = gone.get(&Element::field(key));
                let value = match node {
                    Some(node) if node.member => return None,
                    Some(node) => {
                        remove(shape.child(key).unwrap_or(Shape::Free), value, &node.children)
                    }
                    None => value.clone(),
                };
                Some((key.clone(), value))
            });
            let kept: Map<String, Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        (Form::List, Value::Array(items)) => {
            let kept = items.iter().filter_map(|item| {
                let node = shape.step(item).ok().and_then(|step| gone.get(&step));
                match node {
                    Some(node) if node.member => None,
                    Some(node) => Some(remove(shape.item(), item, &node.children)),
                    None => Some(item.clone()),
                }
            });
            let kept: Vec<Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Form::Leaf, _) if matches!(shape, Shape::Scalar(_)) => value.clone(),
        // Nothing can be below something that has one owner.
        _ => Value::Null,
    }
}
