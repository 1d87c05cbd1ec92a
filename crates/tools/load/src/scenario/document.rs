//! YAML as a tree in which every value knows its file, line and path, and readers of it that say
//! all three when something is wrong. Knows nothing of what scenarios mean.

use std::{fmt, sync::Arc, time::Duration};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;

use super::{
    error::{Error, did_you_mean},
    units::{self, Rate},
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
    /// Path of keys from the top; empty at the top.
    pub(crate) key: String,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads a document.
///
/// # Errors
///
/// If it is no YAML.
pub(crate) fn parse(file: &Arc<str>, text: &str) -> Result<Node, Error> {
    let raw: Located = serde_saphyr::from_str(text).map_err(|error| Error {
        file: Arc::clone(file),
        line: error.location().map_or(0, |it| it.line()),
        key: String::new(),
        what: match &error {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("key `{key}` is there twice")
            }
            other => other.without_snippet().to_string(),
        },
    })?;
    Ok(place(file, String::new(), None, raw))
}

impl Node {
    /// The error that says `what` is wrong here.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> Error {
        let (file, key) = (Arc::clone(&self.file), self.key.clone());
        Error { file, line: self.line, key, what: what.into() }
    }

    fn expected(&self, what: &str) -> Error {
        self.wrong(format!("expected {what}, found {}", self.value.kind()))
    }

    /// A map, whose keys are to be taken one by one.
    pub(crate) fn fields(&self) -> Result<Fields<'_>, Error> {
        let entries = self.map("a map")?;
        Ok(Fields { node: self, entries, known: Vec::new(), passed_over: None })
    }

    /// The entries of a map; `what` says what it is to hold.
    pub(crate) fn map(&self, what: &str) -> Result<&[(String, Self)], Error> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn list(&self, what: &str) -> Result<&[Self], Error> {
        match &self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.expected(what)),
        }
    }

    pub(crate) fn text(&self) -> Result<&str, Error> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("a text")),
        }
    }

    /// A text, number or truth value as text.
    pub(crate) fn scalar(&self) -> Result<String, Error> {
        match &self.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(it) => Ok(it.to_string()),
            _ => Err(self.expected("a text or a number")),
        }
    }

    pub(crate) fn bool(&self) -> Result<bool, Error> {
        match self.value {
            Value::Bool(it) => Ok(it),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number in a range, which is part of what is said otherwise.
    pub(crate) fn whole(&self, least: u64, most: u64) -> Result<u64, Error> {
        let Value::Number(number) = &self.value else {
            return Err(self.expected("a number"));
        };
        match number.as_u64() {
            Some(it) if (least..=most).contains(&it) => Ok(it),
            _ => Err(self.wrong(format!("`{number}` is no whole number from {least} to {most}"))),
        }
    }

    /// A number above 0 and at most `most`.
    pub(crate) fn positive(&self, most: f64) -> Result<f64, Error> {
        let Value::Number(number) = &self.value else {
            return Err(self.expected("a number"));
        };
        match number.as_f64() {
            Some(it) if it > 0.0 && it <= most => Ok(it),
            _ => Err(self.wrong(format!("`{number}` is no number above 0 and up to {most}"))),
        }
    }

    pub(crate) fn duration(&self) -> Result<Duration, Error> {
        units::parse_duration(&self.scalar()?).map_err(|error| self.wrong(error))
    }

    /// A duration that is not 0.
    pub(crate) fn some_duration(&self) -> Result<Duration, Error> {
        match self.duration()? {
            Duration::ZERO => Err(self.wrong("must be longer than 0")),
            duration => Ok(duration),
        }
    }

    pub(crate) fn rate(&self) -> Result<Rate, Error> {
        self.scalar()?.parse().map_err(|error: String| self.wrong(error))
    }
}

/// The keys of a map, each of which is to be taken by name; [`Fields::finish`] finds those that
/// nobody took.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) node: &'a Node,
    entries: &'a [(String, Node)],
    known: Vec<&'static str>,
    passed_over: Option<&'static str>,
}

