//! Compiles the requests of a scenario: one with all that is known beforehand filled in, and
//! templates for the rest. `examine` compiles what is looked for in the answer.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    Files,
    answer::{Source, Subject},
    data::Table,
    document::{Fields, Node, Value as Yaml},
    error::Error,
    examine,
    flow::{Compiler, METHODS},
    program::{Credentials, Step},
    target::{Target, escape},
    template::{Escape, Template, Value},
    user::basic,
};
use crate::exchange::{Keep, Origin, Request};

/// How many redirects may be followed.
const REDIRECTS_MAX: u64 = 20;
/// Longest body that is read from a file.
const BODY_FILE_MAX: usize = 64 << 20;
/// How long a request may take when nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What all requests of a file share.
pub(super) struct Common<'a> {
    pub(super) files: &'a Files<'a>,
    /// Where paths lead.
    pub(super) target: Option<Target>,
    pub(super) constants: BTreeMap<String, Value>,
    pub(super) tables: BTreeMap<String, Arc<Table>>,
    pub(super) defaults: Defaults<'a>,
    pub(super) cookies: bool,
    /// Every server that a request names.
    pub(super) origins: RefCell<BTreeSet<Arc<Origin>>>,
}

/// What a request has that does not say otherwise.
#[derive(Debug, Default)]
pub(super) struct Defaults<'a> {
    pub(super) headers: Option<&'a Node>,
    pub(super) auth: Option<&'a Node>,
    pub(super) timeout: Option<&'a Node>,
    pub(super) redirects: Option<&'a Node>,
    pub(super) on_failure: Option<&'a Node>,
}

/// Compiles a request that is only a line, such as `GET /path`.
pub(super) fn compile_line(
    compiler: &mut Compiler<'_>,
    node: &Node,
    line: &str,
) -> Result<(), Error> {
    let wrong = || node.wrong(format!("`{line}` is no step; write it as `GET /path`, or as a map"));
    let (method, url) = line.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
    let key = METHODS.iter().find(|it| it.eq_ignore_ascii_case(method)).ok_or_else(wrong)?;
    let url = Node { value: Yaml::Text(url.trim().to_owned()), ..node.clone() };
    let entries = vec![((*key).to_owned(), url)];
    compile(compiler, &Node { value: Yaml::Map(entries), ..node.clone() })
}

/// Compiles a request into an instruction.
pub(super) fn compile(compiler: &mut Compiler<'_>, node: &Node) -> Result<(), Error> {
    let common = compiler.common;
    let defaults = &common.defaults;
    let mut fields = node.fields()?;
    let (method, url_node) = method_and_url(&mut fields)?;
    let url = url_node.text()?;
    let name = match fields.take("name") {
        Some(node) => node.scalar()?,
        None => format!("{method} {url}"),
    };
    if name.trim().is_empty() {
        return Err(node.wrong("the name of a step is empty"));
    }
    let (origin, path) = address(compiler, url_node, url, fields.take("query"))?;
    let mut headers = Headers::default();
    for node in [defaults.headers, fields.take("headers")].into_iter().flatten() {
        headers.add(compiler, node)?;
    }
    let body = body(compiler, &mut fields, &mut headers)?;
    let auth = fields.take("auth").or(defaults.auth);
    let authorization = authorization(compiler, auth, &mut headers)?;
    let timeout = fields.take("timeout").or(defaults.timeout);
    let redirects = fields.take("redirects").or(defaults.redirects);
    let on_failure = fields.take("on_failure").or(defaults.on_failure);
    let checks = fields.take("check").map(|it| examine::checks(compiler, it));
    let checks = checks.transpose()?.unwrap_or_default();
    let extractions = fields.take("extract").map(|it| examine::extractions(compiler, it));
    let extractions = extractions.transpose()?.unwrap_or_default();
    fields.finish()?;
    let (path, fixed_path) = split(path);
    let (body, fixed_body) = match body {
        Body::Fixed(bytes) => (None, bytes),
        Body::Template(template) => {
            let (template, fixed) = split(template);
            (template, fixed.into())
        }
    };
    let base = Request {
        origin,
        method,
        path: fixed_path.into(),
        headers: Arc::new(headers.fixed),
        body: fixed_body,
        keep: Keep::default(),
        timeout: timeout.map_or(Ok(TIMEOUT), Node::some_duration)?,
    };
    let step = Step {
        id: compiler.step_id(&name),
        base,
        path,
        headers: headers.templates,
        authorization,
        body,
        checks_status: checks.iter().any(|it| matches!(it.what, Subject::Status(_))),
        checks,
        extractions,
        leave_on_failure: leaves(on_failure)?,
        redirects: redirects.map_or(Ok(0), |it| it.whole(0, REDIRECTS_MAX))?,
    };
    compiler.send(step);
    Ok(())
}

/// A template that is to be rendered each time, or the text that it always is.
fn split(template: Template) -> (Option<Template>, String) {
    match template.constant().map(str::to_owned) {
        Some(text) => (None, text),
        None => (Some(template), String::new()),
    }
}

