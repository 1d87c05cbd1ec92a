//! Field selectors: `status.phase=Running,metadata.name!=web`.

use std::fmt;

use super::ParseError;

/// One condition of a [`FieldSelector`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Path of the field, such as `metadata.name`.
    pub path: String,
    /// Value it is compared with.
    pub value: String,
    /// Whether the field must have the value, or must not.
    pub equal: bool,
}

/// Conditions that must all hold. The default one selects everything.
///
/// Printed and parsed as kubectl's `--field-selector`; in values `\`, `,` and `=` are escaped by
/// `\`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Reads a selector; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut requirements = Vec::new();
        for term in terms(text) {
            if term.is_empty() {
                continue;
            }
            let invalid =
                || ParseError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (path, equal, value) = split_term(term).ok_or_else(invalid)?;
            let value = unescape(value)?;
            requirements.push(FieldRequirement { path: path.to_owned(), value, equal });
        }
        Ok(Self(requirements))
    }

    /// The conditions in the order of the text.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The value `path` must have, if the selector demands exactly one.
    #[must_use]
    pub fn exact(&self, path: &str) -> Option<&str> {
        let found = self.0.iter().find(|it| it.equal && it.path == path);
        found.map(|it| it.value.as_str())
    }

    /// Whether an object is selected whose fields are `value_of(path)`.
    pub fn matches(&self, mut value_of: impl FnMut(&str) -> String) -> bool {
        self.0.iter().all(|it| (value_of(&it.path) == it.value) == it.equal)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let operator = if it.equal { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", it.path, escape(&it.value))?;
        }
        Ok(())
    }
}

/// Splits at commas that are not escaped.
fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut rest = text;
    let mut escaped = false;
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                let (term, _) = rest.split_at(at - start);
                terms.push(term);
                start = at + 1;
                rest = text.get(start..).unwrap_or_default();
            }
            _ => {}
        }
    }
    terms.push(rest);
    terms
}

/// Finds the first operator: `!=`, `==` or `=`.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    let (left, right) = (term.get(..at)?, term.get(at + 1..)?);
    Some(match left.strip_suffix('!') {
        Some(path) => (path, false, right),
        None => (left, true, right.strip_prefix('=').unwrap_or(right)),
    })
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn unescape(value: &str) -> Result<String, ParseError> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(it) = characters.next() {
        match it {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => plain.push(escaped),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(ParseError(format!(
                        "invalid field selector: invalid escape sequence: {sequence}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(ParseError(format!(
                    "invalid field selector: unescaped character in value: {it}"
                )));
            }
            _ => plain.push(it),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        match FieldSelector::parse(text) {
            Ok(selector) => expect.assert_eq(&selector.to_string()),
            Err(error) => expect.assert_eq(&format!("error: {error}")),
        }
    }

    #[test]
    fn parses_and_prints() {
        check("", expect![""]);
        check("metadata.name=web", expect!["metadata.name=web"]);
        check("a==b,c!=d", expect!["a=b,c!=d"]);
        check("a=", expect!["a="]);
        check(r"a=x\,y\=z\\", expect![r"a=x\,y\=z\\"]);
        check("a", expect!["error: invalid selector: 'a'; can't understand 'a'"]);
        check("a=b=c", expect!["error: invalid field selector: unescaped character in value: ="]);
        check(r"a=\x", expect![[r"error: invalid field selector: invalid escape sequence: \x"]]);
    }

    #[test]
    fn matches_all_terms() {
        let selector = FieldSelector::parse("status.phase!=Failed,spec.nodeName=n1").unwrap();
        let with = |phase: &str, node: &str| {
            selector.matches(|path| if path == "status.phase" { phase } else { node }.to_owned())
        };
        assert!(with("Running", "n1"));
        assert!(!with("Failed", "n1"));
        assert!(!with("Running", ""));
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        assert_eq!(selector.exact("status.phase"), None);
    }

    proptest! {
        #[test]
        fn printed_is_parsed_again(
            terms in prop::collection::vec(("[a-z.]{1,8}", ".{0,8}", any::<bool>()), 0..4)
        ) {
            let terms = terms.into_iter()
                .map(|(path, value, equal)| FieldRequirement { path, value, equal })
                .collect();
            let selector = FieldSelector(terms);
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            drop(FieldSelector::parse(&text));
        }
    }
}
