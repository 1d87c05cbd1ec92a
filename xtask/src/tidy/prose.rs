//! Rules about every text file: nothing of one machine in it, nothing put off, and the map of the
//! code stays short enough to be read.

use std::path::Path;

/// Longest ARCHITECTURE.md, in lines.
const ARCHITECTURE_LINES_MAX: usize = 300;

// Spelled in two pieces, so that this file does not contain what it looks for.
/// Where home folders are.
const HOMES: &[&str] = &[concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];
/// Users that are made up: their home folders may stand in examples and tests.
const MADE_UP: &[&str] = &["user", "me", "ann", "bob"];
/// Notes to oneself: work that is put off belongs into an issue.
const PUT_OFF: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// Checks the file at `path`, which is relative to the work tree `root`.
pub(crate) fn check(root: &Path, path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let root = root.display().to_string() + "/";
    for (number, line) in (1..).zip(text.lines()) {
        let home = HOMES.iter().any(|home| {
            line.match_indices(home).filter(|(at, _)| begins_path(line, *at)).any(|(at, _)| {
                let rest = line.get(at + home.len()..).unwrap_or_default();
                !MADE_UP.iter().any(|it| rest.starts_with(it))
            })
        });
        if home || line.contains(&root) {
            problems.push(format!("line {number}: a path of one machine"));
        }
        for word in PUT_OFF.iter().filter(|it| line.contains(**it)) {
            problems.push(format!("line {number}: `{word}`: write an issue or do it"));
        }
    }
    let lines = text.lines().count();
    if path == Path::new("ARCHITECTURE.md") && ARCHITECTURE_LINES_MAX < lines {
        problems.push(format!("{lines} lines, at most {ARCHITECTURE_LINES_MAX}"));
    }
    problems
}

/// Whether a path begins at `at`, as against `/proc/1/root/…`.
fn begins_path(line: &str, at: usize) -> bool {
    let before = line.get(..at).and_then(|it| it.chars().next_back());
    !before.is_some_and(|it| it.is_alphanumeric() || it == '.' || it == '}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn expect_problems(text: &str, expected: Expect) {
        let problems = check(Path::new("/src/checkout"), Path::new("a.md"), text);
        expected.assert_eq(&problems.join("\n"));
    }

    #[test]
    fn paths_of_one_machine() {
        let [home, _, administrator] = HOMES else { panic!("three homes") };
        let text = format!("{home}user/a\n{home}jane/a\n{administrator}a\n/src/checkout/target");
        expect_problems(
            &text,
            expect![[r"
                line 2: a path of one machine
                line 3: a path of one machine
                line 4: a path of one machine"]],
        );
    }

    #[test]
    fn work_put_off() {
        for word in PUT_OFF {
            let problems = check(Path::new("/src/checkout"), Path::new("a.md"), word);
            assert_eq!(problems, [format!("line 1: `{word}`: write an issue or do it")]);
        }
    }
}
