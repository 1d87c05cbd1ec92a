//! What the instructions of a Dockerfile say. Whatever is not known here is refused by its name: a
//! build that silently did something else would be worse than none.

use super::{
    Problem,
    parse::{Document, Line, cut},
    words,
};

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
    },
    /// Names with their default values.
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Copy(Copy),
    Run(Command),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Workdir(String),
    User(String),
    StopSignal(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Healthcheck(Option<Health>),
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// Archives are unpacked.
    pub(super) is_add: bool,
    pub(super) from: Option<String>,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    pub(super) sources: Vec<String>,
    pub(super) documents: Vec<Document>,
    pub(super) to: String,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// For the shell.
    Text(String),
    Words(Vec<String>),
}

/// How health is asked for: durations in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) command: Command,
    pub(super) interval: i64,
    pub(super) timeout: i64,
    pub(super) start_period: i64,
    pub(super) start_interval: i64,
    pub(super) retries: i64,
}

/// What is known and not done, with what to do instead.
const REFUSED: [(&str, &str); 2] = [
    ("ONBUILD", "its instructions run in other people's builds: write them where they are to run"),
    ("MAINTAINER", "write LABEL org.opencontainers.image.authors=… instead"),
];

/// Understands a line.
pub(super) fn understand(line: Line, escape: char) -> Result<Instruction, Problem> {
    let number = line.number;
    let keyword = line.keyword.clone();
    Reader { line, escape }
        .read()
        .map_err(|reason| Problem::new(number, format!("{keyword}: {reason}")))
}

struct Reader {
    line: Line,
    escape: char,
}

impl Reader {
    fn read(mut self) -> Result<Instruction, String> {
        let keyword = self.line.keyword.clone();
        if let Some((_, instead)) = REFUSED.iter().find(|it| it.0 == keyword) {
            return Err(format!("not done here: {instead}"));
        }
        if self.line.rest.is_empty() {
            return Err("nothing comes after it".to_owned());
        }
        let instruction = match keyword.as_str() {
            "FROM" => self.from()?,
            "ARG" => Instruction::Arg(self.arguments()?),
            "ENV" => Instruction::Env(self.pairs()?),
            "LABEL" => Instruction::Label(self.pairs()?),
            "ADD" => Instruction::Copy(self.copy(true)?),
            "COPY" => Instruction::Copy(self.copy(false)?),
            "RUN" => self.run()?,
            "CMD" => Instruction::Cmd(command(&self.line.rest)),
            "ENTRYPOINT" => Instruction::Entrypoint(command(&self.line.rest)),
            "SHELL" => match command(&self.line.rest) {
                Command::Words(words) if !words.is_empty() => Instruction::Shell(words),
                _ => return Err("a list of words in JSON is needed".to_owned()),
            },
            "WORKDIR" => Instruction::Workdir(self.line.rest.clone()),
            "USER" => Instruction::User(self.line.rest.clone()),
            "STOPSIGNAL" => Instruction::StopSignal(self.line.rest.clone()),
            "EXPOSE" => Instruction::Expose(self.words()),
            "VOLUME" => Instruction::Volume(match command(&self.line.rest) {
                Command::Words(words) => words,
                Command::Text(_) => self.words(),
            }),
            "HEALTHCHECK" => Instruction::Healthcheck(self.health()?),
            _ => return Err("no such instruction".to_owned()),
        };
        match self.line.flags.first() {
            Some((flag, _)) => Err(format!("--{flag} is not done here")),
            None => Ok(instruction),
        }
    }

    /// Takes a flag that has a value.
    fn flag(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.line.flags.iter().position(|it| it.0 == name) else { return Ok(None) };
        let (_, value) = self.line.flags.remove(at);
        value.map(Some).ok_or_else(|| format!("--{name} needs a value"))
    }

    fn from(&mut self) -> Result<Instruction, String> {
        let platform = self.flag("platform")?;
        let words: Vec<&str> = self.line.rest.split_whitespace().collect();
        let (image, name) = match words.as_slice() {
            [image] => (*image, None),
            [image, between, name] if between.eq_ignore_ascii_case("as") => (*image, Some(*name)),
            _ => return Err("expected: FROM IMAGE, or FROM IMAGE AS NAME".to_owned()),
        };
        let name = name.map(str::to_lowercase);
        let is_name = |it: &String| {
            it.starts_with(|it: char| it.is_ascii_lowercase())
                && it.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
        };
        if let Some(name) = name.as_ref().filter(|it| !is_name(it)) {
            return Err(format!("`{name}` is not a name of a stage"));
        }
        Ok(Instruction::From { image: image.to_owned(), platform, name })
    }

