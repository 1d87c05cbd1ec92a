//! The Procfile: a process a line, `NAME: COMMAND`, as foreman reads it. What foreman passes over in
//! silence because it is no process is an error here.

use std::collections::BTreeMap;

use crate::error::{Error, Problem, is_blank, lines};

/// Longest name of a process: a label in Kubernetes (RFC 1123), as its container is named by it.
const NAME_MAX: usize = 63;

/// A Procfile: the processes in their order, no two of which are called the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procfile {
    file: String,
    processes: Vec<Process>,
}

/// A line of a Procfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The name as it is written.
    pub name: String,
    /// What its objects are called: the name in lower case, with `-` for `_`.
    pub label: String,
    /// What a shell is to run. A comment behind it is left to the shell.
    pub command: String,
    /// Its line, counted from 1.
    pub line: u64,
}

impl Procfile {
    /// Reads the text of `file`. Empty lines and comments, lines that begin with `#`, are passed over.
    ///
    /// # Errors
    /// The first line that is no process, or cannot be one in Kubernetes; a text without any.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let mut processes: Vec<Process> = Vec::new();
        let mut first: BTreeMap<String, u64> = BTreeMap::new();
        for (line, text) in lines(text).filter(|(_, it)| !is_blank(it)) {
            let failed = |problem| Error::new(file, line, problem);
            let process = process(text, line).map_err(failed)?;
            let Process { name, label, .. } = &process;
            if let Some(&first) = first.get(label) {
                let (name, label) = (name.clone(), label.clone());
                return Err(failed(Problem::Duplicate { name, label, first }));
            }
            first.insert(label.clone(), line);
            processes.push(process);
        }
        if processes.is_empty() {
            return Err(Error::new(file, 1, Problem::Empty));
        }
        Ok(Self { file: file.to_owned(), processes })
    }

    /// The file, as the user named it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The processes, in the order of their lines.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }
}

