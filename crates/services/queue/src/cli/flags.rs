//! Reads a command line and a configuration file into options, by a table of flags.
//!
//! The syntax is that of Go's `flag` package, which no library for Rust offers: one dash or two,
//! `-flag=value` or `-flag value`, truth values without a value, lists by repeating a flag. What
//! was given on the command line wins over the file. Unlike there, an argument that belongs to no
//! flag is refused: Go would silently ignore everything after it.

use std::{fmt::Write as _, path::PathBuf};

use super::value::Value;

/// One flag of a program whose options are `O`.
pub(crate) struct Flag<O> {
    /// Without dashes.
    pub(crate) name: &'static str,
    /// Its key in a configuration file and in `/config/…`, if that is not `name` with `_`.
    pub(crate) key: Option<&'static str>,
    /// What the help says of it.
    pub(crate) help: &'static str,
    /// Where its value is.
    pub(crate) at: fn(&mut O) -> &mut dyn Value,
    /// Why giving it changes nothing, if so; it is logged.
    pub(crate) idle: Option<&'static str>,
}

impl<O> Flag<O> {
    pub(crate) fn key(&self) -> String {
        self.key.map_or_else(|| self.name.replace('-', "_"), str::to_owned)
    }
}

/// A flag that belongs to whoever runs a program: its value is handed over as it was given. It may be
/// repeated, and has no place in a configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Outside {
    /// Without dashes.
    pub name: &'static str,
    /// What the help says of it.
    pub help: &'static str,
}

