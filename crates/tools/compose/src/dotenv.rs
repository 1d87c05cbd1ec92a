//! The file `.env` beside a Procfile: a variable a line, as foreman reads it, and as shells do where
//! the two agree. What foreman passes over in silence is an error here.

use std::collections::BTreeMap;

use crate::error::{Error, Problem, is_blank, lines};

/// What shells write before a variable that programs are to get.
const EXPORT: &str = "export ";

/// Variables and their values: of those given twice, the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, (u64, String)>,
    file: String,
}

impl Variables {
    /// Reads the text of `file`: `NAME=VALUE`, where the value is everything up to the end of the
    /// line, or stands in single quotes, or in double quotes, in which `\n` is the end of a line and
    /// any other character after a `\` is meant itself. Nothing is expanded.
    ///
    /// # Errors
    /// The first line that is no variable.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for (line, text) in lines(text).filter(|(_, it)| !is_blank(it)) {
            let (name, value) = variable(text).map_err(|it| Error::new(file, line, it))?;
            values.insert(name, (line, value));
        }
        Ok(Self { values, file: file.to_owned() })
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, (_, value))| (name.as_str(), value.as_str()))
    }

    /// The number that a variable holds, if it is there.
    pub(crate) fn port(&self, name: &str) -> Result<Option<u16>, Error> {
        let Some((line, value)) = self.values.get(name) else { return Ok(None) };
        match value.parse() {
            Ok(port) if port != 0 => Ok(Some(port)),
            _ => Err(Error::new(&self.file, *line, Problem::BasePort(value.clone()))),
        }
    }
}

fn variable(text: &str) -> Result<(String, String), Problem> {
    let text = text.trim_start();
    let text = text.strip_prefix(EXPORT).map_or(text, str::trim_start);
    let (name, value) =
        text.split_once('=').ok_or_else(|| Problem::NoVariable(text.trim_end().to_owned()))?;
    let allowed = |it: char| it.is_ascii_alphanumeric() || it == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Problem::VariableName(name.to_owned()));
    }
    if value.contains('\0') {
        return Err(Problem::NulByte);
    }
    let value = match (quoted(value, '\''), quoted(value, '"')) {
        (Some(plain), _) => plain.to_owned(),
        (None, Some(escaped)) => unescape(escaped),
        (None, None) => value.to_owned(),
    };
    Ok((name.to_owned(), value))
}

/// What stands between two quotes, if they are the first and the last character.
fn quoted(value: &str, quote: char) -> Option<&str> {
    value.strip_prefix(quote)?.strip_suffix(quote)
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        result.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                // At the end there is nothing that it could change the meaning of.
                other => other.unwrap_or('\\'),
            },
            letter => letter,
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = match Variables::parse(".env", text) {
            Ok(variables) => {
                let lines = variables.iter().map(|(name, value)| format!("{name}={value:?}"));
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn reads_what_people_have() {
        check(
            "# for all of us\nRACK_ENV=development\r\n\nEMPTY=\nURL=postgres://a:b@localhost/x?y=z#w\n\
             SPACES= a b \nexport KEY='it is $HOME \\n'\nTEXT=\"one\\ntwo \\\"quoted\\\" \\\\ $HOME\"\n\
             HALF='open\n  INDENTED=1\nRACK_ENV=test\n",
            expect![[r#"
                EMPTY=""
                HALF="'open"
                INDENTED="1"
                KEY="it is $HOME \\n"
                RACK_ENV="test"
                SPACES=" a b "
                TEXT="one\ntwo \"quoted\" \\ $HOME"
                URL="postgres://a:b@localhost/x?y=z#w""#]],
        );
    }

    #[test]
    fn names_the_line_that_is_no_variable() {
        check("A=1\nnothing\n", expect!["error: .env:2: `nothing` is not `NAME=VALUE`"]);
        check(
            "A = 1\n",
            expect![
                "error: .env:1: variable name `A ` holds something else than letters, digits and `_`"
            ],
        );
        check(
            "=1\n",
            expect![
                "error: .env:1: variable name `` holds something else than letters, digits and `_`"
            ],
        );
        check("A=\0\n", expect!["error: .env:1: a NUL byte cannot be given to a program"]);
    }

    #[test]
    fn a_port_is_a_port() {
        let port = |text: &str| Variables::parse(".env", text).unwrap().port("PORT");
        assert_eq!(port("A=1\n"), Ok(None));
        assert_eq!(port("PORT=3000\n"), Ok(Some(3000)));
        for bad in ["0", "65536", "http", ""] {
            let error = port(&format!("\nPORT={bad}\n")).unwrap_err();
            assert_eq!((error.line, error.problem), (2, Problem::BasePort(bad.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn quoted_values_are_read_back(value in "\\PC*") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let variables = Variables::parse("e", &format!("A=\"{escaped}\"\n")).unwrap();
            prop_assert_eq!(variables.iter().next(), Some(("A", value.as_str())));
        }

        #[test]
        fn every_line_is_read_or_named(text in "([A-Z=#\"' \n]|.){0,60}") {
            match Variables::parse("e", &text) {
                Ok(variables) => {
                    let said = lines(&text).filter(|(_, it)| !is_blank(it)).count();
                    prop_assert!(variables.iter().count() <= said);
                    prop_assert_eq!(variables.iter().next().is_some(), said != 0);
                }
                Err(error) => prop_assert!(lines(&text).any(|(line, it)| line == error.line && !is_blank(it))),
            }
        }
    }
}
