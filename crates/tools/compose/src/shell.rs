//! A line for a shell, such that its last program takes the shell's place.
//!
//! The first process of a container gets the signals, and a shell that waits for a program passes none
//! on. Some shells give their place up by themselves, others do so only when told. Where it is not
//! certain that nothing is changed but that, the line stays as it is.

/// What tells the shell.
const EXEC: &str = "exec ";

/// First words that are the shell's own, or that begin or end what is more than a command.
const OWN: &[&str] = &[
    "!", ".", ":", "[", "[[", "alias", "bg", "break", "builtin", "case", "cd", "command",
    "continue", "declare", "do", "done", "echo", "elif", "else", "esac", "eval", "exec", "exit",
    "export", "false", "fg", "fi", "for", "function", "getopts", "hash", "if", "in", "jobs",
    "kill", "let", "local", "printf", "pwd", "read", "readonly", "return", "select", "set",
    "shift", "source", "test", "then", "time", "times", "trap", "true", "type", "typeset",
    "ulimit", "umask", "unalias", "unset", "until", "wait", "while", "{", "}",
];

/// The line with `exec` before its last command, if that is a program and nothing comes after it.
pub(crate) fn in_place(line: &str) -> String {
    match last_program(line) {
        Some(at) => {
            let (before, program) = line.split_at(at);
            format!("{before}{EXEC}{program}")
        }
        None => line.to_owned(),
    }
}

/// Where the name of the last program begins.
fn last_program(line: &str) -> Option<usize> {
    let mut rest = line.get(last_command(line)?..)?.trim_start();
    loop {
        let word = rest.get(..word_end(rest))?;
        if is_assignment(word) {
            rest = rest.get(word.len()..)?.trim_start();
        } else {
            let plain = |it: char| it.is_ascii_alphanumeric() || "_./+@%-".contains(it);
            let program = !word.is_empty() && word.chars().all(plain) && !OWN.contains(&word);
            return program.then_some(line.len() - rest.len());
        }
    }
}

/// Where the last of the commands begins that run one after the other; none for anything else than that.
fn last_command(line: &str) -> Option<usize> {
    let mut start = 0;
    let mut quote = None;
    let mut before = ' ';
    let mut letters = line.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map(|(_, it)| *it);
        match (quote, letter) {
            (Some('\''), _) if letter != '\'' => {}
            (_, '\\') => drop(letters.next()),
            // What is put in by another command may be anything.
            (_, '`') | (_, '$') if letter == '`' || next == Some('(') => return None,
            (Some(it), _) => quote = quote.filter(|_| letter != it),
            (None, '\'' | '"') => quote = Some(letter),
            (None, '#') if before.is_whitespace() => break,
            (None, '(' | ')' | '\n') => return None,
            (None, '<') if next == Some('<') => return None,
            (None, ';') => start = at + 1,
            (None, '&' | '|') if next == Some(letter) => {
                letters.next();
                start = at + 2;
            }
            (None, '&') if before == '>' => {}
            (None, '&' | '|') => return None,
            (None, _) => {}
        }
        before = letter;
    }
    quote.is_none().then_some(start)
}

/// Where the first word ends.
fn word_end(text: &str) -> usize {
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('\''), _) if letter != '\'' => {}
            (_, '\\') => drop(letters.next()),
            (Some(it), _) => quote = quote.filter(|_| letter != it),
            (None, '\'' | '"') => quote = Some(letter),
            (None, _) if letter.is_whitespace() || matches!(letter, ';' | '<' | '>') => return at,
            (None, _) => {}
        }
    }
    text.len()
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let named = |it: char| it.is_ascii_alphanumeric() || it == '_';
    name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_') && name.chars().all(named)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_program_takes_the_shells_place() {
        for (line, expected) in [
            ("bundle exec rails s -p $PORT", "exec bundle exec rails s -p $PORT"),
            ("env QUEUE=* bin/rake work # all", "exec env QUEUE=* bin/rake work # all"),
            ("A=1 B='x y' ./server", "A=1 B='x y' exec ./server"),
            ("cd web && npm start", "cd web && exec npm start"),
            ("cd web; PORT=1 npm start 2>&1", "cd web; PORT=1 exec npm start 2>&1"),
            ("a || b ${X} \"c; d\" 'e | f' > log", "a || exec b ${X} \"c; d\" 'e | f' > log"),
            ("python -c 'print(1)'", "exec python -c 'print(1)'"),
            ("a \\; b", "exec a \\; b"),
            ("a#b", "a#b"),
        ] {
            assert_eq!(in_place(line), expected);
        }
    }

    #[test]
    fn all_else_stays() {
        for line in [
            "a | b",
            "a & b",
            "a &",
            "a; ",
            "(a)",
            "a $(b)",
            "a `b`",
            "a \"`b`\"",
            "exec a",
            "cd web",
            "if a; then b; fi",
            "while a; do b; done",
            "for i in 1 2; do a; done",
            "{ a; b; }",
            "! a",
            "$PROGRAM -x",
            "A=1",
            "echo a",
            "a 'b",
            "a <<x",
            "~/bin/a",
            "",
            ">log a",
            "\"a b\" c",
            "a && # b",
            "case x in y) a;; esac",
            "f() { a; }",
            "A=$(b) c",
        ] {
            assert_eq!(in_place(line), line);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_changed_but_that(line in "([a-c ;&|'\"$(){}#\\\\=<>-]|.){0,30}") {
            let changed = in_place(&line);
            let inserted = changed.match_indices(EXEC).any(|(at, _)| {
                format!("{}{}", &changed[..at], &changed[at + EXEC.len()..]) == line
            });
            prop_assert!(changed == line || inserted);
        }
    }
}
