//! Which fields two versions of an object differ in.

use serde_json::{Map, Value};

use super::{
    element::{Element, same},
    set::{Node, Set},
    shape::{Form, Shape, items, members},
};

/// What differs between two values, as sets of the paths below them.
#[derive(Debug, Default)]
pub(super) struct Comparison<'a> {
    pub(super) removed: Set<'a>,
    pub(super) modified: Set<'a>,
    pub(super) added: Set<'a>,
}

/// What became of the value itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Kept,
    Removed,
    Modified,
    Added,
}

impl Comparison<'_> {
    pub(super) const fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Leaves out `fields` and everything below them.
    pub(super) fn without(self, fields: &Set<'_>) -> Self {
        Self {
            removed: self.removed.without(fields),
            modified: self.modified.without(fields),
            added: self.added.without(fields),
        }
    }
}

/// Compares two values of one shape. Fails with the original's words if a list cannot be owned item
/// by item.
pub(super) fn compare<'a>(
    shape: Shape,
    old: &'a Value,
    new: &'a Value,
) -> Result<Comparison<'a>, String> {
    Ok(walk(shape, Some(old), Some(new))?.1)
}

type Walked<'a> = Result<(Own, Comparison<'a>), String>;

/// At most one of the two may be absent.
fn walk<'a>(shape: Shape, old: Option<&'a Value>, new: Option<&'a Value>) -> Walked<'a> {
    let below = match shape.form(old).max(shape.form(new)) {
        Form::Leaf => return Ok((leaf(old, new), Comparison::default())),
        Form::Map => {
            let (old_members, new_members) = (members(old), members(new));
            let none = |it: Option<&Map<String, Value>>| it.is_none_or(Map::is_empty);
            if none(old_members) && none(new_members) {
                return Ok((leaf(old, new), Comparison::default()));
            }
            map(shape, old_members, new_members)?
        }
        Form::List => {
            let (old_items, new_items) = (items(old), items(new));
            if old_items.is_empty() && new_items.is_empty() {
                return Ok((leaf(old, new), Comparison::default()));
            }
            list(shape, old_items, new_items)?
        }
    };
    let own = match (old, new) {
        (None, _) => Own::Added,
        (_, None) => Own::Removed,
        // Something free that was an object is none any more, or the other way round.
        (Some(old), Some(new)) if is_scalar(shape, old) || is_scalar(shape, new) => Own::Modified,
        (Some(_), Some(_)) => Own::Kept,
    };
    Ok((own, below))
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Own {
    match (old, new) {
        (None, _) => Own::Added,
        (_, None) => Own::Removed,
        (Some(old), Some(new)) if same(old, new) => Own::Kept,
        (Some(_), Some(_)) => Own::Modified,
    }
}

fn is_scalar(shape: Shape, value: &Value) -> bool {
    matches!(shape, Shape::Free) && !value.is_object() && !value.is_null()
}

impl<'a> Comparison<'a> {
    fn add(&mut self, element: &Element<'a>, (own, below): (Own, Self)) {
        let sets = [
            (&mut self.removed, own == Own::Removed, below.removed),
            (&mut self.modified, own == Own::Modified, below.modified),
            (&mut self.added, own == Own::Added, below.added),
        ];
        for (set, member, children) in sets {
            if member || !children.is_empty() {
                set.add(Node { element: element.clone(), member, children });
            }
        }
    }
}

fn map<'a>(
    shape: Shape,
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> Result<Comparison<'a>, String> {
    let mut result = Comparison::default();
    let mut olds = old.into_iter().flatten().peekable();
    let mut news = new.into_iter().flatten().peekable();
    loop {
        let key = match (olds.peek(), news.peek()) {
            (Some((a, _)), Some((b, _))) => (*a).min(*b),
            (Some((key, _)), None) | (None, Some((key, _))) => *key,
            (None, None) => return Ok(result),
        };
        let absent = |of: Option<_>| of.and_then(|_| shape.absent(key));
        let before = olds.next_if(|it| it.0 == key).map(|it| it.1).or_else(|| absent(old));
        let after = news.next_if(|it| it.0 == key).map(|it| it.1).or_else(|| absent(new));
        if let Some(child) = shape.child(key) {
            result.add(&Element::field(key), walk(child, before, after)?);
        }
    }
}

fn list<'a>(shape: Shape, old: &'a [Value], new: &'a [Value]) -> Result<Comparison<'a>, String> {
    let mut result = Comparison::default();
    let (olds, news) = (by_step(shape, old)?, by_step(shape, new)?);
    let mut olds = olds.chunk_by(|a, b| a.0 == b.0).peekable();
    let mut news = news.chunk_by(|a, b| a.0 == b.0).peekable();
    let head = |it: &&[Step<'a>]| it.first().map(|it| it.0.clone());
    loop {
        let element = match (olds.peek().and_then(head), news.peek().and_then(head)) {
            (Some(a), Some(b)) => a.min(b),
            (Some(it), None) | (None, Some(it)) => it,
            (None, None) => return Ok(result),
        };
        let is_this = |it: &&[Step<'a>]| it.first().is_some_and(|it| it.0 == element);
        let before = olds.next_if(is_this).unwrap_or_default();
        let after = news.next_if(is_this).unwrap_or_default();
        let item = shape.item();
        match (before, after) {
            ([] | [_], [] | [_]) => {
                let (before, after) = (before.first(), after.first());
                let found = walk(item, before.map(|it| it.1), after.map(|it| it.1))?;
                result.add(&element, found);
            }
            // Items that occur several times are owned together.
            ([_, _, ..], [_, _, ..]) => {
                let equal = before.len() == after.len()
                    && before.iter().zip(after).all(|(a, b)| same(a.1, b.1));
                let own = if equal { Own::Kept } else { Own::Modified };
                result.add(&element, (own, Comparison::default()));
            }
            ([_, _, ..], _) => {
                if let [only] = after {
                    result.add(&element, walk(item, None, Some(only.1))?);
                }
                result.add(&element, (Own::Removed, Comparison::default()));
            }
            (_, [_, _, ..]) => {
                if let [only] = before {
                    result.add(&element, walk(item, Some(only.1), None)?);
                }
                result.add(&element, (Own::Added, Comparison::default()));
            }
        }
    }
}

type Step<'a> = (Element<'a>, &'a Value);

/// The items of a list with their steps, sorted by these; equal steps as in the list.
fn by_step(shape: Shape, list: &[Value]) -> Result<Vec<Step<'_>>, String> {
    let step = |(index, item)| match shape.step(item) {
        Ok(step) => Ok((step, item)),
        Err(why) => Err(format!("element {index}: {why}")),
    };
    let mut steps = list.iter().enumerate().map(step).collect::<Result<Vec<_>, _>>()?;
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(steps)
}