impl<'a> Fields<'a> {
    /// The value of a key. A key without a value is as good as none.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'a Node> {
        self.known.push(name);
        let entry = self.entries.iter().find(|(key, _)| key == name);
        entry.map(|(_, node)| node).filter(|it| !matches!(it.value, Value::Null))
    }

    pub(crate) fn require(&mut self, name: &'static str) -> Result<&'a Node, Error> {
        if let Some(node) = self.take(name) {
            return Ok(node);
        }
        let misspelt = self.entries.iter().find_map(|(key, node)| {
            let hint = did_you_mean(key, [name]);
            (!hint.is_empty()).then(|| node.wrong(format!("unknown key{hint}")))
        });
        Err(misspelt.unwrap_or_else(|| self.node.wrong(format!("`{name}` is missing"))))
    }

    /// Whether a key is there, without taking it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key == name)
    }

    /// Passes over the keys that begin so, which are the user's own: places for anchors.
    pub(crate) fn pass_over(&mut self, prefix: &'static str) {
        self.passed_over = Some(prefix);
    }

    /// # Errors
    ///
    /// If there is a key that nobody took.
    pub(crate) fn finish(self) -> Result<(), Error> {
        for (name, node) in self.entries {
            if self.passed_over.is_some_and(|it| name.starts_with(it)) {
                continue;
            }
            if !self.known.contains(&name.as_str()) {
                let hint = did_you_mean(name, self.known.iter().copied());
                return Err(node.wrong(format!("unknown key{hint}")));
            }
        }
        Ok(())
    }
}

/// Gives every value its path. A value on a line of its own below its key is placed at the key:
/// that is where one looks.
fn place(file: &Arc<str>, key: String, key_line: Option<u64>, raw: Located) -> Node {
    let line = key_line.unwrap_or_else(|| raw.referenced.line());
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(items) => {
            let items = items.into_iter().enumerate();
            let node = |(index, it)| place(file, format!("{key}[{index}]"), None, it);
            Value::List(items.map(node).collect())
        }
        Raw::Map(entries) => {
            let node = |(name, it): (Spanned<String>, Located)| {
                let path = match key.as_str() {
                    "" => name.value.clone(),
                    key => format!("{key}.{}", name.value),
                };
                let line = name.referenced.line();
                (name.value, place(file, path, Some(line), it))
            };
            Value::Map(entries.into_iter().map(node).collect())
        }
    };
    Node { file: Arc::clone(file), line, key, value }
}

type Located = Spanned<Raw>;

#[derive(Debug)]
enum Raw {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Number(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Raw::Scalar(Value::Number(number))),
            None => Err(E::custom("a number that is not finite")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn list(node: &Node, lines: &mut Vec<String>) {
        lines.push(format!("{} `{}` {}", node.line, node.key, node.value.kind()));
        match &node.value {
            Value::List(items) => items.iter().for_each(|it| list(it, lines)),
            Value::Map(entries) => entries.iter().for_each(|(_, it)| list(it, lines)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let said = match parse(&"a.yaml".into(), text) {
            Ok(node) => {
                let mut lines = Vec::new();
                list(&node, &mut lines);
                lines.join("\n")
            }
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn every_value_knows_its_place() {
        check(
            "a: 1\nb:\n  - x: true\n    y:\n      z: text\n  - null\n",
            expect![[r#"
            1 `` a map
            1 `a` a number
            2 `b` a list
            3 `b[0]` a map
            3 `b[0].x` true or false
            4 `b[0].y` a map
            5 `b[0].y.z` a text
            6 `b[1]` nothing"#]],
        );
        check(
            "base: &it {a: 1}\nother: *it\n",
            expect![[r#"
            1 `` a map
            1 `base` a map
            1 `base.a` a number
            2 `other` a map
            2 `other.a` a number"#]],
        );
    }

    #[test]
    fn names_the_line_of_broken_yaml() {
        check("a: 1\nb: [1,\n", expect!["a.yaml:2: unclosed bracket '[' at line 2, column 4"]);
        check(
            "a: 1\na: 2\n",
            expect![
                "a.yaml:2: duplicate mapping key: a, set DuplicateKeyPolicy in Options if acceptable at line 2, column 1"
            ],
        );
    }

    #[test]
    fn names_keys_that_nobody_knows() {
        let node = parse(&"a.yaml".into(), "think: 1\nchek: 2\n").unwrap();
        let mut fields = node.fields().unwrap();
        assert!(fields.take("think").is_some());
        assert!(fields.take("check").is_none());
        expect!["a.yaml:2: `chek`: unknown key; did you mean `check`?"]
            .assert_eq(&fields.finish().unwrap_err().to_string());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a-c:\\[\\]{}&*!|>#\"'\n -]{0,60}|.{0,60}") {
            drop(parse(&"a.yaml".into(), &text));
        }
    }
}
