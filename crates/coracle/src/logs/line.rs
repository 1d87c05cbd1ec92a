//! A line of a log, as it is shown. Pure.

use anstyle::{AnsiColor, Color, Effects, Style};
use serde_json::{Map, Value};

/// Colours that are told apart on light and dark ground; red and yellow say something else.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
];

/// What programs call the message, the level and the time of a line: zap, zerolog, logrus, slog, bunyan, pino,
/// Python's structlog, Google's and Elastic's formats.
const MESSAGES: [&str; 4] = ["msg", "message", "event", "@message"];
const LEVELS: [&str; 5] = ["level", "severity", "lvl", "log.level", "levelname"];
const TIMES: [&str; 5] = ["time", "ts", "timestamp", "@timestamp", "asctime"];

/// A line, and who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The pod, with the container if it has several.
    pub(crate) label: String,
    pub(crate) text: String,
}

/// How lines are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Each pod has its colour.
    pub(crate) colours: bool,
    /// Lines of JSON are shown as text.
    pub(crate) pretty: bool,
}

impl Line {
    /// The line as it is shown.
    pub(crate) fn show(&self, look: Look) -> String {
        let object = look.pretty.then(|| object(&self.text)).flatten();
        let text = object.and_then(|it| said(&it, look)).unwrap_or_else(|| self.text.clone());
        format!("{} | {text}", paint(&self.label, colour(&self.label), look))
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    // Most lines are none.
    let text = text.trim();
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// Level, message, and the rest as `key=value`; none if it has no message.
fn said(object: &Map<String, Value>, look: Look) -> Option<String> {
    let first = |keys: &[&'static str]| keys.iter().copied().find(|it| object.contains_key(*it));
    let message = first(&MESSAGES)?;
    let (level, time) = (first(&LEVELS), first(&TIMES));
    let mut said = String::new();
    if let Some(level) = level.and_then(|it| object.get(it)) {
        let level = level_name(level);
        let style = Style::new().fg_color(level_colour(&level).map(Color::Ansi));
        said.push_str(&format!("{} ", paint(&level, style, look)));
    }
    said.push_str(&plain(object.get(message)?));
    let told = [Some(message), level, time];
    for (key, value) in object.iter().filter(|(key, _)| !told.contains(&Some(key.as_str()))) {
        let key = paint(key, Style::new().effects(Effects::DIMMED), look);
        said.push_str(&format!(" {key}={}", quoted(value)));
    }
    Some(said)
}

/// In capitals; bunyan's and pino's numbers as words.
fn level_name(level: &Value) -> String {
    match level.as_u64() {
        Some(10) => "TRACE".to_owned(),
        Some(20) => "DEBUG".to_owned(),
        Some(30) => "INFO".to_owned(),
        Some(40) => "WARN".to_owned(),
        Some(50) => "ERROR".to_owned(),
        Some(60) => "FATAL".to_owned(),
        _ => plain(level).to_uppercase(),
    }
}

fn level_colour(level: &str) -> Option<AnsiColor> {
    match level {
        "WARN" | "WARNING" => Some(AnsiColor::Yellow),
        "ERROR" | "FATAL" | "CRITICAL" | "PANIC" | "ALERT" | "EMERGENCY" => Some(AnsiColor::Red),
        _ => None,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// In quotes where it could not be told apart from what follows.
fn quoted(value: &Value) -> String {
    let text = plain(value);
    if text.is_empty() || value.is_string() && text.contains([' ', '"', '=']) {
        return Value::from(text).to_string();
    }
    text
}

/// The colour of a pod: the same as long as it has this name.
fn colour(label: &str) -> Style {
    let sum = label.bytes().fold(0_usize, |sum, it| sum.wrapping_mul(31).wrapping_add(it.into()));
    let chosen = COLOURS.get(sum % COLOURS.len()).copied();
    Style::new().fg_color(chosen.map(Color::Ansi))
}

fn paint(text: &str, style: Style, look: Look) -> String {
    if look.colours { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Expect) {
        let line = Line { label: "web-1".to_owned(), text: text.to_owned() };
        expected.assert_eq(&line.show(Look { pretty: true, colours: false }));
    }

    #[test]
    fn lines_of_json_are_shown_as_text() {
        check(
            r#"{"level":"info","ts":1700000000.1,"msg":"listening","port":80,"addr":"[::]:80"}"#,
            expect!["web-1 | INFO listening addr=[::]:80 port=80"],
        );
        check(
            r#"{"severity":"Error","message":"no \"way\"","cause":"a b","n":{"x":[1]},"empty":""}"#,
            expect![[r#"web-1 | ERROR no "way" cause="a b" empty="" n={"x":[1]}"#]],
        );
        check(r#"{"level":40,"msg":"slow","pid":7}"#, expect!["web-1 | WARN slow pid=7"]);
        check(r#"{"message":"alone"}"#, expect!["web-1 | alone"]);
    }

    #[test]
    fn all_else_stays_as_it_is() {
        check("plain", expect!["web-1 | plain"]);
        check("  {not json", expect!["web-1 |   {not json"]);
        check(r#"{"a":1}"#, expect![[r#"web-1 | {"a":1}"#]]);
        let line = Line { label: "a".to_owned(), text: r#"{"msg":"m"}"#.to_owned() };
        assert_eq!(line.show(Look::default()), r#"a | {"msg":"m"}"#);
    }

    #[test]
    fn a_pod_keeps_its_colour() {
        let show = |label: &str, text: &str| {
            let line = Line { label: label.to_owned(), text: text.to_owned() };
            line.show(Look { colours: true, pretty: true }).escape_debug().to_string()
        };
        expect![[r#"\u{1b}[96mweb-1\u{1b}[0m | one"#]].assert_eq(&show("web-1", "one"));
        expect![[
            r#"\u{1b}[96mweb-1\u{1b}[0m | \u{1b}[33mWARN\u{1b}[0m two \u{1b}[2ma\u{1b}[0m=b"#
        ]]
        .assert_eq(&show("web-1", r#"{"level":"warn","msg":"two","a":"b"}"#));
        expect![[r#"\u{1b}[36mdb\u{1b}[0m | three"#]].assert_eq(&show("db", "three"));
    }

    proptest! {
        #[test]
        fn no_text_is_lost_or_too_much(text in r#"[ {}":,a-z0-9\\]{0,40}"#) {
            let line = Line { label: "a".to_owned(), text: text.clone() };
            let shown = line.show(Look { colours: false, pretty: true });
            if object(&text).is_none() {
                prop_assert_eq!(shown, format!("a | {text}"));
            }
        }
    }
}