    fn words(&self) -> Vec<String> {
        self.line.rest.split_whitespace().map(str::to_owned).collect()
    }

    fn arguments(&self) -> Result<Vec<(String, Option<String>)>, String> {
        let words = words::split(&self.line.rest, self.escape);
        words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err("a name is missing".to_owned()),
                Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
                None => Ok((word, None)),
            })
            .collect()
    }

    /// `NAME=VALUE …`, or, as of old, one name with all that comes after it.
    fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let words = words::split(&self.line.rest, self.escape);
        if words.first().is_some_and(|it| !it.contains('=')) {
            let (name, value) = cut(&self.line.rest);
            if value.is_empty() {
                return Err(format!("{name} has no value"));
            }
            return Ok(vec![(name.to_owned(), value.to_owned())]);
        }
        words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
                _ => Err(format!("`{word}` is not NAME=VALUE")),
            })
            .collect()
    }

    fn copy(&mut self, is_add: bool) -> Result<Copy, String> {
        let from = if is_add { None } else { self.flag("from")? };
        let (chown, chmod) = (self.flag("chown")?, self.flag("chmod")?);
        // Layers here depend on those below in names only, so this changes nothing.
        self.line.flags.retain(|it| *it != ("link".to_owned(), None));
        let mut words = match command(&self.line.rest) {
            Command::Words(words) => words,
            Command::Text(_) => self.words(),
        };
        let documents = std::mem::take(&mut self.line.documents);
        let to = words.pop().filter(|it| !it.starts_with("<<"));
        let to = to.ok_or("a source and a destination are needed")?;
        words.retain(|it| {
            !documents.iter().any(|document| {
                let name = it.trim_start_matches("<<").trim_start_matches('-');
                it.starts_with("<<") && name.trim_matches(['"', '\'']) == document.name
            })
        });
        if words.is_empty() && documents.is_empty() {
            return Err("a source and a destination are needed".to_owned());
        }
        let is_remote = |it: &&String| {
            ["http://", "https://", "git://", "git@", "ssh://"]
                .iter()
                .any(|start| it.starts_with(start))
        };
        if let Some(source) = words.iter().find(is_remote).filter(|_| is_add) {
            return Err(format!("`{source}`: nothing is fetched: give the file with the context"));
        }
        Ok(Copy { is_add, from, chown, chmod, sources: words, documents, to })
    }

    fn run(&mut self) -> Result<Instruction, String> {
        // What is there anyway may be asked for.
        self.line.flags.retain(|(name, value)| {
            let value = value.as_deref();
            !(name == "network" && value == Some("default")
                || name == "security" && value == Some("sandbox"))
        });
        let command = command(&self.line.rest);
        let documents = self.line.documents.as_slice();
        let Command::Text(mut text) = command else { return Ok(Instruction::Run(command)) };
        match documents {
            [] => {}
            // The document is the script.
            [only] if text.starts_with("<<") && !text.contains(char::is_whitespace) => {
                if only.text.starts_with("#!") {
                    return Err(
                        "a here-document with an interpreter of its own is not done".to_owned()
                    );
                }
                text.clone_from(&only.text);
            }
            all => {
                // The shell reads them itself.
                for document in all {
                    text = format!("{text}\n{}{}", document.text, document.name);
                }
            }
        }
        Ok(Instruction::Run(Command::Text(text)))
    }

    fn health(&mut self) -> Result<Option<Health>, String> {
        let mut duration = |name: &str| match self.flag(name)? {
            Some(text) => {
                nanoseconds(&text).ok_or_else(|| format!("--{name}={text} is not a duration"))
            }
            None => Ok(0),
        };
        let (interval, timeout) = (duration("interval")?, duration("timeout")?);
        let (start_period, start_interval) =
            (duration("start-period")?, duration("start-interval")?);
        let retries = match self.flag("retries")? {
            Some(text) => text.parse().map_err(|_| format!("--retries={text} is not a number"))?,
            None => 0,
        };
        let (kind, rest) = cut(&self.line.rest);
        match kind.to_uppercase().as_str() {
            "NONE" if rest.is_empty() => Ok(None),
            "CMD" if !rest.is_empty() => {
                let command = command(rest);
                let health =
                    Health { command, interval, timeout, start_period, start_interval, retries };
                Ok(Some(health))
            }
            _ => Err("expected: CMD and a command, or NONE".to_owned()),
        }
    }
}

/// A list of words in JSON, or else text.
fn command(text: &str) -> Command {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => Command::Words(words),
        Err(_) => Command::Text(text.to_owned()),
    }
}

