//! The fields that a value sets, as a set of paths.

use serde_json::{Map, Value};

use super::{
    element::Element,
    set::{Node, Set},
    shape::{Form, Shape},
};

/// The paths of everything in `value` that has an owner: leaves, keys of maps and items of lists; not
/// the named fields on the way to them, unless they are empty objects or `null`.
pub(super) fn fields(shape: Shape, value: &Value) -> Set<'_> {
    walk(shape, value).1
}

/// Whether the value itself is owned, and what is below.
fn walk(shape: Shape, value: &Value) -> (bool, Set<'_>) {
    match (shape.form(Some(value)), value) {
        (Form::Map, Value::Object(members)) => (false, map(shape, members)),
        (Form::List, Value::Array(items)) => (false, list(shape, items)),
        (Form::Leaf, _) => (true, Set::default()),
        _ => (false, Set::default()),
    }
}

fn map(shape: Shape, members: &Map<String, Value>) -> Set<'_> {
    let mut set = Set::default();
    for (key, value) in members {
        let Some(child) = shape.child(key) else { continue };
        let (leaf, children) = walk(child, value);
        let says_itself = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let member = leaf || says_itself || !shape.names(key);
        set.add(Node { element: Element::field(key), member, children });
    }
    set
}

fn list(shape: Shape, items: &[Value]) -> Set<'_> {
    let steps = items.iter().filter_map(|item| Some((shape.step(item).ok()?, item)));
    let mut steps: Vec<_> = steps.collect();
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    let mut set = Set::default();
    for same in steps.chunk_by(|a, b| a.0 == b.0) {
        let children = match same {
            [(_, only)] => walk(shape.item(), only).1,
            // Items that occur several times are owned together.
            _ => Set::default(),
        };
        if let Some((element, _)) = same.first() {
            set.add(Node { element: element.clone(), member: true, children });
        }
    }
    set
}

/// `set` with the named fields on the way to its members.
pub(super) fn with_named<'a>(shape: Option<Shape>, set: &Set<'a>) -> Set<'a> {
    let mut result = Set::default();
    for node in set.nodes() {
        let named = match (&node.element, shape) {
            (Element::Field(name), Some(shape)) => !node.children.is_empty() && shape.names(name),
            _ => false,
        };
        let below = shape.and_then(|it| it.below(&node.element));
        let children = with_named(below, &node.children);
        result.add(Node { element: node.element.clone(), member: node.member || named, children });
    }
    result
}