fn process(text: &str, line: u64) -> Result<Process, Problem> {
    let (name, command) =
        text.split_once(':').ok_or_else(|| Problem::NoProcess(text.trim().to_owned()))?;
    let name = name.to_owned();
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Problem::NameCharacters(name));
    }
    if NAME_MAX < name.len() {
        return Err(Problem::NameLength { name, max: NAME_MAX });
    }
    let label = name.to_ascii_lowercase().replace('_', "-");
    if label.starts_with('-') || label.ends_with('-') {
        return Err(Problem::NameEnds(name));
    }
    let command = command.trim().to_owned();
    if command.is_empty() {
        return Err(Problem::NoCommand(name));
    }
    if command.contains('\0') {
        return Err(Problem::NulByte);
    }
    Ok(Process { name, label, command, line })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = match Procfile::parse("Procfile", text) {
            Ok(procfile) => {
                let lines = procfile.processes.iter().map(|it| {
                    let Process { name, label, command, line } = it;
                    format!("{line} {name} ({label}): {command}")
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn reads_what_people_have() {
        check(
            "# The processes of the shop\n\n\
             web: bundle exec rails s -p $PORT\n\
             worker: env QUEUE=* bin/rake work # not while it rains\n\
             \t# css: yarn build:css --watch\n\
             js:yarn build --watch\n\
             Clock_1:   exec clockwork config/clock.rb  \n\
             proxy: caddy reverse-proxy --to :$PORT",
            expect![[r"
                3 web (web): bundle exec rails s -p $PORT
                4 worker (worker): env QUEUE=* bin/rake work # not while it rains
                6 js (js): yarn build --watch
                7 Clock_1 (clock-1): exec clockwork config/clock.rb
                8 proxy (proxy): caddy reverse-proxy --to :$PORT"]],
        );
    }

    #[test]
    fn reads_what_windows_writes() {
        check(
            "\u{feff}web: node web.js\r\n\r\n# a comment\r\nworker: node worker.js\r\n",
            expect![[r"
                1 web (web): node web.js
                4 worker (worker): node worker.js"]],
        );
    }

    #[test]
    fn names_the_line_that_is_no_process() {
        check(
            "web: a\njust text\n",
            expect!["error: Procfile:2: `just text` is not `NAME: COMMAND`"],
        );
        check("web:   \n", expect!["error: Procfile:1: process `web` has no command"]);
        check(
            "\n: a\n",
            expect![
                "error: Procfile:2: process name `` holds something else than letters, digits, `_` and `-`"
            ],
        );
        check(
            " web: a\n",
            expect![
                "error: Procfile:1: process name ` web` holds something else than letters, digits, `_` and `-`"
            ],
        );
        check(
            "web.1: a\n",
            expect![
                "error: Procfile:1: process name `web.1` holds something else than letters, digits, `_` and `-`"
            ],
        );
        check(
            "wéb: a\n",
            expect![
                "error: Procfile:1: process name `wéb` holds something else than letters, digits, `_` and `-`"
            ],
        );
        check("web: a\0b\n", expect!["error: Procfile:1: a NUL byte cannot be given to a program"]);
    }

    #[test]
    fn names_what_cannot_be_a_name_in_kubernetes() {
        check(
            "-web: a\n",
            expect![
                "error: Procfile:1: process name `-web` begins or ends with `_` or `-`, which names in Kubernetes must not"
            ],
        );
        check(
            "web_: a\n",
            expect![
                "error: Procfile:1: process name `web_` begins or ends with `_` or `-`, which names in Kubernetes must not"
            ],
        );
        let long = "x".repeat(64);
        let error = Procfile::parse("Procfile", &format!("{long}: a")).unwrap_err();
        assert_eq!(error.problem, Problem::NameLength { name: long, max: 63 });
    }

    #[test]
    fn names_both_of_two_that_would_be_one() {
        check(
            "web: a\n\nweb: b\n",
            expect![
                "error: Procfile:3: process `web` would be called `web` as the one of line 1: rename one of them"
            ],
        );
        check(
            "web_1: a\nWEB-1: b\n",
            expect![
                "error: Procfile:2: process `WEB-1` would be called `web-1` as the one of line 1: rename one of them"
            ],
        );
    }

    #[test]
    fn a_file_must_start_something() {
        check(
            "",
            expect![
                "error: Procfile:1: no process: a Procfile has lines such as `web: ./server --port $PORT`"
            ],
        );
        check(
            "# web: a\n",
            expect![
                "error: Procfile:1: no process: a Procfile has lines such as `web: ./server --port $PORT`"
            ],
        );
    }

    proptest! {
        /// Whatever the text, each process has a line of its own that begins with its name, and a
        /// name that Kubernetes takes.
        #[test]
        fn invariant_processes_are_lines_with_names_of_kubernetes(text in "([a-zA-Z_:# \r\n-]|.){0,60}") {
            match Procfile::parse("p", &text) {
                Ok(procfile) => for it in procfile.processes() {
                    let (_, line) = lines(&text).nth(usize::try_from(it.line - 1).unwrap()).unwrap();
                    let rest = line.strip_prefix(it.name.as_str()).unwrap();
                    prop_assert_eq!(rest.strip_prefix(':').unwrap().trim(), &it.command);
                    let label = it.label.as_str();
                    prop_assert!(label.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-'));
                    prop_assert!(!label.is_empty() && label.len() <= 63);
                    prop_assert!(!label.starts_with('-') && !label.ends_with('-'));
                },
                Err(error) => prop_assert!(0 < error.line && error.line <= lines(&text).count().max(1) as u64),
            }
        }

        /// What was written is read back, with comments and empty lines between.
        #[test]
        fn reads_back_what_was_written(
            commands in proptest::collection::btree_map("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", "[!-~]([ -~]{0,40}[!-~])?", 1..20),
            end in prop_oneof![Just("\n"), Just("\r\n")],
        ) {
            let text: String = commands.iter().map(|(name, command)| format!("{name}: {command}{end}# {name}{end}{end}")).collect();
            let procfile = Procfile::parse("p", &text).unwrap();
            let read = procfile.processes().iter().map(|it| (it.label.clone(), it.command.clone()));
            prop_assert!(read.eq(commands));
        }
    }
}
