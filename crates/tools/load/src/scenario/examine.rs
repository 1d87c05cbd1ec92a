//! Compiles what a step looks for in its answer: `check` and `extract`.

use http::HeaderName;
use regex::bytes::Regex;

use super::{
    answer::{Check, Extraction, Pick, Source, Subject, Wanted},
    document::{Node, Value as Yaml},
    error::Error,
    flow::Compiler,
    json_path::Path,
    template::{Escape, Template, Value},
};

/// Reads `check`: a status, a map of conditions, or a list of maps that may have names.
pub(super) fn checks(compiler: &mut Compiler<'_>, node: &Node) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    match &node.value {
        Yaml::List(items) => {
            for item in items {
                conditions(compiler, item, &mut checks)?;
            }
        }
        Yaml::Map(_) => conditions(compiler, node, &mut checks)?,
        Yaml::Null | Yaml::Bool(_) | Yaml::Number(_) | Yaml::Text(_) => {
            checks.push(status(node)?);
        }
    }
    if checks.is_empty() {
        return Err(node.wrong("nothing is checked"));
    }
    Ok(checks)
}

fn conditions(
    compiler: &mut Compiler<'_>,
    node: &Node,
    checks: &mut Vec<Check>,
) -> Result<(), Error> {
    let mut fields = node.fields()?;
    let first = checks.len();
    let given_name = fields.take("name").map(Node::scalar).transpose()?;
    if let Some(node) = fields.take("status") {
        checks.push(status(node)?);
    }
    if let Some(node) = fields.take("header") {
        for (name, value) in node.map("a map of headers")? {
            let header = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| value.wrong(format!("`{name}` is no name of a header")))?;
            let (wanted, words) = wanted(compiler, value, Kind::Text)?;
            let name = format!("header {header} {words}");
            checks.push(Check { name, what: Subject::Header(header, wanted) });
        }
    }
    if let Some(node) = fields.take("contains") {
        let wanted = Wanted::Contains(template(compiler, node)?);
        let name = format!("body contains {}", quoted(&node.scalar()?));
        checks.push(Check { name, what: Subject::Body(wanted) });
    }
    if let Some(node) = fields.take("matches") {
        let wanted = Wanted::Matches(regex(node)?);
        let name = format!("body matches {}", quoted(node.text()?));
        checks.push(Check { name, what: Subject::Body(wanted) });
    }
    if let Some(node) = fields.take("json") {
        for (path, value) in node.map("a map of paths and values")? {
            let what = Path::parse(path).map_err(|error| value.wrong(error))?;
            let (wanted, words) = wanted(compiler, value, Kind::Json)?;
            let name = format!("{path} {words}");
            checks.push(Check { name, what: Subject::Json(what, wanted) });
        }
    }
    fields.finish()?;
    if checks.len() == first {
        return Err(node.wrong("nothing is checked"));
    }
    if let Some(name) = given_name {
        for check in checks.iter_mut().skip(first) {
            check.name.clone_from(&name);
        }
    }
    Ok(())
}