/// A duration as Go writes it: `1m30s`, `1.5s`, `100ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let mut sum = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, factor) = UNITS.iter().find(|it| it.0 == unit)?;
        sum += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    // Beyond this a number of nanoseconds is not exact, and no health check waits that long.
    let is_exact = !text.is_empty() && (0.0..9e15).contains(&sum);
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    is_exact.then_some(sum as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::parse::parse;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let read = || -> Result<Vec<String>, Problem> {
            let file = parse(text)?;
            let understood = file.lines.into_iter().map(|line| {
                let number = line.number;
                understand(line, file.escape).map(|it| format!("{number} {it:?}"))
            });
            understood.collect()
        };
        expected.assert_eq(&read().map_or_else(|it| format!("! {it}"), |it| it.join("\n")));
    }

    #[test]
    fn lines_comments_and_directives() {
        check(
            "# syntax=docker/dockerfile:1\n# escape=`\n\nfrom a as B\n# no\nENV x=1 `\n  # no\n\n  y=2 `\n z=3\nUSER c:\\d",
            expect![[r#"
                4 From { image: "a", platform: None, name: Some("b") }
                6 Env([("x", "1"), ("y", "2"), ("z", "3")])
                11 User("c:\\d")"#]],
        );
        check(
            "# syntax=example.org/other\nFROM a",
            expect!["! 1: syntax=example.org/other: other front ends than Docker's are not run"],
        );
        check("# escape=x\nFROM a", expect![[r"! 1: escape=x: only \ and ` are known"]]);
    }

    #[test]
    fn commands() {
        check(
            "RUN a \\\n  b\nRUN [\"a\", \"b c\"]\nCMD [not json]\nENTRYPOINT [\"/a\"]\nSHELL [\"/b\"]",
            expect![[r#"
                1 Run(Text("a   b"))
                3 Run(Words(["a", "b c"]))
                4 Cmd(Text("[not json]"))
                5 Entrypoint(Words(["/a"]))
                6 Shell(["/b"])"#]],
        );
        check(
            "HEALTHCHECK --interval=1m30s --retries=3 CMD a b\nHEALTHCHECK NONE",
            expect![[r#"
                1 Healthcheck(Some(Health { command: Text("a b"), interval: 90000000000, timeout: 0, start_period: 0, start_interval: 0, retries: 3 }))
                2 Healthcheck(None)"#]],
        );
    }

    #[test]
    fn here_documents() {
        check(
            "RUN <<EOF\necho a\nEOF\nRUN cat <<-'X' > /y\n\tz\n\tX\nCOPY <<A <<\"B\" /to/\n1\nA\n2\nB",
            expect![[r#"
                1 Run(Text("echo a\n"))
                4 Run(Text("cat <<-'X' > /y\nz\nX"))
                7 Copy(Copy { is_add: false, from: None, chown: None, chmod: None, sources: [], documents: [Document { name: "A", text: "1\n", is_expanded: true, is_chomped: false }, Document { name: "B", text: "2\n", is_expanded: false, is_chomped: false }], to: "/to/" })"#]],
        );
        check("RUN <<EOF\necho", expect!["! 1: the here-document EOF has no end"]);
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (text, expected) in [
            ("RUN --mount=type=cache,target=/x a", expect!["! 1: RUN: --mount is not done here"]),
            ("RUN --network=none a", expect!["! 1: RUN: --network is not done here"]),
            ("COPY --parents a b", expect!["! 1: COPY: --parents is not done here"]),
            (
                "ONBUILD RUN a",
                expect![
                    "! 1: ONBUILD: not done here: its instructions run in other people's builds: write them where they are to run"
                ],
            ),
            (
                "MAINTAINER a",
                expect![
                    "! 1: MAINTAINER: not done here: write LABEL org.opencontainers.image.authors=… instead"
                ],
            ),
            (
                "ADD https://example.org/a /b",
                expect![
                    "! 1: ADD: `https://example.org/a`: nothing is fetched: give the file with the context"
                ],
            ),
            ("INCLUDE a", expect!["! 1: INCLUDE: no such instruction"]),
            ("COPY a", expect!["! 1: COPY: a source and a destination are needed"]),
            ("SHELL a", expect!["! 1: SHELL: a list of words in JSON is needed"]),
            ("ENV a", expect!["! 1: ENV: a has no value"]),
            ("RUN", expect!["! 1: RUN: nothing comes after it"]),
            (
                "HEALTHCHECK --interval=1x CMD a",
                expect!["! 1: HEALTHCHECK: --interval=1x is not a duration"],
            ),
        ] {
            check(text, expected);
        }
    }
}
