//! Texts with holes: `/items/{{ id }}`. Taken apart once; what is known by then is filled in once,
//! so a text without variables is only a text.

use std::{fmt::Write as _, sync::Arc};

use super::{
    error::did_you_mean,
    target::{escape as percent_encode, escape_illegal},
};

/// What a variable holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: Arc<str>,
    /// Whether the text is JSON other than a string, which JSON takes over as it is.
    pub(super) json: bool,
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self { text: text.into(), json: false }
    }

    pub(super) fn of_json(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(text) => Self::text(text),
            other => Self { text: other.to_string().into(), json: true },
        }
    }
}

/// Where the names of a template lead.
pub(super) trait Names {
    /// What `name` stands for.
    fn find(&mut self, name: &str) -> Option<Named>;
    /// All names, for suggestions, and a hint if `name` is one that is not there yet.
    fn known(&self, name: &str) -> (Vec<String>, Option<String>);
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Named {
    /// Something known before the run.
    Constant(Value),
    /// A variable of a user.
    Slot(usize),
}

/// How values are written into a template. The template's own text is written as it stands, but
/// for what a URL or a JSON string cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As they are.
    Nothing,
    /// As a URL that is written as one; values as parts of it.
    Url,
    /// As one part of a URL or a form, such as a value of a query.
    Component,
    /// Fit for the inside of a JSON string.
    Json,
}

/// A compiled template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// Escaped already.
    Text(String),
    Hole(Source, Write),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Slot(usize),
    Uuid,
    /// A whole number between two, both possible.
    Random(u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Plain,
    Component,
    /// As a part of a URL that is escaped already, but never what a URL cannot hold.
    Legal,
    JsonInside,
    JsonWhole,
}