fn method_and_url<'a>(fields: &mut Fields<'a>) -> Result<(Method, &'a Node), Error> {
    let given: Vec<&str> = METHODS.into_iter().filter(|it| fields.has(it)).collect();
    let short = METHODS.map(|it| (it, fields.take(it)));
    let method = fields.take("method");
    let path = fields.take("path");
    let short = short.into_iter().find_map(|(name, node)| node.map(|node| (name, node)));
    match (given.as_slice(), short, method, path) {
        ([_], Some((name, url)), None, None) => {
            let method = Method::from_bytes(name.to_ascii_uppercase().as_bytes());
            Ok((method.map_err(|_| url.wrong("no method"))?, url))
        }
        ([], _, Some(node), Some(url)) => {
            let method = node.text()?;
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|_| node.wrong(format!("`{method}` is no method of HTTP")))?;
            Ok((method, url))
        }
        _ => Err(fields
            .node
            .wrong("a request has one method: `get: /path`, or `method: PURGE` and `path: /path`")),
    }
}

fn leaves(node: Option<&Node>) -> Result<bool, Error> {
    let Some(node) = node else { return Ok(false) };
    match node.text()? {
        "continue" => Ok(false),
        "leave" => Ok(true),
        other => Err(node.wrong(format!("`{other}` is neither `continue` nor `leave`"))),
    }
}

/// Where a request goes, and its path with the query.
fn address(
    compiler: &mut Compiler<'_>,
    node: &Node,
    url: &str,
    query: Option<&Node>,
) -> Result<(Arc<Origin>, Template), Error> {
    let common = compiler.common;
    let template =
        Template::compile(url, Escape::Url, compiler).map_err(|error| node.wrong(error))?;
    let beginning = template.beginning().to_owned();
    let absolute = ["http://", "https://"].iter().find(|it| beginning.starts_with(**it));
    let (origin, mut path) = if let Some(scheme) = absolute {
        let after = beginning.get(scheme.len()..).unwrap_or_default();
        let end = after.find(['/', '?']);
        if end.is_none() && template.constant().is_none() {
            return Err(node.wrong("the server of a request cannot be a variable of a user"));
        }
        let end = scheme.len() + end.unwrap_or(after.len());
        let server = beginning.get(..end).unwrap_or_default();
        let target: Target = server.parse().map_err(|error: String| node.wrong(error))?;
        let rest = template.without_beginning(end);
        let mut path = Template::default();
        if !rest.beginning().starts_with('/') {
            path.verbatim("/");
        }
        path.append(rest);
        (target.origin, path)
    } else {
        let Some(target) = &common.target else {
            return Err(node.wrong("`target` is missing: whose path is this?"));
        };
        let variable = beginning.is_empty() && !url.is_empty();
        if !variable && !beginning.starts_with('/') {
            return Err(node.wrong(format!("`{url}` does not begin with `/` or `http://`")));
        }
        let mut path = Template::default();
        path.verbatim(target.path.trim_end_matches('/'));
        path.append(template);
        (target.origin.clone(), path)
    };
    if let Some(query) = query {
        let mark = if url.contains('?') { '&' } else { '?' };
        let pairs = pairs(compiler, query)?;
        if pairs != Template::default() {
            path.verbatim(&mark.to_string());
            path.append(pairs);
        }
    }
    let mut origins = common.origins.borrow_mut();
    let known = origins.get(&origin).cloned();
    let origin = known.unwrap_or_else(|| Arc::new(origin));
    origins.insert(Arc::clone(&origin));
    Ok((origin, path))
}