/// The flags of whoever runs a program that were given, in order, each with its value.
pub type Given = Vec<(&'static str, String)>;

/// A program: its name and its flags.
pub(crate) struct Program<O: 'static> {
    pub(crate) name: &'static str,
    pub(crate) flags: &'static [Flag<O>],
    /// Flags of the original that have no counterpart here, and why; giving one is an error.
    pub(crate) refused: &'static [(&'static str, &'static str)],
    /// Flags of whoever runs it.
    pub(crate) outside: &'static [Outside],
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked<O> {
    /// To run with these options.
    Run(Box<O>, Rest),
    /// To print this.
    Print(String),
}

/// What a command line has beside options.
#[derive(Debug, Default)]
pub struct Rest {
    /// To be logged.
    pub notes: Vec<String>,
    /// The flags of whoever runs the program.
    pub given: Given,
}

/// Why a command line or file is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Go's words, so that scripts know them.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// `-=x`, `---x`.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The last argument, and not a truth value.
    #[error("flag needs an argument: -{0}")]
    NoValue(&'static str),
    /// It cannot be had.
    #[error("invalid value {value:?} for flag -{flag}: {why}")]
    Value {
        /// Which.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why not.
        why: String,
    },
    /// In the file.
    #[error("invalid value for `{key}` in {path}: {why}", path = path.display())]
    InFile {
        /// Which file.
        path: PathBuf,
        /// Which.
        key: String,
        /// Why not.
        why: String,
    },
    /// A flag that only the original has.
    #[error("flag -{flag} is not supported: {why}")]
    Unsupported {
        /// Which.
        flag: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Go ignores it and all that follows.
    #[error("unexpected argument `{0}`; a truth value is given as -flag=false")]
    Stray(String),
    /// The configuration file cannot be read.
    #[error("failed to load config file {path}: {why}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl<O: Default> Program<O> {
    /// Reads a command line, without the program's name, and the file it names.
    ///
    /// # Errors
    /// What is wrong with either.
    pub(crate) fn parse(&self, arguments: &[String]) -> Result<Asked<O>, Refused> {
        let mut given = Vec::new();
        let mut of_outside = Given::new();
        let mut file = None;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some((name, inline)) = split(argument)? else {
                // Go ends the flags at `--`; nothing may follow it here.
                match if argument == "--" { rest.next() } else { Some(argument) } {
                    None => break,
                    Some(stray) => return Err(Refused::Stray(stray.clone())),
                }
            };
            match name {
                "help" | "h" => return Ok(Asked::Print(self.help())),
                "version" if truth("version", inline)? => {
                    return Ok(Asked::Print(super::version(self.name)));
                }
                "version" => {}
                "config" => {
                    let value = inline.or_else(|| rest.next().map(String::as_str));
                    file = Some(value.ok_or(Refused::NoValue("config"))?);
                }
                name => {
                    if let Some(flag) = self.outside.iter().find(|it| it.name == name) {
                        let value = inline.or_else(|| rest.next().map(String::as_str));
                        let value = value.ok_or(Refused::NoValue(flag.name))?;
                        of_outside.push((flag.name, value.to_owned()));
                        continue;
                    }
                    let flag = self.flag(name)?;
                    let is_bool = (flag.at)(&mut O::default()).is_bool();
                    let value = match inline {
                        Some(value) => value,
                        None if is_bool => "true",
                        None => rest.next().ok_or(Refused::NoValue(flag.name))?,
                    };
                    given.push((flag, value));
                }
            }
        }
        let mut notes = Vec::new();
        let mut options = Box::<O>::default();
        if let Some(path) = file.filter(|it| !it.is_empty()) {
            self.load(path.into(), &mut options, &mut notes)?;
        }
        apply(&given, &mut options, &mut notes)?;
        Ok(Asked::Run(options, Rest { notes, given: of_outside }))
    }

    fn flag(&self, name: &str) -> Result<&'static Flag<O>, Refused> {
        if let Some((flag, why)) = self.refused.iter().find(|(it, _)| *it == name) {
            return Err(Refused::Unsupported { flag, why });
        }
        let found = self.flags.iter().find(|it| it.name == name);
        found.ok_or_else(|| Refused::Unknown(name.to_owned()))
    }

    fn load(&self, path: PathBuf, options: &mut O, notes: &mut Vec<String>) -> Result<(), Refused> {
        let failed = |why| Refused::File { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
        for (key, value) in &table {
            let refused = self.refused.iter().find(|(name, _)| name.replace('-', "_") == *key);
            let problem = |why| Refused::InFile { path: path.clone(), key: key.clone(), why };
            if let Some((_, why)) = refused {
                return Err(problem(format!("not supported: {why}")));
            }
            // As in the original, where files outlive the options they name.
            let Some(flag) = self.flags.iter().find(|it| it.key() == *key) else {
                notes.push(format!("`{key}` in {} is unknown and ignored", path.display()));
                continue;
            };
            (flag.at)(options).set_from_file(value).map_err(problem)?;
            notes.extend(flag.idle.map(|why| format!("`{key}` has no effect: {why}")));
        }
        Ok(())
    }

    /// The value of an option by its key in a configuration file, as `/config/…` shows it.
    pub(crate) fn json(&self, options: &mut O, key: &str) -> Option<serde_json::Value> {
        let flag = self.flags.iter().find(|it| it.key() == key)?;
        Some((flag.at)(options).json())
    }

    /// What `-help` prints, in Go's form.
    pub(crate) fn help(&self) -> String {
        let mut help = format!("Usage of {}:\n", self.name);
        let mut defaults = O::default();
        for flag in self.flags {
            let value = (flag.at)(&mut defaults);
            let kind = if value.is_bool() { "" } else { " value" };
            let shown = value.shown();
            let default = if shown.is_empty() { shown } else { format!(" (default {shown})") };
            let _infallible =
                writeln!(help, "  -{}{kind}\n    \t{}{default}", flag.name, flag.help);
        }
        for Outside { name, help: text } in self.outside {
            let _infallible = writeln!(help, "  --{name} value\n    \t{text}");
        }
        help.push_str("  -config value\n    \tpath to config file\n");
        help.push_str("  -version\n    \tprint version string\n");
        help
    }
}

fn apply<O>(
    given: &[(&'static Flag<O>, &str)],
    options: &mut O,
    notes: &mut Vec<String>,
) -> Result<(), Refused> {
    for (place, (flag, text)) in given.iter().enumerate() {
        let value = (flag.at)(options);
        if given.iter().take(place).all(|(it, _)| it.name != flag.name) {
            value.clear();
            notes.extend(flag.idle.map(|why| format!("-{} has no effect: {why}", flag.name)));
        }
        value.set(text).map_err(|why| Refused::Value {
            flag: flag.name,
            value: (*text).to_owned(),
            why,
        })?;
    }
    Ok(())
}

/// A flag's name and what follows `=`; `None` if it is none.
fn split(argument: &str) -> Result<Option<(&str, Option<&str>)>, Refused> {
    let Some(name) = argument.strip_prefix('-') else { return Ok(None) };
    let name = name.strip_prefix('-').unwrap_or(name);
    if argument == "-" || argument == "--" {
        return Ok(None);
    }
    if name.starts_with(['-', '=']) {
        return Err(Refused::Syntax(argument.to_owned()));
    }
    Ok(Some(match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    }))
}

fn truth(flag: &'static str, text: Option<&str>) -> Result<bool, Refused> {
    let text = text.unwrap_or("true");
    super::value::parse_bool(text).ok_or_else(|| Refused::Value {
        flag,
        value: text.to_owned(),
        why: "parse error".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};

    use super::{
        super::value::{Number, Parts},
        *,
    };

    #[derive(Debug, Default)]
    struct Options {
        address: String,
        lookupd: Vec<String>,
        size: Number<1, 100>,
        timeout: Duration,
        snappy: bool,
        parts: Parts,
    }

    impl Default for Number<1, 100> {
        fn default() -> Self {
            Self(7)
        }
    }

    const fn flag(name: &'static str, at: fn(&mut Options) -> &mut dyn Value) -> Flag<Options> {
        Flag { name, key: None, help: "…", at, idle: None }
    }

    const PROGRAM: Program<Options> = Program {
        name: "nsqx",
        flags: &[
            flag("tcp-address", |it| &mut it.address),
            Flag { key: Some("lookupds"), ..flag("lookupd", |it| &mut it.lookupd) },
            flag("size", |it| &mut it.size),
            flag("timeout", |it| &mut it.timeout),
            flag("snappy", |it| &mut it.snappy),
            Flag { idle: Some("it is Tuesday"), ..flag("part", |it| &mut it.parts) },
        ],
        refused: &[("carrier-pigeon", "they are asleep")],
        outside: &[Outside { name: "found-in", help: "…" }],
    };

    fn check(lines: &[&str], expected: Expect) {
        let mut seen = String::new();
        for line in lines {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let outcome = match PROGRAM.parse(&arguments) {
                Ok(Asked::Run(options, Rest { notes, given })) => {
                    let given =
                        if given.is_empty() { String::new() } else { format!(" {given:?}") };
                    format!("{options:?} {notes:?}{given}")
                }
                Ok(Asked::Print(text)) => text.lines().next().unwrap_or_default().to_owned(),
                Err(error) => format!("error: {error}"),
            };
            writeln!(seen, "{line}\n    {outcome}").unwrap();
        }
        expected.assert_eq(&seen);
    }

    #[test]
    fn reads_the_forms_of_go() {
        check(
            &[
                "-tcp-address=:1 --size 9 -snappy -timeout=1m",
                "--tcp-address :1 -size=9 --snappy=false --timeout 1m --",
                "-lookupd=a -lookupd b -part 0.5 -part=1.0,0.25",
                "-tcp-address= -size=0x10",
                "--found-in a/b -size=9 -found-in=c --found-in=",
                "-version -nonsense",
                "-version=false",
                "-h",
            ],
            expect![[r#"
                -tcp-address=:1 --size 9 -snappy -timeout=1m
                    Options { address: ":1", lookupd: [], size: Number(9), timeout: 60s, snappy: true, parts: Parts([]) } []
                --tcp-address :1 -size=9 --snappy=false --timeout 1m --
                    Options { address: ":1", lookupd: [], size: Number(9), timeout: 60s, snappy: false, parts: Parts([]) } []
                -lookupd=a -lookupd b -part 0.5 -part=1.0,0.25
                    Options { address: "", lookupd: ["a", "b"], size: Number(7), timeout: 0ns, snappy: false, parts: Parts([1.0, 0.5, 0.25]) } ["-part has no effect: it is Tuesday"]
                -tcp-address= -size=0x10
                    Options { address: "", lookupd: [], size: Number(16), timeout: 0ns, snappy: false, parts: Parts([]) } []
                --found-in a/b -size=9 -found-in=c --found-in=
                    Options { address: "", lookupd: [], size: Number(9), timeout: 0ns, snappy: false, parts: Parts([]) } [] [("found-in", "a/b"), ("found-in", "c"), ("found-in", "")]
                -version -nonsense
                    nsqx v1.3.0 (coracle 0.1.0)
                -version=false
                    Options { address: "", lookupd: [], size: Number(7), timeout: 0ns, snappy: false, parts: Parts([]) } []
                -h
                    Usage of nsqx:
            "#]],
        );
    }

    #[test]
    fn refuses_by_name() {
        check(
            &[
                "-nope=1",
                "---size=1",
                "-=1",
                "-size",
                "-found-in",
                "-size=101",
                "-size=x",
                "-snappy true",
                "-snappy=maybe",
                "-timeout=5",
                "-part=2",
                "-carrier-pigeon=1",
                "-",
                "-- -size=1",
                "-config",
                "-config=/nowhere/nsqd.cfg",
            ],
            expect![[r#"
                -nope=1
                    error: flag provided but not defined: -nope
                ---size=1
                    error: bad flag syntax: ---size=1
                -=1
                    error: bad flag syntax: -=1
                -size
                    error: flag needs an argument: -size
                -found-in
                    error: flag needs an argument: -found-in
                -size=101
                    error: invalid value "101" for flag -size: must be from 1 to 100
                -size=x
                    error: invalid value "x" for flag -size: parse error
                -snappy true
                    error: unexpected argument `true`; a truth value is given as -flag=false
                -snappy=maybe
                    error: invalid value "maybe" for flag -snappy: parse error
                -timeout=5
                    error: invalid value "5" for flag -timeout: parse error
                -part=2
                    error: invalid value "2" for flag -part: must be above 0 and at most 1
                -carrier-pigeon=1
                    error: flag -carrier-pigeon is not supported: they are asleep
                -
                    error: unexpected argument `-`; a truth value is given as -flag=false
                -- -size=1
                    error: unexpected argument `-size=1`; a truth value is given as -flag=false
                -config
                    error: flag needs an argument: -config
                -config=/nowhere/nsqd.cfg
                    error: failed to load config file /nowhere/nsqd.cfg: No such file or directory (os error 2)
            "#]],
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "tcp_address = ':2'\nlookupds = ['x', 'y']\ntimeout = 1500\nsnappy = true\n\
                    part = [0.5, 1.0]\nsize = 3\nunheard_of = 1\n";
        std::fs::write(&file, text).unwrap();
        let path = file.path().to_str().unwrap();
        let read = |line: &str| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            match PROGRAM.parse(&arguments).unwrap() {
                Asked::Run(options, rest) => format!("{options:?} {:?}", rest.notes),
                Asked::Print(text) => text,
            }
        };
        let seen = read(&format!("-size 5 -config {path} -lookupd=z")).replace(path, "FILE");
        expect![[r#"Options { address: ":2", lookupd: ["z"], size: Number(5), timeout: 1.5s, snappy: true, parts: Parts([1.0, 0.5]) } ["`part` has no effect: it is Tuesday", "`unheard_of` in FILE is unknown and ignored"]"#]].assert_eq(&seen);
        std::fs::write(&file, "found_in = 'x'").unwrap();
        let seen = read(&format!("-config={path}")).replace(path, "FILE");
        assert!(seen.ends_with("[\"`found_in` in FILE is unknown and ignored\"]"), "{seen}");
        for bad in ["size = 101", "size = 'x'", "carrier_pigeon = 1", "snappy = []", "size ="] {
            std::fs::write(&file, bad).unwrap();
            let refused = PROGRAM.parse(&[format!("-config={path}")]);
            assert!(matches!(refused, Err(Refused::InFile { .. } | Refused::File { .. })), "{bad}");
        }
    }
}