impl Template {
    /// Takes a text apart.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn compile(
        text: &str,
        escape: Escape,
        names: &mut dyn Names,
    ) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            let (before, after) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('\\') {
                template.literal(before, escape);
                template.literal("{{", escape);
                rest = after.get(2..).unwrap_or_default();
                continue;
            }
            template.literal(before, escape);
            let inside = after.get(2..).unwrap_or_default();
            let Some((inside, after)) = inside.split_once("}}") else {
                return Err(format!(
                    "`{text}` has `{{{{` without `}}}}`; for two braces write \\{{{{"
                ));
            };
            template.hole(inside, escape, names)?;
            rest = after;
        }
        template.literal(rest, escape);
        Ok(template)
    }

    /// A JSON string: if the text is one hole and nothing else, its value keeps its type.
    pub(super) fn compile_json(text: &str, names: &mut dyn Names) -> Result<Self, String> {
        let inside = text.strip_prefix("{{").and_then(|it| it.strip_suffix("}}"));
        let mut template = Self::default();
        match inside {
            Some(inside) if !inside.contains("{{") && !inside.contains("}}") => {
                let (source, raw) = Self::source(inside, names)?;
                let write = if raw { Write::Plain } else { Write::JsonWhole };
                template.add(source, write);
            }
            _ => {
                template.verbatim("\"");
                template.append(Self::compile(text, Escape::Json, names)?);
                template.verbatim("\"");
            }
        }
        Ok(template)
    }

    fn hole(&mut self, text: &str, escape: Escape, names: &mut dyn Names) -> Result<(), String> {
        let (source, raw) = Self::source(text, names)?;
        let write = match (escape, raw) {
            (Escape::Nothing, _) | (Escape::Json, true) => Write::Plain,
            (Escape::Url | Escape::Component, false) => Write::Component,
            (Escape::Url | Escape::Component, true) => Write::Legal,
            (Escape::Json, false) => Write::JsonInside,
        };
        self.add(source, write);
        Ok(())
    }

    /// What a hole is filled with, and whether as it is.
    fn source(text: &str, names: &mut dyn Names) -> Result<(Filling, bool), String> {
        let (name, filter) = match text.split_once('|') {
            Some((name, filter)) => (name.trim(), Some(filter.trim())),
            None => (text.trim(), None),
        };
        let raw = match filter {
            None => false,
            Some("raw") => true,
            Some(other) => return Err(format!("unknown filter `{other}`; there is only `raw`")),
        };
        if let Some(function) = name.strip_prefix('$') {
            return Ok((Filling::Later(function_of(function)?), raw));
        }
        match names.find(name) {
            Some(Named::Constant(value)) => Ok((Filling::Now(value), raw)),
            Some(Named::Slot(slot)) => Ok((Filling::Later(Source::Slot(slot)), raw)),
            None => {
                let (known, hint) = names.known(name);
                let hint =
                    hint.unwrap_or_else(|| did_you_mean(name, known.iter().map(String::as_str)));
                Err(format!("undefined variable `{name}`{hint}"))
            }
        }
    }

    fn add(&mut self, filling: Filling, write: Write) {
        match filling {
            Filling::Now(value) => {
                let mut text = String::new();
                write.value(&value, &mut text);
                self.verbatim(&text);
            }
            Filling::Later(source) => self.pieces.push(Piece::Hole(source, write)),
        }
    }

    fn literal(&mut self, text: &str, escape: Escape) {
        match escape {
            Escape::Nothing => self.verbatim(text),
            Escape::Url => {
                let mut escaped = String::new();
                escape_illegal(text, &mut escaped);
                self.verbatim(&escaped);
            }
            Escape::Component => {
                let mut escaped = String::new();
                percent_encode(text, &mut escaped);
                self.verbatim(&escaped);
            }
            Escape::Json => {
                let mut escaped = String::new();
                json_inside(text, &mut escaped);
                self.verbatim(&escaped);
            }
        }
    }

    /// Adds a text as it is.
    pub(super) fn verbatim(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            Some(Piece::Hole(..)) | None => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Adds another template.
    pub(super) fn append(&mut self, other: Self) {
        for piece in other.pieces {
            match piece {
                Piece::Text(text) => self.verbatim(&text),
                hole @ Piece::Hole(..) => self.pieces.push(hole),
            }
        }
    }

    /// The text, if there is no hole.
    pub(super) fn constant(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Its texts between holes.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|it| match it {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Hole(..) => None,
        })
    }

    /// The text before the first hole.
    pub(super) fn beginning(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            Some(Piece::Hole(..)) | None => "",
        }
    }

    /// Without its first bytes, which must be text.
    pub(super) fn without_beginning(mut self, bytes: usize) -> Self {
        if let Some(Piece::Text(text)) = self.pieces.first_mut() {
            *text = text.get(bytes..).unwrap_or_default().to_owned();
        }
        self.pieces.retain(|it| !matches!(it, Piece::Text(text) if text.is_empty()));
        self
    }

    /// The variables in it.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().filter_map(|it| match it {
            Piece::Hole(Source::Slot(slot), _) => Some(*slot),
            Piece::Hole(Source::Uuid | Source::Random(..), _) | Piece::Text(_) => None,
        })
    }

    /// Appends the text with its holes filled.
    pub(super) fn render(&self, values: &[Value], rng: &mut fastrand::Rng, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Hole(Source::Slot(slot), write) => {
                    if let Some(value) = values.get(*slot) {
                        write.value(value, out);
                    }
                }
                Piece::Hole(Source::Uuid, write) => {
                    write.value(&Value::text(&uuid(rng)), out);
                }
                Piece::Hole(Source::Random(from, to), write) => {
                    let text = rng.u64(*from..=*to).to_string();
                    write.value(&Value { text: text.into(), json: true }, out);
                }
            }
        }
    }
}

enum Filling {
    Now(Value),
    Later(Source),
}

fn function_of(text: &str) -> Result<Source, String> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, arguments)) => (name.trim(), arguments.trim_end().strip_suffix(')')),
        None => (text, None),
    };
    match (name, arguments) {
        ("uuid", None) => Ok(Source::Uuid),
        ("random", Some(arguments)) => {
            let bounds = arguments
                .split_once(',')
                .and_then(|(from, to)| Some((from.trim().parse().ok()?, to.trim().parse().ok()?)));
            match bounds {
                Some((from, to)) if from <= to => Ok(Source::Random(from, to)),
                _ => Err(format!("`${text}` is no range; write it as `$random(1, 6)`")),
            }
        }
        _ => Err(format!(
            "unknown function `${text}`{}",
            did_you_mean(name, ["uuid", "random"]).replace("did you mean `", "did you mean `$")
        )),
    }
}