/// `200`, `2xx`, or a list of these.
fn status(node: &Node) -> Result<Check, Error> {
    let mut ranges = Vec::new();
    let mut words = Vec::new();
    let items = match &node.value {
        Yaml::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    for item in items {
        let text = item.scalar()?;
        let range = match text.strip_suffix("xx") {
            Some(digit) => digit.parse().ok().map(|it: u16| (it.saturating_mul(100), 99)),
            None => text.parse().ok().map(|it| (it, 0)),
        };
        match range {
            Some((from, more)) if (100..1000).contains(&from) => ranges.push((from, from + more)),
            _ => return Err(item.wrong(format!("`{text}` is no status; write `200` or `2xx`"))),
        }
        words.push(text);
    }
    if ranges.is_empty() {
        return Err(node.wrong("no status is allowed"));
    }
    let name = format!("status is {}", words.join(" or "));
    Ok(Check { name, what: Subject::Status(ranges) })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Json,
}

/// What a header or a value of JSON must be, and the same in words: a value, or a map with one of
/// `equals`, `contains`, `matches`, `exists`.
fn wanted(compiler: &mut Compiler<'_>, node: &Node, kind: Kind) -> Result<(Wanted, String), Error> {
    let Yaml::Map(entries) = &node.value else { return equal(compiler, node, kind) };
    let mut fields = node.fields()?;
    let equals = fields.take("equals");
    let (contains, matches) = (fields.take("contains"), fields.take("matches"));
    let exists = fields.take("exists");
    fields.finish()?;
    if entries.len() != 1 {
        return Err(node.wrong("write one of `equals`, `contains`, `matches` and `exists`"));
    }
    if let Some(node) = contains {
        let words = format!("contains {}", quoted(&node.scalar()?));
        return Ok((Wanted::Contains(template(compiler, node)?), words));
    }
    if let Some(node) = matches {
        return Ok((Wanted::Matches(regex(node)?), format!("matches {}", quoted(node.text()?))));
    }
    if let Some(node) = exists {
        return Ok(match node.bool()? {
            true => (Wanted::Exists, "exists".to_owned()),
            false => (Wanted::Absent, "is absent".to_owned()),
        });
    }
    match equals {
        Some(node) => equal(compiler, node, kind),
        None => Err(node.wrong("nothing is wanted")),
    }
}

fn equal(compiler: &mut Compiler<'_>, node: &Node, kind: Kind) -> Result<(Wanted, String), Error> {
    if kind == Kind::Text {
        let words = format!("is {}", quoted(&node.scalar()?));
        return Ok((Wanted::Equals(template(compiler, node)?), words));
    }
    if let Yaml::Text(text) = &node.value {
        let template = template(compiler, node)?;
        let words = format!("is {}", quoted(text));
        return Ok(match template.constant() {
            Some(text) => (Wanted::EqualsJson(text.into()), words),
            None => (Wanted::Equals(template), words),
        });
    }
    let value = constant(node)?;
    let words = format!("is {value}");
    Ok((Wanted::EqualsJson(value), words))
}

/// YAML as JSON; variables only make sense in a text that is the whole value.
fn constant(node: &Node) -> Result<serde_json::Value, Error> {
    Ok(match &node.value {
        Yaml::Null => serde_json::Value::Null,
        Yaml::Bool(it) => (*it).into(),
        Yaml::Number(it) => it.clone().into(),
        Yaml::Text(text) if text.contains("{{") => {
            return Err(node.wrong("a variable cannot be compared inside a list or a map"));
        }
        Yaml::Text(text) => text.as_str().into(),
        Yaml::List(items) => items.iter().map(constant).collect::<Result<Vec<_>, _>>()?.into(),
        Yaml::Map(entries) => {
            let entry = |(name, it): &(String, Node)| Ok((name.clone(), constant(it)?));
            let entries = entries.iter().map(entry).collect::<Result<_, Error>>()?;
            serde_json::Value::Object(entries)
        }
    })
}

fn template(compiler: &mut Compiler<'_>, node: &Node) -> Result<Template, Error> {
    let template = Template::compile(&node.scalar()?, Escape::Nothing, compiler);
    template.map_err(|error| node.wrong(error))
}

fn regex(node: &Node) -> Result<Regex, Error> {
    let text = node.text()?;
    Regex::new(text).map_err(|error| {
        let reason = match &error {
            // The last line of several, which draw the place.
            regex::Error::Syntax(text) => {
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
            other => other.to_string(),
        };
        node.wrong(format!("`{text}` is no regular expression: {reason}"))
    })
}

/// Longest part of a value that stands in the name of a check, in characters.
const QUOTED_MAX: usize = 40;

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
        None => format!("`{text}`"),
    }
}

/// Reads `extract`: variables, and where each is found.
pub(super) fn extractions(
    compiler: &mut Compiler<'_>,
    node: &Node,
) -> Result<Vec<Extraction>, Error> {
    let mut extractions = Vec::new();
    for (name, node) in node.map("a map of variables")? {
        let allowed = |it: char| it.is_alphanumeric() || it == '_' || it == '-';
        if name.is_empty() || !name.chars().all(allowed) {
            let what = "the name of a variable has letters, digits, `_` and `-`";
            return Err(node.wrong(what));
        }
        if compiler.common.constants.contains_key(name) {
            return Err(node.wrong("this name is taken by `env` or `variables`"));
        }
        let (source, pick, default) = source(node)?;
        let slot = compiler.define(name);
        extractions.push(Extraction { name: name.clone(), slot, source, pick, default });
    }
    if extractions.is_empty() {
        return Err(node.wrong("nothing is extracted"));
    }
    Ok(extractions)
}

fn source(node: &Node) -> Result<(Source, Pick, Option<Value>), Error> {
    if let Yaml::Text(text) = &node.value {
        let path = Path::parse(text).map_err(|error| {
            node.wrong(format!("{error}, or a map with `json`, `regex`, `header` or `cookie`"))
        })?;
        return Ok((Source::Json(path), Pick::First, None));
    }
    let mut fields = node.fields()?;
    let (json, pattern) = (fields.take("json"), fields.take("regex"));
    let (header, cookie) = (fields.take("header"), fields.take("cookie"));
    let pattern_node = pattern;
    let pattern = pattern.map(regex).transpose()?;
    let source = match (json, pattern, header, cookie) {
        (Some(node), None, None, None) => {
            Source::Json(Path::parse(node.text()?).map_err(|error| node.wrong(error))?)
        }
        (None, pattern, Some(node), None) => {
            let name = HeaderName::from_bytes(node.text()?.as_bytes());
            Source::Header(name.map_err(|_| node.wrong("no name of a header"))?, pattern)
        }
        (None, Some(pattern), None, None) => Source::Regex(pattern),
        (None, None, None, Some(node)) => Source::Cookie(node.text()?.to_owned()),
        _ => {
            let node = pattern_node.unwrap_or(node);
            return Err(node.wrong("write one of `json`, `regex`, `header` and `cookie`"));
        }
    };
    let pick = match fields.take("pick") {
        None => Pick::First,
        Some(node) => match node.text()? {
            "first" => Pick::First,
            "random" => Pick::Random,
            other => return Err(node.wrong(format!("`{other}` is neither `first` nor `random`"))),
        },
    };
    let default = fields.take("default").map(constant).transpose()?;
    fields.finish()?;
    Ok((source, pick, default.map(|it| Value::of_json(&it))))
}
