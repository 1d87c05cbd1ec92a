//! Rules about one Rust file: its header, its length, what it must not contain.

use std::path::Path;

/// Longest file, in lines.
const LINES_MAX: usize = 800;
/// Longest file without the tests at its end, in lines.
const LINES_WITHOUT_TESTS_MAX: usize = 500;

// Spelled in two pieces, so that this file does not contain what it looks for.
const UNSAFE: &str = concat!("un", "safe");
const BANNED: &[(&str, &str)] = &[
    (concat!("#[ign", "ore"), "a test that does not run proves nothing: mend or delete it"),
    (concat!("should_", "panic"), "assert on the error instead"),
    (concat!("#[all", "ow("), "use #[expect(…, reason = …)]"),
    (concat!("#![all", "ow("), "use #![expect(…, reason = …)]"),
];

/// Checks the file at `path`.
pub(crate) fn check(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push("no //! header that says what it owns and what it does not do".to_owned());
    }
    let lines = text.lines().count();
    if LINES_MAX < lines {
        problems.push(format!("{lines} lines, at most {LINES_MAX}"));
    }
    let lines = lines_without_tests(text);
    if !is_test(path) && LINES_WITHOUT_TESTS_MAX < lines {
        problems.push(format!("{lines} lines without tests, at most {LINES_WITHOUT_TESTS_MAX}"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        for (banned, instead) in BANNED {
            if line.contains(banned) {
                problems.push(format!("line {number}: `{banned}`: {instead}"));
            }
        }
        if !path.ends_with("sys.rs") && is_unsafe(line) {
            problems.push(format!("line {number}: `{UNSAFE}` outside a sys.rs"));
        }
    }
    problems
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.iter().any(|it| it == "tests")
}

/// Lines up to the module of tests, which conventionally comes last.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|it| {
        matches!(it, [first, second] if *first == "#[cfg(test)]" && second.starts_with("mod tests {"))
    });
    tests.unwrap_or(lines.len())
}

/// Whether the line opens unchecked code. A mention in a comment does not.
fn is_unsafe(line: &str) -> bool {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    let mut after = code.split(UNSAFE).skip(1);
    after.any(|rest| {
        let rest = rest.trim_start();
        rest.is_empty()
            || ["{", "fn", "impl", "extern", "_code"].iter().any(|it| rest.starts_with(it))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn expect_problems(path: &str, text: &str, expected: Expect) {
        expected.assert_eq(&check(Path::new(path), text).join("\n"));
    }

    #[test]
    fn header() {
        expect_problems(
            "a.rs",
            "fn main() {}",
            expect!["no //! header that says what it owns and what it does not do"],
        );
    }

    #[test]
    fn tests_may_make_it_longer() {
        let code = format!("//! A.\n{}", "fn a() {}\n".repeat(500));
        let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"    //\n".repeat(200) + "}\n";
        let text = code + &tests;
        expect_problems("a.rs", &text, expect!["501 lines without tests, at most 500"]);
        expect_problems("tests/a.rs", &text, expect![""]);
        let text = text.replacen("fn a() {}\n", "", 1);
        expect_problems("a.rs", &text, expect![""]);
        let text = text + &"//\n".repeat(200);
        expect_problems("a.rs", &text, expect!["903 lines, at most 800"]);
    }

    #[test]
    fn banned_attributes() {
        for (banned, instead) in BANNED {
            let problems = check(Path::new("a.rs"), &format!("//! A.\n    {banned}"));
            assert_eq!(problems, [format!("line 2: `{banned}`: {instead}")]);
        }
    }

    #[test]
    fn unchecked_code_has_its_file() {
        let text = format!("//! A.\n// {UNSAFE} {{\nlet a = {UNSAFE} {{ b() }};\n");
        expect_problems("a.rs", &text, expect!["line 3: `unsafe` outside a sys.rs"]);
        expect_problems("node/src/sys.rs", &text, expect![""]);
    }
}
