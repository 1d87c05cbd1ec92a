//! Fields by their path: `spec/template/metadata/labels`, through lists as well.

use serde_json::{Map, Value};

/// What a path is made to lead to where it leads to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Create {
    No,
    Map,
    Scalar,
}

/// What is done with what is found.
pub(crate) type Set<'a> = dyn FnMut(&mut Value) -> Result<(), String> + 'a;

/// Splits at `/`; `\/` is a slash of a name.
pub(crate) fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'/') => {
                characters.next();
                last(&mut parts).push('/');
            }
            '/' => parts.push(String::new()),
            other => last(&mut parts).push(other),
        }
    }
    parts
}

#[expect(clippy::expect_used, reason = "begins with one part and never takes one away")]
fn last(parts: &mut [String]) -> &mut String {
    parts.last_mut().expect("at least one part")
}

/// Calls `set` with everything at `path`. A part that ends in `[]` is never made.
pub(crate) fn visit(
    value: &mut Value,
    path: &[String],
    create: Create,
    set: &mut Set<'_>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return set(value) };
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter_mut().try_for_each(|item| visit(item, path, create, set)),
        Value::Object(fields) => {
            let name = first.strip_suffix("[]").unwrap_or(first);
            if create != Create::No && name == first {
                make(fields, name, rest.is_empty(), create);
            }
            match fields.get_mut(name) {
                Some(field) => visit(field, rest, create, set),
                None => Ok(()),
            }
        }
        _ => Err(format!("`{first}` is looked for in something that is neither map nor list")),
    }
}

fn make(fields: &mut Map<String, Value>, name: &str, last: bool, create: Create) {
    if last && create == Create::Scalar {
        fields.entry(name).or_insert(Value::Null);
    } else if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), Value::Object(Map::new()));
    }
}
