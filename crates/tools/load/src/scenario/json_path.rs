//! A simple JSONPath (`$.items[0].id`, `$['a b']`, `$.items[*].id`, `$[-1]`) and JSON pointers
//! (`/items/0/id`). No filters and no descent: what a check needs, and no query language.

use serde_json::Value;

/// A compiled path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    /// From the end if negative.
    Index(i64),
    /// A part of a pointer that is both.
    KeyOrIndex(String, usize),
    Every,
}

impl Path {
    /// Reads a path that begins with `$`, or a pointer that begins with `/`.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix('/') {
            return Ok(Self { steps: rest.split('/').map(pointer_step).collect() });
        }
        let Some(mut rest) = text.strip_prefix('$') else {
            return Err(format!("`{text}` is no path; write `$.items[0].id` or `/items/0/id`"));
        };
        let wrong = |at: &str| {
            let column = text.len() - at.len() + 1;
            format!("`{text}` is no path from column {column} on; write it as `$.items[0].id`")
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() {
                    return Err(wrong(rest));
                }
                (if name == "*" { Step::Every } else { Step::Key(name.to_owned()) }, after)
            } else if let Some(inside) = rest.strip_prefix('[') {
                bracket(inside).ok_or_else(|| wrong(rest))?
            } else {
                return Err(wrong(rest));
            };
            steps.push(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// All values that the path leads to, in the order of the document.
    pub(super) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|it| step.follow(it)).collect();
        }
        found
    }
}

fn pointer_step(part: &str) -> Step {
    let key = part.replace("~1", "/").replace("~0", "~");
    match key.parse() {
        Ok(index) => Step::KeyOrIndex(key, index),
        Err(_) => Step::Key(key),
    }
}

/// What stands after a `[`, and the rest after its `]`.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    for quote in ['\'', '"'] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, after) = quoted.split_once(quote)?;
            return Some((Step::Key(name.to_owned()), after.strip_prefix(']')?));
        }
    }
    let (index, after) = inside.split_once(']')?;
    let step = match index.trim() {
        "*" => Step::Every,
        index => Step::Index(index.parse().ok()?),
    };
    Some((step, after))
}

impl Step {
    fn follow<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Key(key) | Self::KeyOrIndex(key, _), Value::Object(entries)) => {
                entries.get(key).into_iter().collect()
            }
            (Self::KeyOrIndex(_, index), Value::Array(items)) => {
                items.get(*index).into_iter().collect()
            }
            (Self::Index(index), Value::Array(items)) => {
                let distance = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
                let index = match index.is_negative() {
                    true => items.len().checked_sub(distance),
                    false => Some(distance),
                };
                index.and_then(|it| items.get(it)).into_iter().collect()
            }
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Every, Value::Object(entries)) => entries.values().collect(),
            (Self::Key(_) | Self::Index(_) | Self::KeyOrIndex(..) | Self::Every, _) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Expect) {
        let value = serde_json::json!({
            "items": [{"id": 1, "a b": "x"}, {"id": 2, "a/b": "y"}],
            "0": "zero",
            "nothing": null,
        });
        let said = match Path::parse(path) {
            Ok(path) => {
                let found = path.find(&value).into_iter().map(ToString::to_string);
                found.collect::<Vec<String>>().join(" ")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn finds_values() {
        check("$.items[0].id", expect!["1"]);
        check("$.items[-1].id", expect!["2"]);
        check("$.items[*].id", expect!["1 2"]);
        check("$['items'][0]['a b']", expect![[r#""x""#]]);
        check("$.0", expect![[r#""zero""#]]);
        check("$.nothing", expect!["null"]);
        check("/items/1/a~1b", expect![[r#""y""#]]);
        check("/0", expect![[r#""zero""#]]);
        check("$.items[7].id", expect![""]);
        check("$.items[-3].id", expect![""]);
        check("$.items.id", expect![""]);
    }

    #[test]
    fn says_what_is_no_path() {
        check(
            "items",
            expect!["error: `items` is no path; write `$.items[0].id` or `/items/0/id`"],
        );
        check(
            "$items",
            expect!["error: `$items` is no path from column 2 on; write it as `$.items[0].id`"],
        );
        check(
            "$.items[",
            expect!["error: `$.items[` is no path from column 8 on; write it as `$.items[0].id`"],
        );
        check(
            "$.items[x]",
            expect!["error: `$.items[x]` is no path from column 8 on; write it as `$.items[0].id`"],
        );
        check(
            "$..id",
            expect!["error: `$..id` is no path from column 2 on; write it as `$.items[0].id`"],
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[$/][a-z0-9.\\[\\]'*~-]{0,20}|.{0,20}") {
            if let Ok(path) = Path::parse(&text) {
                path.find(&serde_json::json!({"a": [1, {"b": 2}]}));
            }
        }
    }
}