/// A random UUID, version 4.
fn uuid(rng: &mut fastrand::Rng) -> String {
    let bits = (rng.u128(..) & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let digits = format!("{bits:032x}");
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    parts.join("-")
}

impl Write {
    fn value(self, value: &Value, out: &mut String) {
        match self {
            Self::Plain => out.push_str(&value.text),
            Self::Component => percent_encode(&value.text, out),
            Self::Legal => escape_illegal(&value.text, out),
            Self::JsonInside => json_inside(&value.text, out),
            Self::JsonWhole if value.json => out.push_str(&value.text),
            Self::JsonWhole => {
                out.push('"');
                json_inside(&value.text, out);
                out.push('"');
            }
        }
    }
}

/// Appends a text as it stands between the quotes of a JSON string.
fn json_inside(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            it if u32::from(it) < 0x20 => {
                write!(out, "\\u{:04x}", u32::from(it)).unwrap_or_default();
            }
            it => out.push(it),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// `site` is known, `user` and `id` are variables: a text and a number.
    struct Sample;

    impl Names for Sample {
        fn find(&mut self, name: &str) -> Option<Named> {
            match name {
                "site" => Some(Named::Constant(Value::text("a/b"))),
                "user" => Some(Named::Slot(0)),
                "id" => Some(Named::Slot(1)),
                _ => None,
            }
        }

        fn known(&self, _: &str) -> (Vec<String>, Option<String>) {
            (["site", "user", "id"].map(str::to_owned).into(), None)
        }
    }

    fn fill(template: Result<Template, String>) -> String {
        let values = [Value::text("Ann \"Ü\" & co"), Value { text: "42".into(), json: true }];
        match template {
            Ok(template) => {
                let mut out = String::new();
                template.render(&values, &mut fastrand::Rng::with_seed(1), &mut out);
                if template.constant().is_some() { format!("constant: {out}") } else { out }
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let plain = fill(Template::compile(text, Escape::Nothing, &mut Sample));
        let url = fill(Template::compile(text, Escape::Url, &mut Sample));
        let json = fill(Template::compile_json(text, &mut Sample));
        expected.assert_eq(&format!("{plain}\n{url}\n{json}"));
    }

    #[test]
    fn fills_holes() {
        check(
            "",
            expect![[r#"
            constant: 
            constant: 
            constant: """#]],
        );
        check(
            "a b",
            expect![[r#"
            constant: a b
            constant: a%20b
            constant: "a b""#]],
        );
        check(
            "/{{ site }}/x",
            expect![[r#"
            constant: /a/b/x
            constant: /a%2Fb/x
            constant: "/a/b/x""#]],
        );
        check(
            "/{{user}}?id={{ id }}",
            expect![[r#"
            /Ann "Ü" & co?id=42
            /Ann%20%22%C3%9C%22%20%26%20co?id=42
            "/Ann \"Ü\" & co?id=42""#]],
        );
        check(
            "{{ user }}",
            expect![[r#"
            Ann "Ü" & co
            Ann%20%22%C3%9C%22%20%26%20co
            "Ann \"Ü\" & co""#]],
        );
        check(
            "{{ user | raw }}",
            expect![[r#"
            Ann "Ü" & co
            Ann%20%22%C3%9C%22%20&%20co
            Ann "Ü" & co"#]],
        );
    }

    #[test]
    fn keeps_types_and_calls_functions() {
        check(
            "{{ id }}",
            expect![[r#"
            42
            42
            42"#]],
        );
        check(
            "{{ id }}{{ id }}",
            expect![[r#"
            4242
            4242
            "4242""#]],
        );
        check(
            "{{ $uuid }}",
            expect![[r#"
            a833bdcd-b6d1-4eb1-88dc-97e5aab5fe3d
            a833bdcd-b6d1-4eb1-88dc-97e5aab5fe3d
            "a833bdcd-b6d1-4eb1-88dc-97e5aab5fe3d""#]],
        );
        check(
            "{{ $random(7, 7) }}",
            expect![[r#"
            7
            7
            7"#]],
        );
        check(
            "\\{{ user }}",
            expect![[r#"
            constant: {{ user }}
            constant: %7B%7B%20user%20%7D%7D
            constant: "{{ user }}""#]],
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("{{ users }}", expect!["error: undefined variable `users`; did you mean `user`?"]),
            ("{{ }}", expect!["error: undefined variable ``"]),
            (
                "{{ user",
                expect![[r#"error: `{{ user` has `{{` without `}}`; for two braces write \{{"#]],
            ),
            ("{{ user | upper }}", expect!["error: unknown filter `upper`; there is only `raw`"]),
            ("{{ $uid }}", expect!["error: unknown function `$uid`; did you mean `$uuid`?"]),
            (
                "{{ $random(2, 1) }}",
                expect!["error: `$random(2, 1)` is no range; write it as `$random(1, 6)`"],
            ),
        ] {
            expected.assert_eq(&fill(Template::compile(text, Escape::Nothing, &mut Sample)));
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[{}a-z$|\\\\ (),1]{0,30}|.{0,30}") {
            drop(Template::compile(&text, Escape::Url, &mut Sample));
            drop(Template::compile_json(&text, &mut Sample));
        }

        #[test]
        fn json_stays_json(text in ".{0,30}") {
            let mut out = String::new();
            Write::JsonWhole.value(&Value::text(&text), &mut out);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