/// Names and values as queries and forms have them.
fn pairs(compiler: &mut Compiler<'_>, node: &Node) -> Result<Template, Error> {
    let mut all = Template::default();
    for (name, node) in node.map("a map of names and values")? {
        let values = match &node.value {
            Yaml::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        for value in values {
            if all != Template::default() {
                all.verbatim("&");
            }
            let mut start = String::new();
            escape(name, &mut start);
            start.push('=');
            all.verbatim(&start);
            let template = Template::compile(&value.scalar()?, Escape::Component, compiler);
            all.append(template.map_err(|error| value.wrong(error))?);
        }
    }
    Ok(all)
}

#[derive(Default)]
struct Headers {
    fixed: HeaderMap,
    templates: Vec<(HeaderName, Template)>,
}

impl Headers {
    /// Adds the headers of `node`, in place of earlier ones of the same names.
    fn add(&mut self, compiler: &mut Compiler<'_>, node: &Node) -> Result<(), Error> {
        for (name, node) in node.map("a map of headers")? {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| node.wrong(format!("`{name}` is no name of a header")))?;
            if [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(&key) {
                return Err(node.wrong("this header is made from the request itself"));
            }
            self.fixed.remove(&key);
            self.templates.retain(|(it, _)| *it != key);
            let values = match &node.value {
                Yaml::List(items) => items.iter().collect(),
                _ => vec![node],
            };
            for value in values {
                let template = Template::compile(&value.scalar()?, Escape::Nothing, compiler)
                    .map_err(|error| value.wrong(error))?;
                compiler.mark_headers(template.slots());
                match template.constant() {
                    Some(text) => {
                        let header = HeaderValue::from_str(text)
                            .map_err(|_| value.wrong("no value that a header can have"))?;
                        self.fixed.append(key.clone(), header);
                    }
                    None => {
                        for text in template.texts() {
                            HeaderValue::from_str(text)
                                .map_err(|_| value.wrong("no value that a header can have"))?;
                        }
                        self.templates.push((key.clone(), template));
                    }
                }
            }
        }
        Ok(())
    }

    fn default_type(&mut self, value: &'static str) {
        let given = self.fixed.contains_key(header::CONTENT_TYPE)
            || self.templates.iter().any(|(name, _)| *name == header::CONTENT_TYPE);
        if !given {
            self.fixed.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        }
    }
}

enum Body {
    Fixed(Bytes),
    Template(Template),
}

fn body(
    compiler: &mut Compiler<'_>,
    fields: &mut Fields<'_>,
    headers: &mut Headers,
) -> Result<Body, Error> {
    let given: Vec<&str> =
        ["body", "json", "form"].into_iter().filter(|it| fields.has(it)).collect();
    if let [first, second, ..] = given.as_slice() {
        return Err(fields.node.wrong(format!("a request has `{first}` or `{second}`, not both")));
    }
    let (body, json, form) = (fields.take("body"), fields.take("json"), fields.take("form"));
    if let Some(node) = body {
        if let Yaml::Map(_) = node.value {
            let mut fields = node.fields()?;
            let file = fields.require("file")?;
            let bytes = compiler.common.files.bytes(file, file.text()?, BODY_FILE_MAX)?;
            fields.finish()?;
            return Ok(Body::Fixed(bytes.into()));
        }
        let template = Template::compile(&node.scalar()?, Escape::Nothing, compiler);
        return Ok(Body::Template(template.map_err(|error| node.wrong(error))?));
    }
    if let Some(node) = json {
        headers.default_type("application/json");
        let mut template = Template::default();
        json_template(compiler, node, &mut template)?;
        return Ok(Body::Template(template));
    }
    if let Some(node) = form {
        headers.default_type("application/x-www-form-urlencoded");
        return Ok(Body::Template(pairs(compiler, node)?));
    }
    Ok(Body::Fixed(Bytes::new()))
}

/// Writes YAML as JSON, with its texts as templates.
pub(super) fn json_template(
    compiler: &mut Compiler<'_>,
    node: &Node,
    out: &mut Template,
) -> Result<(), Error> {
    match &node.value {
        Yaml::Null => out.verbatim("null"),
        Yaml::Bool(it) => out.verbatim(&it.to_string()),
        Yaml::Number(it) => out.verbatim(&it.to_string()),
        Yaml::Text(text) => {
            let template = Template::compile_json(text, compiler);
            out.append(template.map_err(|error| node.wrong(error))?);
        }
        Yaml::List(items) => {
            out.verbatim("[");
            for (index, item) in items.iter().enumerate() {
                out.verbatim(if index > 0 { "," } else { "" });
                json_template(compiler, item, out)?;
            }
            out.verbatim("]");
        }
        Yaml::Map(entries) => {
            out.verbatim("{");
            for (index, (name, value)) in entries.iter().enumerate() {
                out.verbatim(if index > 0 { "," } else { "" });
                out.verbatim(&serde_json::Value::from(name.as_str()).to_string());
                out.verbatim(":");
                json_template(compiler, value, out)?;
            }
            out.verbatim("}");
        }
    }
    Ok(())
}

fn authorization(
    compiler: &mut Compiler<'_>,
    node: Option<&Node>,
    headers: &mut Headers,
) -> Result<Option<Credentials>, Error> {
    let Some(node) = node else { return Ok(None) };
    let mut fields = node.fields()?;
    let mut part = |name| {
        let node = fields.require(name)?;
        let template = Template::compile(&node.scalar()?, Escape::Nothing, compiler);
        template.map_err(|error| node.wrong(error))
    };
    let (user, password) = (part("user")?, part("password")?);
    fields.finish()?;
    if user.constant().is_some_and(|it| it.contains(':')) {
        return Err(node.wrong("a user's name has no `:` in basic authentication"));
    }
    match (user.constant(), password.constant()) {
        (Some(user), Some(password)) => {
            let value = basic(&format!("{user}:{password}"));
            headers.fixed.insert(header::AUTHORIZATION, value);
            Ok(None)
        }
        _ => Ok(Some(Credentials { user, password })),
    }
}

/// What of its answer a step needs.
pub(super) fn keep(step: &Step, cookies: bool) -> Keep {
    let mut keep = Keep { headers: cookies || step.redirects > 0, body: false };
    for check in &step.checks {
        match check.what {
            Subject::Status(_) => {}
            Subject::Header(..) => keep.headers = true,
            Subject::Body(_) | Subject::Json(..) => keep.body = true,
        }
    }
    for extraction in &step.extractions {
        match extraction.source {
            Source::Json(_) | Source::Regex(_) => keep.body = true,
            Source::Header(..) | Source::Cookie(_) => keep.headers = true,
        }
    }
    keep
}
