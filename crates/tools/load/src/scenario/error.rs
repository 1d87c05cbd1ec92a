//! What is wrong with a scenario, and where: file, line, key.

use std::{fmt, sync::Arc};

/// A mistake in a scenario or in a file that it names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line, from 1; 0 if the file as a whole is meant.
    pub line: u64,
    /// Path of the key, such as `scenarios.shop.steps[2].think`; empty if there is none.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// "; did you mean `x`?" if one of `known` is near enough to `given`, else nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|it| (distance(given, it), it)).min();
    match near {
        Some((distance, name)) if distance <= 1.max(given.chars().count() / 3) => {
            format!("; did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

/// How many letters must be changed, added or removed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (above, left) in a.chars().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        for (cell, right) in row.iter_mut().skip(1).zip(&b) {
            let changed = diagonal + usize::from(left != *right);
            diagonal = *cell;
            *cell = changed.min(diagonal + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_changed_letters() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "", 3), ("check", "chek", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(did_you_mean("chek", ["check", "think"]), "; did you mean `check`?");
        assert_eq!(did_you_mean("colour", ["check", "think"]), "");
        assert_eq!(did_you_mean("x", []), "");
    }
}
