//! An object with what an applier wants of it laid over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::{
    element::Element,
    shape::{Form, Shape, items, members},
};

/// `live` with everything that `wanted` says; both are of one shape and [valid](super::valid).
pub(super) fn merge(shape: Shape, live: &Value, wanted: &Value) -> Value {
    walk(shape, Some(live), Some(wanted)).unwrap_or_default()
}

/// At most one of the two may be absent.
fn walk(shape: Shape, live: Option<&Value>, wanted: Option<&Value>) -> Option<Value> {
    let leaf = || wanted.or(live).cloned();
    // What is free is what the applier says it is.
    let form = match (shape, wanted) {
        (Shape::Free, None | Some(Value::Null)) => shape.form(live),
        _ => shape.form(wanted),
    };
    match form {
        Form::Leaf => leaf(),
        Form::Map => {
            let (live, wanted) = (members(live), members(wanted));
            let none = |it: Option<&Map<String, Value>>| it.is_none_or(Map::is_empty);
            if none(live) && none(wanted) {
                return leaf();
            }
            map(shape, live, wanted)
        }
        Form::List => {
            let (live, wanted) = (items(live), items(wanted));
            if live.is_empty() && wanted.is_empty() {
                return leaf();
            }
            list(shape, live, wanted)
        }
    }
}

fn map(
    shape: Shape,
    live: Option<&Map<String, Value>>,
    wanted: Option<&Map<String, Value>>,
) -> Option<Value> {
    let keys = live.into_iter().chain(wanted).flat_map(Map::keys);
    let keys: BTreeSet<&String> = keys.collect();
    let merged = keys.into_iter().filter_map(|key| {
        let live = live.and_then(|it| it.get(key));
        let wanted = wanted.and_then(|it| it.get(key));
        let shape = shape.child(key).unwrap_or(Shape::Free);
        Some((key.clone(), walk(shape, live, wanted)?))
    });
    let merged: Map<String, Value> = merged.collect();
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// Merges two lists item by item. The order is the applier's for its items; the others stay where
/// they stand between those that both have.
fn list(shape: Shape, live: &[Value], wanted: &[Value]) -> Option<Value> {
    let (live, wanted) = (Side::of(shape, live), Side::of(shape, wanted));
    let mut shared: VecDeque<&Element<'_>> =
        wanted.steps.iter().map(|it| &it.0).filter(|it| live.by_step.contains_key(it)).collect();
    let mut next_shared = shared.pop_front();
    let mut taken = BTreeSet::new();
    let mut merged = Vec::with_capacity(live.steps.len().max(wanted.steps.len()));
    let (mut at_live, mut at_wanted) = (0, 0);
    loop {
        let (left, right) = (live.steps.get(at_live), wanted.steps.get(at_wanted));
        if let (Some((left, _)), Some((right, _))) = (left, right)
            && left != right
            && wanted.by_step.contains_key(left)
            && next_shared.is_some_and(|it| it != left)
        {
            // Both have it, but its turn comes elsewhere.
            at_live += 1;
            continue;
        }
        match (left, right) {
            (Some((step, item)), _) if !wanted.by_step.contains_key(step) => {
                merged.extend(walk(shape.item(), Some(item), None));
                at_live += 1;
                continue;
            }
            // It stands further up already; unless it is what comes next on both sides.
            (Some((step, _)), right)
                if taken.contains(step) && right.is_none_or(|it| it.0 != *step) =>
            {
                at_live += 1;
            }
            (None, None) => break,
            _ => {}
        }
        let Some((step, item)) = right else { continue };
        taken.insert(step);
        merged.extend(walk(shape.item(), live.by_step.get(step).copied(), Some(item)));
        at_wanted += 1;
        if left.is_some_and(|it| it.0 == *step) {
            at_live += 1;
            next_shared = shared.pop_front();
        } else if next_shared == Some(step) {
            next_shared = shared.pop_front();
        }
    }
    (!merged.is_empty()).then_some(Value::Array(merged))
}

static NULL: Value = Value::Null;

/// The items of one of the lists, in their order and by their steps.
struct Side<'a> {
    steps: Vec<(Element<'a>, &'a Value)>,
    by_step: BTreeMap<Element<'a>, &'a Value>,
}

impl<'a> Side<'a> {
    fn of(shape: Shape, list: &'a [Value]) -> Self {
        let mut by_step = BTreeMap::new();
        let steps = list.iter().filter_map(|item| Some((shape.step(item).ok()?, item)));
        let steps: Vec<_> = steps.collect();
        for (step, item) in &steps {
            // Items that occur several times are replaced, not merged.
            by_step.entry(step.clone()).and_modify(|it| *it = &NULL).or_insert(*item);
        }
        Self { steps, by_step }
    }
}
